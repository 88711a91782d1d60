"""The lead over what one would otherwise write: ztp-search against Ray Tune + OptunaSearch + timm.

    python benchmarks/usual_way.py [--trials 1000] [--images 5000] [--seeds 3]

The same embedded model, decoded search images, machine, two workers of one thread, precision and
batch size, and the same wall time: the usual way may start trials for as long as the whole command
`ztp-search` took, set-up and confirmation included, and its own set-up does not count. It is
usual_way_script.py, kindly written: its rejected suggestions cost no trial, and its processes are
reused. Winners are measured on the same holdout images, which chose nothing, paired: for every
seed with its own 95 % interval, and the mean over seeds. To reach: 20 times the trials per hour,
and a winner that is shown to be better.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import record
from scipy.stats import t as student
from searching import search

from ztp_search import SearchSettings
from ztp_search.driver.evaluator import Evaluator, open_evaluator
from ztp_search.driver.progress import Progress
from ztp_search.evaluation.runtime import resolve_runtime
from ztp_search.pruning.config import PruningConfig
from ztp_search.racing import paired_difference
from ztp_search.settings import resolve_search

HOLDOUT = 5000
SCRIPT = Path(__file__).with_name("usual_way_script.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--budget", default="50%")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--loader", default="timm", choices=("timm", "tensors"))
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        settings = SearchSettings(
            space="digits", budget=args.budget, images=args.images, holdout=HOLDOUT, out=out,
            workers=0,
        )  # fmt: skip
        resolved = resolve_search(settings)
        runtime = resolve_runtime("auto", "auto", resolved.batch_size, 1)
        evaluator = open_evaluator(
            resolved.sources, runtime, "top1", resolved.workers, Progress()
        )
        store = evaluator.images.search.path  # for the usual way; the order of seed 0
        for seed in range(args.seeds):
            ours = _ours(out, args, seed)
            usual = _usual(store, args, seed, ours["seconds_with_set_up"])
            rows.append({"seed": seed, "ztp_search": ours, "usual": usual})
        configs = [row[who]["config"] for row in rows for who in ("ztp_search", "usual")]
        right = _on_holdout(evaluator, configs)
    for row, mine, theirs in zip(rows, right[::2], right[1::2], strict=True):
        difference = paired_difference(mine, theirs)
        row["ztp_search"]["holdout_top1"] = float(mine.mean())
        row["usual"]["holdout_top1"] = float(theirs.mean())
        row |= {
            "times_the_trials_per_hour": row["ztp_search"]["trials_per_hour"]
            / row["usual"]["trials_per_hour"],
            "our_winner_minus_theirs": difference.difference,
            "our_winner_minus_theirs_ci95": list(difference.interval),
        }
        low, high = (100 * bound for bound in difference.interval)
        print(f"seed {row['seed']}: {row['times_the_trials_per_hour']:.1f} times the trials per "
              f"hour, winner on holdout {100 * difference.difference:+.2f} points "
              f"[{low:+.2f}, {high:+.2f}]")  # fmt: skip
    gains = [row["our_winner_minus_theirs"] for row in rows]
    mean = float(np.mean(gains))
    result: dict[str, Any] = {"arguments": vars(args), "rows": rows, "mean": mean}
    if len(gains) > 1:
        half = float(student.ppf(0.975, len(gains) - 1) * np.std(gains, ddof=1))
        half /= math.sqrt(len(gains))
        result["mean_ci95_over_seeds"] = [mean - half, mean + half]
        print(f"mean {100 * mean:+.2f} ± {100 * half:.2f} points over seeds")
    record("usual_way", result)


def _ours(out: Path, args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """With set-up, this also confirms on holdout, which the usual way does not."""
    found = search(
        out, "--budget", args.budget, "--images", args.images, "--holdout", HOLDOUT,
        "--trials", args.trials, "--workers", 2, "--seed", seed,
    )  # fmt: skip
    ended = time.time()
    row = _row(
        "ztp-search", len(found.trials), found.seconds, ended - found.began,
        found.document["best"]["config"],
    )  # fmt: skip
    return row | {"image_evaluations": found.document["image_evaluations"]}


def _usual(store: Path, args: argparse.Namespace, seed: int, limit: float) -> dict[str, Any]:
    began = time.time()
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--budget", args.budget, "--seconds", str(limit),
         "--images", str(args.images), "--store", str(store), "--loader", args.loader,
         "--seed", str(seed)],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"the usual way failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    seconds = found["last"] - found["first"]
    row = _row(args.loader, found["trials"], seconds, time.time() - began, found["config"])
    keys = ("suggestions", "suggestion_seconds", "validation_seconds", "mean_share_of_budget")
    return row | {"image_evaluations": found["trials"] * args.images} | {
        key: found[key] for key in keys
    }  # fmt: skip


def _row(
    name: str, trials: int, seconds: float, in_all: float, config: dict[str, Any]
) -> dict[str, Any]:
    print(f"{name}: {trials} trials in {seconds:.1f} s, with set-up {in_all:.1f} s", flush=True)
    return {
        "trials": trials,
        "seconds": seconds,
        "seconds_with_set_up": in_all,
        "trials_per_hour": 3600 * trials / seconds,
        "config": config,
    }


def _on_holdout(
    evaluator: Evaluator, configs: list[dict[str, Any]]
) -> list[np.ndarray[Any, np.dtype[np.bool_]]]:
    """Per holdout image: is each configuration right?"""
    named = {str(i): PruningConfig.from_dict(config) for i, config in enumerate(configs)}
    with evaluator:
        scores = {
            name: evaluator.score("holdout", outcome.predictions)
            for name, outcome in evaluator.outcomes("holdout", named, "evaluating on holdout")
        }
    return [scores[name] for name in named]


if __name__ == "__main__":
    main()
