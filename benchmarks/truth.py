"""The truth that racing is judged by: many configurations of a space, all images in full.

    python benchmarks/truth.py --budget 50% [--space digits] [--configurations 1000] [--images 2048]

Keeps the logits of the unpruned model and of Monte Carlo's configurations 0, 1, 2, … under
benchmarks/.cache, a file per batch, so that it can be stopped and started again. The benchmarks
that replay searches on per-image results (signal, search_cost, false_kills) evaluate nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import CACHE

from ztp_search import SearchSettings
from ztp_search.driver.evaluator import Evaluator, open_evaluator
from ztp_search.driver.progress import Progress
from ztp_search.evaluation.image_range import ImageRange
from ztp_search.evaluation.runtime import resolve_runtime
from ztp_search.objectives.signals import distribution, losses
from ztp_search.pruning.budget import parse_budget
from ztp_search.pruning.config import PruningConfig
from ztp_search.racing import Losses
from ztp_search.samplers import MonteCarlo
from ztp_search.settings import resolve_search
from ztp_search.space.decoder import Decoder

BATCH_SIZE = 64


@dataclass(frozen=True)
class Truth:
    """What configurations give, image by image.

    logits: float32 (configurations, images, classes). unpruned: (images, classes).
    labels: (images,).
    """

    logits: npt.NDArray[np.float32]
    unpruned: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Right or not, (configurations, images)."""
        return np.asarray(self.logits.argmax(-1) == self.labels)

    @property
    def unpruned_correct(self) -> npt.NDArray[np.bool_]:
        """Of the unpruned model, (images,)."""
        return np.asarray(self.unpruned.argmax(-1) == self.labels)

    def losses(self) -> Losses:
        """Total variation from the unpruned model, (configurations, images)."""
        targets = distribution(torch.from_numpy(self.unpruned))
        rows = [losses(torch.from_numpy(each), targets).numpy() for each in self.logits]
        return np.stack(rows).astype(np.uint16)


def named_truth(name: str, images: int) -> tuple[Truth, dict[str, Any]]:
    """The truth of "SPACE:BUDGET:CONFIGURATIONS", and how results name it."""
    space, budget, configurations = name.rsplit(":", 2)
    about = {
        "space": Path(space).stem, "budget": budget, "configurations": int(configurations),
    }  # fmt: skip
    return truth(space, budget, int(configurations), images), about


def truth(space: str, budget: str, configurations: int, images: int) -> Truth:
    """The kept truth, measured first as far as it is missing."""
    folder = CACHE / "truth" / f"{Path(space).stem}-{budget.strip('%')}-{configurations}"
    batches = range(-(-images // BATCH_SIZE))
    files = [folder / f"batch-{batch}.npy" for batch in batches]
    if not all(file.exists() for file in files):
        folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")
        workers = os.cpu_count() or 1
        jobs = [(space, budget, configurations, images, part, workers) for part in range(workers)]
        with context.Pool(workers) as pool:
            pool.starmap(measure, jobs)
    evaluator, _ = _open(space, budget, configurations, images)
    logits = np.concatenate([np.load(file) for file in files], axis=1).astype(np.float32)
    return Truth(logits[1:], logits[0], evaluator.labels("search"))


def measure(
    space: str, budget: str, configurations: int, images: int, part: int, parts: int
) -> None:
    """Every parts-th batch from `part` on."""
    evaluator, configs = _open(space, budget, configurations, images)
    folder = CACHE / "truth" / f"{Path(space).stem}-{budget.strip('%')}-{configurations}"
    runner = evaluator._job().model_runner()
    first = [config.layers[0].after_block if config else 0 for config in configs]
    order = sorted(range(len(configs)), key=lambda index: first[index])
    for number, batch in enumerate(ImageRange("search", 0, images).split(BATCH_SIZE)):
        path = folder / f"batch-{number}.npy"
        if number % parts != part or path.exists():
            continue
        with torch.inference_mode():
            activations = runner._activations(batch)
            logits = {i: activations.logits(configs[i]).float().numpy() for i in order}
        runner.clear_cache()
        temporary = path.with_suffix(f".{part}.tmp.npy")
        np.save(temporary, np.stack([logits[i] for i in range(len(configs))]).astype(np.float16))
        temporary.replace(path)
        print(f"{budget}: batch {number + 1} of {-(-images // BATCH_SIZE)}", flush=True)


def _open(
    space: str, budget: str, configurations: int, images: int
) -> tuple[Evaluator, list[PruningConfig | None]]:
    """Model and images, and the unpruned model (None) followed by the configurations."""
    asked = resolve_search(
        SearchSettings(space=space, budget=budget, images=images, holdout=0, workers=0,
                       batch_size=BATCH_SIZE, out=CACHE)
    )  # fmt: skip
    runtime = resolve_runtime("auto", "auto", BATCH_SIZE, 1)
    evaluator = open_evaluator(asked.sources, runtime, "top1", asked.workers, Progress())
    decoder = Decoder(asked.space, evaluator.geometry, parse_budget(budget, evaluator.geometry))
    sampler = MonteCarlo(decoder, seed=0)
    proposals = [sampler.propose(index) for index in range(configurations)]
    return evaluator, [None, *(each.config for each in proposals if each)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--space", default="digits")
    parser.add_argument("--configurations", type=int, default=1000)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--budget", default="50%")
    args = parser.parse_args()
    found = truth(args.space, args.budget, args.configurations, args.images)
    accuracies = np.sort(found.correct.mean(1))[::-1]
    print(f"unpruned {found.unpruned_correct.mean():.4f}")
    print(f"best {accuracies[:5]}, worst {accuracies[-1]:.4f}")


if __name__ == "__main__":
    main()
