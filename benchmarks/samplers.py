"""Which way of proposing configurations wins at 100, 500 and 2,000 trials.

    python benchmarks/samplers.py [--seeds 3] [--budget 50%] [--trials 100 500 2000]

Searches of the digits space, raced as always; a fifth of the trials of "+ refine" are refinements.
All trials of a search race together, so it is run for every number of trials. Each winner is then
measured on the same holdout images, which chose nothing. Differences from Monte Carlo are paired
by seed.

Studies are kept under benchmarks/.cache, so the script can be stopped and started again;
`--only` runs some of the samplers, and `--report` only reports what is there.
"""

from __future__ import annotations

import argparse
import itertools
from typing import Any

import numpy as np
from common import CACHE, record

from ztp_search import SearchSettings, search
from ztp_search.driver.evaluator import open_evaluator
from ztp_search.driver.progress import Progress, Status
from ztp_search.errors import StudyError
from ztp_search.evaluation.runtime import resolve_runtime
from ztp_search.pruning.config import PruningConfig
from ztp_search.samplers import SAMPLERS
from ztp_search.settings import resolve_search
from ztp_search.study import StoredTrial, StudyReader

WAYS = (*SAMPLERS, "monte-carlo + refine")
STORAGE = f"sqlite:///{CACHE / 'samplers.db'}"
HOLDOUT = 5000


class Spoken(Progress):
    """A line every 500 trials."""

    said = 0

    def trials(self, status: Status) -> None:
        if status.done // 500 != self.said:
            self.said = status.done // 500
            print(f"  {status.done} trials, {status.images_per_second:,.0f} images/s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 500, 2000])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--budget", default="50%")
    parser.add_argument("--only", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args()
    if not args.report:
        for seed, trials, way in itertools.product(range(args.seeds), args.trials, args.only):
            print(f"seed {seed}: {way}, {trials} trials", flush=True)
            search(_settings(args, way, trials, seed), Spoken())
    _report(args)


def _settings(args: argparse.Namespace, way: str, trials: int, seed: int) -> SearchSettings:
    refine = trials // 5 if "refine" in way else 0
    return SearchSettings(
        space="digits", budget=args.budget, images=args.images, holdout=0, trials=trials - refine,
        refine=refine, sampler=way.split(" ")[0], seed=seed, storage=STORAGE,
        study=_name(args, way, trials, seed), out=CACHE,
    )  # fmt: skip


def _name(args: argparse.Namespace, way: str, trials: int, seed: int) -> str:
    return f"{way}-{trials}-{args.images}-{args.budget}-seed{seed}"


def _report(args: argparse.Namespace) -> None:
    found: dict[tuple[str, int, int], tuple[StoredTrial, int]] = {}
    for way, trials, seed in itertools.product(WAYS, args.trials, range(args.seeds)):
        try:
            with StudyReader.open(STORAGE, _name(args, way, trials, seed)) as study:
                stored, best = study.trials(), study.best(1)
        except StudyError:
            continue
        if best and all(trial.state != "running" for trial in stored):
            images = sum(trial.attrs["images"] for trial in stored)
            found[way, trials, seed] = best[0], images
    right = _on_holdout(args, {best.config for best, _ in found.values()})
    rows = []
    for trials, way in itertools.product(args.trials, WAYS):
        seeds = [seed for seed in range(args.seeds) if (way, trials, seed) in found]
        if seeds:
            mine = [found[way, trials, seed] for seed in seeds]
            base = {s: found["monte-carlo", trials, s] for s in seeds
                    if ("monte-carlo", trials, s) in found}  # fmt: skip
            gains = [
                100 * (right[found[way, trials, s][0].config].mean() - right[best.config].mean())
                for s, (best, _) in base.items()
            ]
            rows.append(_row(way, trials, mine, right, gains))
    results = {"arguments": vars(args), "holdout_images": HOLDOUT, "rows": rows}
    record(f"samplers_{args.budget.rstrip('%')}", results)


def _row(
    way: str,
    trials: int,
    mine: list[tuple[StoredTrial, int]],
    right: dict[PruningConfig, np.ndarray[Any, Any]],
    gains: list[float],
) -> dict[str, Any]:
    accuracies = [100 * right[best.config].mean() for best, _ in mine]
    row = {
        "sampler": way,
        "trials": trials,
        "seeds": len(mine),
        "holdout_top1": float(np.mean(accuracies)),
        "holdout_top1_all": accuracies,
        "search_top1": float(np.mean([100 * (best.value or 0) for best, _ in mine])),
        "image_evaluations": float(np.mean([images for _, images in mine])),
    }
    text = ""
    if way != "monte-carlo" and len(gains) > 1:
        from scipy.stats import t

        half = float(t.ppf(0.975, len(gains) - 1) * np.std(gains, ddof=1) / len(gains) ** 0.5)
        row["minus_monte_carlo"] = float(np.mean(gains))
        row["minus_monte_carlo_ci95"] = [np.mean(gains) - half, np.mean(gains) + half]
        text = f"; minus Monte Carlo {np.mean(gains):+.2f} ± {half:.2f}"
    print(f"{trials:5} trials, {way:21}: holdout {row['holdout_top1']:.2f} % over {len(mine)} "
          f"seeds{text}; search {row['search_top1']:.2f} %, "
          f"{row['image_evaluations']:,.0f} images")  # fmt: skip
    return row


def _on_holdout(
    args: argparse.Namespace, configs: set[PruningConfig]
) -> dict[PruningConfig, np.ndarray[Any, Any]]:
    """Per image: right or not, of each configuration."""
    asked = resolve_search(
        SearchSettings(space="digits", budget=args.budget, images=1, holdout=HOLDOUT, out=CACHE)
    )
    runtime = resolve_runtime("auto", "auto", asked.batch_size, 1)
    with open_evaluator(
        asked.sources, runtime, "top1", asked.workers, Progress()
    ) as evaluator:
        named = {config.digest(): config for config in configs}
        outcomes = evaluator.outcomes("holdout", dict(named), "evaluating on holdout")
        return {
            named[name]: evaluator.score("holdout", outcome.predictions)
            for name, outcome in outcomes
        }


if __name__ == "__main__":
    main()
