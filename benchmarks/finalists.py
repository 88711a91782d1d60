"""What more images for the finalists are worth: the bound of `images` that nobody asked for.

    python benchmarks/finalists.py [--budgets 35% 50% 68%] [--seeds 3] [--images 10000]

Searches of the digits space race on 512 images. Their finalists, and the hand-set schedules, are
then measured on many others. In each of 200 splits one half of these, in random order, chooses the
winner from its first 500, 1,000, … images, by the library's own rule, and the other half judges it.
Results are differences from the winner that the whole half chooses, in points of accuracy, paired
by split; intervals over searches, by Student.

Logits are kept under benchmarks/.cache, so the script can be stopped and started again.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import CACHE, record
from replay import chosen
from scipy.stats import t as student

from ztp_search import SearchSettings, search
from ztp_search.driver.evaluator import Evaluator, open_evaluator
from ztp_search.driver.progress import Progress
from ztp_search.evaluation.image_range import ImageRange
from ztp_search.evaluation.runtime import resolve_runtime
from ztp_search.objectives.signals import distribution, losses
from ztp_search.pruning.config import PruningConfig
from ztp_search.racing import Results
from ztp_search.settings import resolve_search
from ztp_search.study import StudyReader

FOLDER = CACHE / "finalists"
RACE_IMAGES = 512
STEPS = (500, 1000, 2000, 3000, 5000)
SPLITS = 200
BATCH_SIZE = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--budgets", nargs="+", default=["35%", "50%", "68%"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--images", type=int, default=10_000)
    args = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    fields = {
        (budget, seed): finalists(budget, args.trials, seed)
        for budget in args.budgets
        for seed in range(args.seeds)
    }
    evaluator = evaluator_of(args.images)
    rows = []
    for budget in args.budgets:
        gains = [
            gained(evaluator, configs, args.images, seed)
            for (name, seed), configs in fields.items()
            if name == budget
        ]
        rows.append(row(budget, gains))
    record("finalists", {"arguments": vars(args), "rows": rows})


def finalists(budget: str, trials: int, seed: int) -> list[PruningConfig]:
    """The complete trials of one search."""
    study = f"{budget}-{trials}-seed{seed}"
    storage = f"sqlite:///{FOLDER / f'{study}.db'}"
    search(
        SearchSettings(
            space="digits", budget=budget, images=RACE_IMAGES, holdout=0, workers=0, trials=trials,
            seed=seed, storage=storage, study=study, out=FOLDER,
        )
    )  # fmt: skip
    with StudyReader.open(storage, study) as found:
        return [trial.config for trial in found.trials() if trial.state == "complete"]


def evaluator_of(images: int) -> Evaluator:
    """Of holdout images, which are made of digits that no search image holds."""
    asked = resolve_search(
        SearchSettings(space="digits", budget="50%", images=1, holdout=images, workers=0,
                       batch_size=BATCH_SIZE, out=FOLDER)
    )  # fmt: skip
    runtime = resolve_runtime("auto", "auto", BATCH_SIZE, 1)
    return open_evaluator(asked.sources, runtime, "top1", asked.workers, Progress())


def logits_of(
    evaluator: Evaluator, config: PruningConfig | None, images: int
) -> npt.NDArray[np.float32]:
    """Logits of one configuration, or of the unpruned model, (images, classes)."""
    path = FOLDER / f"{config.digest() if config else 'unpruned'}-{images}.npy"
    if not path.exists():
        runner = evaluator._job().model_runner()
        parts = []
        with torch.inference_mode():
            for batch in ImageRange("holdout", 0, images).split(BATCH_SIZE):
                parts.append(runner._activations(batch).logits(config).float().numpy())
                runner.clear_cache()
        np.save(path, np.concatenate(parts).astype(np.float16))
        print(f"measured {path.stem[:12]}", flush=True)
    return np.asarray(np.load(path), np.float32)


def gained(
    evaluator: Evaluator, configs: list[PruningConfig], images: int, seed: int
) -> dict[int, float]:
    """By images that chose: points above what the whole half chooses, mean over splits."""
    labels = evaluator.labels("holdout")
    unpruned_logits = logits_of(evaluator, None, images)
    unpruned = np.asarray(unpruned_logits.argmax(-1) == labels)
    targets = distribution(torch.from_numpy(unpruned_logits))
    logits = [logits_of(evaluator, config, images) for config in configs]
    correct = np.stack([np.asarray(each.argmax(-1) == labels) for each in logits])
    lost = np.stack(
        [losses(torch.from_numpy(each), targets).numpy().astype(np.uint16) for each in logits]
    )
    gains: dict[int, list[float]] = {step: [] for step in STEPS}
    generator = np.random.default_rng(seed)
    for _ in range(SPLITS):
        choosing, judging = np.split(generator.permutation(images), 2)
        accuracy = 100 * correct[:, judging].mean(1)

        def winner(seen: npt.NDArray[np.int64]) -> int:
            field = {i: Results(correct[i, seen], lost[i, seen]) for i in range(len(configs))}
            return chosen(field, unpruned[seen])

        whole = accuracy[winner(choosing)]
        for step in STEPS:
            gains[step].append(float(accuracy[winner(choosing[:step])] - whole))
    return {step: statistics.mean(each) for step, each in gains.items()}


def row(budget: str, gains: list[dict[int, float]]) -> dict[str, Any]:
    """Means over searches, with intervals where there are several."""
    by_images = {}
    for step in STEPS:
        each = [gain[step] for gain in gains]
        mean = statistics.mean(each)
        half = float("nan")
        if len(each) > 1:
            half = float(student.ppf(0.975, len(each) - 1)) * statistics.stdev(each)
            half /= len(each) ** 0.5
        by_images[step] = [mean, mean - half, mean + half]
        print(f"{budget}: chosen on {step:5} images {mean:+.3f} ± {half:.3f} points")
    return {"budget": budget, "searches": len(gains), "minus_whole_half": by_images}


if __name__ == "__main__":
    main()
