"""The lead over what one would otherwise write: ztp-search against Ray Tune + OptunaSearch + timm.

    python benchmarks/usual_way.py [--trials 128] [--images 5000] [--loader timm tensors]

The same embedded model, decoded search images, machine, two workers of one thread, precision,
batch size and number of evaluated trials. The usual way is usual_way_script.py, kindly written:
its rejected suggestions cost no trial, and its processes are reused. Trials per hour are counted
from the first trial's start to the last one's end, and with set-up; both winners are measured on
the same 2,000 holdout images, paired. To reach: 20 times the trials per hour, and a winner that is
at least as good.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import record
from searching import search

from ztp_search import SearchSettings
from ztp_search.driver.evaluator import Evaluator, open_evaluator
from ztp_search.driver.progress import Progress
from ztp_search.evaluation.runtime import resolve_runtime
from ztp_search.pruning.config import PruningConfig
from ztp_search.racing import paired_difference
from ztp_search.settings import resolve_search

HOLDOUT = 2000
SCRIPT = Path(__file__).with_name("usual_way_script.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=128)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--budget", default="50%")
    parser.add_argument("--loader", nargs="+", default=["timm"], choices=("timm", "tensors"))
    args = parser.parse_args()
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
        store = evaluator.images.search.path  # for both
        ours = _ours(out, args)
        usual = {loader: _usual(store, loader, args) for loader in args.loader}
        right = _on_holdout(
            evaluator, [ours["config"], *(each["config"] for each in usual.values())]
        )
    result: dict[str, Any] = {"arguments": vars(args), "ztp_search": ours, "usual": usual}
    for loader, each, correct in zip(usual, usual.values(), right[1:], strict=True):
        difference = paired_difference(right[0], correct)
        each |= {
            "holdout_top1": float(correct.mean()),
            "times_the_trials_per_hour": ours["trials_per_hour"] / each["trials_per_hour"],
            "times_with_set_up": ours["trials_per_hour_with_set_up"]
            / each["trials_per_hour_with_set_up"],
            "our_winner_minus_theirs": difference.difference,
            "our_winner_minus_theirs_ci95": list(difference.interval),
        }
        low, high = (100 * bound for bound in difference.interval)
        print(f"against the usual way with the {loader} loader: "
              f"{each['times_the_trials_per_hour']:.1f} times the trials per hour "
              f"({each['times_with_set_up']:.1f} with set-up), winner on holdout "
              f"{100 * difference.difference:+.2f} points [{low:+.2f}, {high:+.2f}]")  # fmt: skip
    ours["holdout_top1"] = float(right[0].mean())
    record("usual_way", result)


def _ours(out: Path, args: argparse.Namespace) -> dict[str, Any]:
    """With set-up, this also confirms on holdout, which the usual way does not."""
    found = search(
        out, "--budget", args.budget, "--images", args.images, "--holdout", HOLDOUT,
        "--trials", args.trials, "--workers", 2,
    )  # fmt: skip
    ended = time.time()
    return _row(
        "ztp-search", len(found.trials), found.seconds, ended - found.began,
        found.document["best"]["config"],
    )  # fmt: skip


def _usual(store: Path, loader: str, args: argparse.Namespace) -> dict[str, Any]:
    began = time.time()
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--budget", args.budget, "--trials", str(args.trials),
         "--images", str(args.images), "--store", str(store), "--loader", loader],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"the usual way failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    seconds = found["last"] - found["first"]
    row = _row(loader, found["trials"], seconds, time.time() - began, found["config"])
    keys = ("suggestions", "suggestion_seconds", "validation_seconds", "mean_share_of_budget")
    return row | {key: found[key] for key in keys}


def _row(
    name: str, trials: int, seconds: float, in_all: float, config: dict[str, Any]
) -> dict[str, Any]:
    print(f"{name}: {trials} trials in {seconds:.1f} s, with set-up {in_all:.1f} s", flush=True)
    return {
        "trials": trials,
        "seconds": seconds,
        "seconds_with_set_up": in_all,
        "trials_per_hour": 3600 * trials / seconds,
        "trials_per_hour_with_set_up": 3600 * trials / in_all,
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
