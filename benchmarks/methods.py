"""What merging is worth: winners of the paper's space, of merging alone, and of the joint space.

    python benchmarks/methods.py [--spaces digits ztp-runs/photographs/photographs.yaml]
                                 [--budgets 35% 50% 68% 80%] [--seeds 5] [--trials 1000]
                                 [--images 2000] [--holdout 5000] [--processes 2]
                                 [--methods zero-tprune merge any] [--name methods]

`tools/train_photographs.py` makes the second model and its space. Every search is of the same
number of trials and images, differs in `method` alone, and so takes about the same image
evaluations, which are recorded. Winners and both hand-set schedules are measured on holdout
images, which chose nothing. Differences are paired, image by image: for every seed with its own
95 % interval, and over seeds their mean with Student's interval over the seeds' differences, and
with one over both seeds and images: other seeds would have been judged on the same images.

To reach: the joint space nowhere shown to be worse than any other, and at 35 and 50 % shown to be
better than both hand-set schedules and than the paper's space. Searches that were made before are
found again in benchmarks/.cache, so this can be interrupted. Accuracy over GFLOPs is drawn beside
the results (NAME.svg) where all methods are there.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import os
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import CACHE, RESULTS, record
from matplotlib.figure import Figure
from scipy.stats import norm
from scipy.stats import t as student

METHODS = ("zero-tprune", "merge", "any")
LEAST_SEEDS = 4
"""Of fewer, the spread between seeds says nothing."""
JOINT = "any"
HAND_SET = ("paper_schedule", "tome")
LINES = {
    JOINT: ("searched, dropping and merging", "C0", "o", "-"),
    "zero-tprune": ("searched, dropping alone", "C3", "v", "-"),
    "tome": ("ToMe's schedule", "C2", "D", "--"),
    "paper_schedule": ("paper's schedule", "C1", "s", "--"),
}
"""What is drawn: label, colour, marker, line."""


@dataclass(frozen=True)
class Job:
    """One search. space: as `ztp-search --space` takes it."""

    space: str
    budget: str
    seed: int
    method: str
    trials: int
    images: int
    holdout: int

    @property
    def where(self) -> tuple[str, str, int]:
        return self.space, self.budget, self.seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spaces", nargs="+",
                        default=["digits", "ztp-runs/photographs/photographs.yaml"])
    parser.add_argument("--budgets", nargs="+", default=["35%", "50%", "68%", "80%"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--holdout", type=int, default=5000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS,
                        help="at least any, the joint space")
    parser.add_argument("--name", default="methods", help="of the file under benchmarks/results")
    args = parser.parse_args()
    if JOINT not in args.methods:
        parser.error(f"--methods must hold {JOINT}, which the others are compared with")
    jobs = [
        Job(space, budget, seed, method, args.trials, args.images, args.holdout)
        for seed, budget, space, method in itertools.product(
            range(args.seeds), args.budgets, args.spaces, args.methods
        )
    ]
    os.environ["OMP_NUM_THREADS"] = "1"
    found: dict[tuple[str, str, int], dict[str, dict[str, Any]]] = {}
    with multiprocessing.get_context("spawn").Pool(args.processes, maxtasksperchild=8) as pool:
        for job, result in zip(jobs, pool.imap(search, jobs), strict=True):
            found.setdefault(job.where, {})[job.method] = result
            accuracy = 100 * result["winner"].mean()
            print(f"{Path(job.space).stem} {job.budget} seed {job.seed} {job.method}: "
                  f"{accuracy:.2f} %, {result['image_evaluations']:,} image evaluations, "
                  f"unpruned {100 * result['unpruned'].mean():.2f} %", flush=True)  # fmt: skip
    rows = [
        summary(space, budget, [found[space, budget, seed] for seed in range(args.seeds)])
        for space, budget in itertools.product(args.spaces, args.budgets)
    ]
    for row in rows:
        print_row(row)
    record(args.name, {"arguments": vars(args), "rows": rows})
    if set(args.methods) == set(METHODS):
        draw(rows, RESULTS / f"{args.name}.svg")


def search(job: Job) -> dict[str, Any]:
    """The winner's and its opponents' right and wrong answers on holdout, by image."""
    import ztp_search
    from ztp_search.study.packing import unpack_bits

    name = f"{Path(job.space).stem}-{job.budget}-{job.method}-{job.trials}-{job.images}-{job.seed}"
    settings = ztp_search.SearchSettings(
        space=job.space, budget=job.budget, method=job.method, seed=job.seed, trials=job.trials,
        images=job.images, holdout=job.holdout, candidates=1, workers=0, speed="off", study=name,
        out=CACHE / "methods", storage=f"sqlite:///{CACHE / 'methods' / f'{name}.db'}",
    )  # fmt: skip
    result = ztp_search.search(settings)
    with ztp_search.load_study(settings.storage, name) as study:
        holdout = study.attributes()["holdout"]
        winner = study.best(1)[0]
    bits = {key: holdout[key] for key in ("unpruned", *HAND_SET) if holdout.get(key)}
    bits["winner"] = holdout["candidates"][winner.config.digest()]
    return {
        "image_evaluations": result.image_evaluations,
        "config": winner.config.to_dict(),
        "hand_set": winner.attrs.get("hand_set"),
        "search": winner.value,
        **{key: unpack_bits(each["correct"], holdout["images"]) for key, each in bits.items()},
    }


def summary(space: str, budget: str, seeds: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Mean accuracies, and what the joint space's winner is better by than each other."""
    joint = [seed[JOINT]["winner"] for seed in seeds]
    others: dict[str, list[Any]] = {
        method: [seed[method]["winner"] for seed in seeds] for method in seeds[0] if method != JOINT
    }
    others |= {
        name: [seed[JOINT][name] for seed in seeds]
        for name in HAND_SET
        if all(name in seed[JOINT] for seed in seeds)
    }
    return {
        "space": Path(space).stem,
        "budget": budget,
        "seeds": len(seeds),
        "holdout_images": len(joint[0]),
        "accuracy": {
            "unpruned": statistics.mean(float(seed[JOINT]["unpruned"].mean()) for seed in seeds),
            JOINT: statistics.mean(float(each.mean()) for each in joint),
            **{key: statistics.mean(float(c.mean()) for c in each) for key, each in others.items()},
        },
        "image_evaluations": {
            method: statistics.mean(seed[method]["image_evaluations"] for seed in seeds)
            for method in seeds[0]
        },
        "joint_minus": {key: difference(joint, each) for key, each in others.items()},
        "winners": [seed[JOINT]["config"] for seed in seeds],
        "hand_set_won": [seed[JOINT]["hand_set"] for seed in seeds],
    }


def difference(joint: list[Any], other: list[Any]) -> dict[str, Any]:
    """Per seed with its paired interval over images, and over seeds."""
    from ztp_search.racing import paired_difference

    paired = [paired_difference(a, b) for a, b in zip(joint, other, strict=True)]
    each = [pair.difference for pair in paired]
    mean, n = statistics.mean(each), len(each)
    out: dict[str, Any] = {
        "seeds": [[pair.difference, *pair.interval] for pair in paired], "mean": mean,
    }  # fmt: skip
    if n >= LEAST_SEEDS:
        of_seeds = statistics.stdev(each) / math.sqrt(n)
        half = float(student.ppf(0.975, n - 1)) * of_seeds
        out["ci95_over_seeds"] = [mean - half, mean + half]
        by_image = np.mean(joint, 0) - np.mean(other, 0)
        of_images = float(by_image.std(ddof=1)) / math.sqrt(len(by_image))
        both = float(norm.ppf(0.975)) * math.hypot(of_seeds, of_images)
        out["ci95_over_seeds_and_images"] = [mean - both, mean + both]
    spread = np.mean([(pair.interval[1] - pair.interval[0]) / 2 for pair in paired])
    out["ci95_over_images"] = [mean - float(spread), mean + float(spread)]  # as one search has it
    return out


def print_row(row: dict[str, Any]) -> None:
    accuracies = ", ".join(f"{key} {100 * value:.2f}" for key, value in row["accuracy"].items())
    print(f"{row['space']} at {row['budget']}: {accuracies}")
    for key, each in row["joint_minus"].items():
        intervals = ", ".join(
            f"{name.removeprefix('ci95_').replace('_', ' ')} "
            f"[{100 * each[name][0]:+.2f}, {100 * each[name][1]:+.2f}]"
            for name in each if name.startswith("ci95")
        )  # fmt: skip
        print(f"   joint - {key}: {100 * each['mean']:+.2f}, {intervals}")


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Accuracy on holdout over the share of the GFLOPs, a panel per model."""
    spaces = list(dict.fromkeys(row["space"] for row in rows))
    figure = Figure(figsize=(4.2 * len(spaces), 3.8), layout="constrained")
    for axes, space in zip(figure.subplots(1, len(spaces), squeeze=False)[0], spaces, strict=True):
        mine = [row for row in rows if row["space"] == space]
        shares = [float(row["budget"].rstrip("%")) for row in mine]
        unpruned = 100 * mine[0]["accuracy"]["unpruned"]
        axes.axhline(unpruned, color="0.5", linestyle=":", label="unpruned")
        for key, (label, colour, marker, line) in LINES.items():
            values = [(share, 100 * row["accuracy"][key])
                      for share, row in zip(shares, mine, strict=True) if key in row["accuracy"]]
            axes.plot(*zip(*values, strict=True), color=colour, marker=marker, linestyle=line,
                      markersize=5, linewidth=1.2, label=label)  # fmt: skip
        axes.set_title(space)
        axes.set_xlabel("GFLOPs, % of the unpruned model")
        axes.set_ylabel(f"top1 in % on {mine[0]['holdout_images']:,} holdout images")
        axes.set_ylim(unpruned - 16, unpruned + 1)
        axes.grid(alpha=0.3)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=3, fontsize="small")
    figure.savefig(path)


if __name__ == "__main__":
    main()
