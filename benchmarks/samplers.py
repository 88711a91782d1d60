"""Which way of proposing configurations wins, and what more Monte Carlo trials find.

    python benchmarks/samplers.py [--seeds 5] [--budgets 35% 50% 68%] [--trials 300 1000 3000]
                                  [--ways monte-carlo qmc …] [--processes 2]

Searches of the digits space, raced as always, all trials of one together; a fifth of the trials of
"+ refine" are refinements. At equal numbers of trials the image evaluations, which are recorded,
are nearly equal. Each winner is then measured on the same holdout images, which chose nothing.
Differences from Monte Carlo of as many trials, and from the same way's fewest trials, are paired by
seed, which also draws the order of the images, with Student's interval over seeds.

Studies and holdout results are kept under benchmarks/.cache, so the script can be stopped and
started again, with other ways and numbers of trials; `--report` only reports what is there.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import statistics
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from common import CACHE, record
from scipy.stats import t as student

from ztp_search import SearchSettings, search
from ztp_search.driver.evaluator import open_evaluator
from ztp_search.driver.progress import Progress
from ztp_search.errors import StudyError
from ztp_search.evaluation.runtime import resolve_runtime
from ztp_search.pruning.config import PruningConfig
from ztp_search.samplers import SAMPLERS
from ztp_search.settings import resolve_search
from ztp_search.study import StoredTrial, StudyReader
from ztp_search.study.packing import pack, unpack_bits

BASE = "monte-carlo"
WAYS = (*SAMPLERS, f"{BASE} + refine")
FOLDER = CACHE / "samplers"


@dataclass(frozen=True)
class Job:
    """One search of the digits space by one way."""

    budget: str
    trials: int
    way: str
    seed: int
    images: int

    @property
    def study(self) -> str:
        way = self.way.replace(" ", "")
        return f"{self.budget}-{way}-{self.trials}-{self.images}-seed{self.seed}"

    @property
    def storage(self) -> str:
        return f"sqlite:///{FOLDER / f'{self.study}.db'}"


@dataclass(frozen=True)
class Found:
    """What a search came to."""

    winner: StoredTrial
    image_evaluations: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--budgets", nargs="+", default=["35%", "50%", "68%"])
    parser.add_argument("--trials", type=int, nargs="+", default=[300, 1000, 3000])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--holdout", type=int, default=3000)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--name", default="samplers", help="of the file under benchmarks/results")
    args = parser.parse_args()
    jobs = [
        Job(budget, trials, way, seed, args.images)
        for seed, trials, budget, way in itertools.product(
            range(args.seeds), args.trials, args.budgets, args.ways
        )
    ]
    if not args.report:
        FOLDER.mkdir(parents=True, exist_ok=True)
        os.environ["OMP_NUM_THREADS"] = "1"
        with multiprocessing.get_context("spawn").Pool(args.processes) as pool:
            for said in pool.imap(searched, jobs):
                print(said, flush=True)
    found = {job: result for job in jobs if (result := read(job))}
    right = on_holdout({each.winner.config for each in found.values()}, args.holdout)
    rows = [
        row
        for budget, trials, way in itertools.product(args.budgets, args.trials, args.ways)
        if (
            row := summary(
                Job(budget, trials, way, 0, args.images), min(args.trials), found, right
            )
        )
    ]
    record(args.name, {"arguments": vars(args), "rows": rows})


def searched(job: Job) -> str:
    """Search, or do nothing where that was done before."""
    if read(job) is None:
        refine = job.trials // 5 if "refine" in job.way else 0
        search(
            SearchSettings(
                space="digits", budget=job.budget, images=job.images, holdout=0, workers=0,
                trials=job.trials - refine, refine=refine, sampler=job.way.split(" ")[0],
                seed=job.seed, storage=job.storage, study=job.study, out=FOLDER,
            )
        )  # fmt: skip
    return job.study


def read(job: Job) -> Found | None:
    """What a finished search came to."""
    try:
        with StudyReader.open(job.storage, job.study) as study:
            trials, best = study.trials(), study.best(1)
    except StudyError:
        return None
    if not best or any(trial.state == "running" for trial in trials):
        return None
    return Found(best[0], sum(trial.attrs["images"] for trial in trials))


def summary(
    job: Job, fewest: int, found: dict[Job, Found],
    right: dict[PruningConfig, npt.NDArray[np.bool_]],
) -> dict[str, Any] | None:  # fmt: skip
    """One row of the results, of searches like this one but for the seed; None without any.

    fewest: trials of the searches that have fewest.
    """

    def like(wanted: Job) -> dict[int, Found]:
        return {
            each.seed: result for each, result in found.items()
            if replace(each, seed=wanted.seed) == wanted
        }  # fmt: skip

    mine = like(job)
    if not mine:
        return None
    accuracy = {seed: 100 * float(right[each.winner.config].mean()) for seed, each in mine.items()}
    row: dict[str, Any] = {
        "budget": job.budget,
        "way": job.way,
        "trials": job.trials,
        "seeds": len(mine),
        "holdout_top1": statistics.mean(accuracy.values()),
        "holdout_top1_by_seed": accuracy,
        "search_top1": statistics.mean(100 * (each.winner.value or 0) for each in mine.values()),
        "image_evaluations": statistics.mean(each.image_evaluations for each in mine.values()),
        "total_variation": statistics.mean(
            each.winner.attrs["total_variation"] for each in mine.values()
        ),
    }
    text = ""
    others = {
        "monte_carlo": replace(job, way=BASE), "fewest_trials": replace(job, trials=fewest),
    }  # fmt: skip
    for name, other in others.items():
        base = like(other)
        gains = [accuracy[seed] - 100 * float(right[base[seed].winner.config].mean())
                 for seed in mine if seed in base]  # fmt: skip
        if other != job and gains:
            mean = statistics.mean(gains)
            row[f"minus_{name}"] = [mean]
            text += f"; minus {name.replace('_', ' ')} {mean:+.2f}"
            if len(gains) > 1:
                half = float(student.ppf(0.975, len(gains) - 1)) * statistics.stdev(gains)
                half /= len(gains) ** 0.5
                row[f"minus_{name}"] += [mean - half, mean + half]
                text += f" ± {half:.2f}"
    print(f"{job.budget}, {job.trials:5} trials, {job.way:21}: "
          f"holdout {row['holdout_top1']:.2f} % over {len(mine)} seeds{text}; "
          f"total variation {row['total_variation']:.4f}, "
          f"{row['image_evaluations']:,.0f} image evaluations")  # fmt: skip
    return row


def on_holdout(
    configs: set[PruningConfig], images: int
) -> dict[PruningConfig, npt.NDArray[np.bool_]]:
    """Per image: right or not, of each configuration; from the cache where it was seen before."""
    path = FOLDER / f"holdout-{images}.json"
    known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    missing = {c.digest(): c for c in configs if c.digest() not in known}
    if missing:
        asked = resolve_search(
            SearchSettings(space="digits", budget="50%", images=1, holdout=images, out=FOLDER)
        )
        runtime = resolve_runtime("auto", "auto", asked.batch_size, 1)
        with open_evaluator(
            asked.sources, runtime, "top1", asked.workers, Progress()
        ) as evaluator:
            for name, outcome in evaluator.outcomes("holdout", dict(missing), "on holdout"):
                known[name] = pack(evaluator.score("holdout", outcome.predictions))
        path.write_text(json.dumps(known))
    return {config: unpack_bits(known[config.digest()], images) for config in configs}


if __name__ == "__main__":
    main()
