"""What somebody who knows Ray Tune, Optuna and timm writes today: no search tool, one script.

Run by usual_way.py in a process of its own; prints one JSON document.

OptunaSearch (TPE) suggests which blocks prune, retentions, s_tokens, iterations and head
thresholds. What does not fit the budget is rejected inside the searcher, before Ray Tune hears of
it, and TPE is told how far off it was, so that it learns where the budget lies; told nothing, it
needs 300 suggestions per trial instead of 20. Trials are class trainables whose processes are
reused, so that imports, model and images are loaded once per process. Validation is timm's: its
loader and transforms, weights and images in the precision of the search, one accuracy.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # no CSV, JSON and TensorBoard per trial
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"

import optuna
import ray
import torch
from PIL import Image
from ray import tune
from ray.tune.search.optuna import OptunaSearch
from timm.data import create_loader
from torch.utils.data import DataLoader, Dataset, TensorDataset

from ztp_search import apply
from ztp_search.backbones import geometry_of
from ztp_search.backbones.loading import load_model
from ztp_search.data import ImageStore, normalise
from ztp_search.errors import ConfigError
from ztp_search.pruning.budget import Budget, parse_budget
from ztp_search.pruning.config import CHOICES, PruningConfig, PruningLayer
from ztp_search.pruning.cost import flops
from ztp_search.pruning.geometry import Geometry
from ztp_search.settings import ModelSpec
from ztp_search.space import SearchSpace, load_space

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Job:
    """What every trial is given."""

    model: ModelSpec
    preprocessing: dict[str, Any]
    images: Path
    count: int
    batch_size: int
    precision: str
    loader: str
    blocks: tuple[int, ...]


class Images(Dataset[Any]):
    """The first images of a store, as PIL images for timm's transforms (set by its loader)."""

    transform: Any = None

    def __init__(self, store: ImageStore, count: int) -> None:
        self.store = store
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Any, int]:
        pixels = self.store.images[index]  # (C, H, W)
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
        return self.transform(image), int(self.store.labels[index])


class Validation(tune.Trainable):  # type: ignore[misc]  # ray has no types here
    """One trial: prune, validate, report one accuracy."""

    def setup(self, config: dict[str, Any], job: Job | None = None) -> None:
        assert job is not None
        torch.set_num_threads(1)
        loaded = load_model(job.model, data_overrides=job.preprocessing)
        self.job = job
        self.dtype = DTYPES[job.precision]
        self.model = loaded.model.to(self.dtype)
        self.loader = loader(job, loaded.data_config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        began = time.time()
        apply(self.model, pruning_config(self.config, self.job.blocks))
        right = seen = 0
        with torch.inference_mode():
            for images, labels in self.loader:
                logits = self.model(images.to(self.dtype))
                right += int((logits.argmax(-1) == labels).sum())
                seen += len(labels)
        return {"accuracy": right / seen, "began": began, "ended": time.time(), "done": True}


def loader(job: Job, data_config: dict[str, Any]) -> Any:
    """timm's loader, or the kindest there is: images normalised once and held in memory."""
    store = ImageStore.open(job.images)
    if job.loader == "tensors":
        pixels = torch.from_numpy(store.images[: job.count].copy())
        labels = torch.from_numpy(store.labels[: job.count])
        images = normalise(pixels, data_config["mean"], data_config["std"])
        return DataLoader(TensorDataset(images, labels), job.batch_size)
    return create_loader(
        Images(store, job.count),
        data_config["input_size"],
        job.batch_size,
        interpolation=data_config["interpolation"],
        mean=data_config["mean"],
        std=data_config["std"],
        crop_pct=data_config["crop_pct"],
        crop_mode=data_config["crop_mode"],
        num_workers=0,  # two trials have a core each, and none is left for loading
        persistent_workers=False,
        use_prefetcher=False,
        device=torch.device("cpu"),
    )


class BudgetSearch(OptunaSearch):  # type: ignore[misc]  # nor here
    """OptunaSearch that suggests only what lies within the budget.

    asked: suggestions so far. within: least and most share of the budget that is accepted.
    seconds: in Optuna, and what a suggestion costs in GFLOPs.
    """

    def __init__(
        self, space: SearchSpace, geometry: Geometry, budget: Budget, least: float, seed: int
    ) -> None:
        self.layers, self.geometry, self.budget, self.least = space.layers, geometry, budget, least
        self.blocks = tuple(block.block for block in space.blocks(geometry.depth))
        self.asked = 0
        self.seconds = 0.0
        self.shares: list[float] = []
        super().__init__(DefineByRun(space, geometry), metric="accuracy", mode="max", seed=seed)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        began = time.perf_counter()
        while True:
            self.asked += 1
            suggested: dict[str, Any] | None = super().suggest(trial_id)
            assert suggested is not None
            share = self._share(suggested)
            if share is not None and self.least <= share <= 1.0:
                self.shares.append(share)
                self.seconds += time.perf_counter() - began
                return suggested
            off = -1.0 if share is None else -max(share - 1.0, self.least - share)
            self._ot_study.tell(self._ot_trials.pop(trial_id), off)

    def _share(self, suggested: dict[str, Any]) -> float | None:
        """What it costs, of the budget; None where it is no configuration of the space."""
        try:
            config = pruning_config(suggested, self.blocks)
            if not self.layers[0] <= len(config.layers) <= self.layers[1]:
                return None
            return flops(self.geometry, config).total / self.budget.macs
        except ConfigError:
            return None


class DefineByRun:
    """The search space for Optuna: parameters of a layer only where there is one.

    A class, as Tune pickles the searcher with what it holds.
    """

    def __init__(self, space: SearchSpace, geometry: Geometry) -> None:
        self.blocks = space.blocks(geometry.depth)
        self.half = geometry.patch_tokens // 2
        self.v_min, self.v_max, self.variants = space.v_min, space.v_max, space.variants

    def __call__(self, trial: Any) -> None:
        for block in self.blocks:
            name = f"block{block.block}"
            if trial.suggest_categorical(name, [True, False]):
                trial.suggest_float(f"{name}.retention", *block.retention)
                least, most = block.s_tokens
                trial.suggest_int(f"{name}.s_tokens", least, min(most, self.half))
                trial.suggest_int(f"{name}.wpr_iterations", *block.wpr_iterations)
                trial.suggest_float(f"{name}.merge_share", *block.merge_share)
        for name, scale in (("v_min", self.v_min), ("v_max", self.v_max)):
            trial.suggest_float(name, scale.low, scale.high, log=scale.log)
        for name, choices in self.variants.items():
            trial.suggest_categorical(name, choices)


def pruning_config(suggested: dict[str, Any], blocks: tuple[int, ...]) -> PruningConfig:
    layers = tuple(
        PruningLayer(
            block,
            suggested[f"block{block}.retention"],
            suggested[f"block{block}.s_tokens"],
            suggested[f"block{block}.wpr_iterations"],
            suggested[f"block{block}.merge_share"],
        )
        for block in blocks
        if suggested[f"block{block}"]
    )
    variants = {name: suggested[name] for name in CHOICES if name in suggested}
    return PruningConfig(layers, v_min=suggested["v_min"], v_max=suggested["v_max"], **variants)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="digits")
    parser.add_argument("--budget", default="50%")
    parser.add_argument("--least", type=float, default=0.99, help="share of the budget; 0: any")
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--seconds", type=float, help="stop after so long, whatever --trials says")
    parser.add_argument("--store", type=Path, required=True, help="decoded search images")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", choices=tuple(DTYPES), default="bf16")
    parser.add_argument("--loader", choices=("timm", "tensors"), default="timm")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--fresh-processes", action="store_true", help="one per trial, as Tune does"
                        " by default")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    printed = sys.stdout
    sys.stdout = sys.stderr  # Tune's own tables
    document = run(args)
    json.dump(document, printed)


def run(args: argparse.Namespace) -> dict[str, Any]:
    space = load_space(args.space)
    model = ModelSpec(space.model["name"], space.model["kwargs"], space.model["weights"])
    geometry = geometry_of(load_model(model).model)
    budget = parse_budget(args.budget, geometry)
    searcher = BudgetSearch(space, geometry, budget, args.least, args.seed)
    job = Job(
        model, dict(space.model["preprocessing"]), args.store, args.images, args.batch_size,
        args.precision, args.loader, searcher.blocks,
    )  # fmt: skip
    ray.init(
        address="local", num_cpus=args.workers, include_dashboard=False, log_to_driver=False
    )
    with tempfile.TemporaryDirectory() as folder:
        trainable = tune.with_resources(tune.with_parameters(Validation, job=job), {"cpu": 1})
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1 if args.seconds else args.trials,
                time_budget_s=args.seconds,
                max_concurrent_trials=args.workers,
                metric="accuracy",
                mode="max",
                reuse_actors=not args.fresh_processes,
            ),
            run_config=tune.RunConfig(
                storage_path=folder,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        )
        found = tuner.fit()
    ray.shutdown()
    if found.errors:
        raise found.errors[0]
    results = [each for each in found if "ended" in (each.metrics or {})]  # not cut short
    best = found.get_best_result()
    return {
        "first": min(result.metrics["began"] for result in results),
        "last": max(result.metrics["ended"] for result in results),
        "validation_seconds": sum(r.metrics["ended"] - r.metrics["began"] for r in results),
        "trials": len(results),
        "suggestions": searcher.asked,
        "suggestion_seconds": searcher.seconds,
        "mean_share_of_budget": sum(searcher.shares) / len(searcher.shares),
        "accuracy": best.metrics["accuracy"],
        "config": pruning_config(best.config, searcher.blocks).to_dict(),
    }


if __name__ == "__main__":
    main()
