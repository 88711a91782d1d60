"""How often racing stops a configuration that is truly better than the winner.

    python benchmarks/false_kills.py [--seeds 100] [--configurations 400] [--images 5000]

From the recorded results of every configuration on all images (benchmarks/truth.py): over seeds
of trial order and image order, the share of stopped configurations that are better than the
search's winner by half a point or more on all images, and the share of searches with any. To
reach: 1 %. Winners are at times nearly the best, and then nothing can be falsely stopped; so the
same is also shown for "equal or better", and for cohorts so small that trials are stopped by
incumbents of earlier cohorts.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from common import record
from replay import replay
from truth import Truth, truth

from ztp_search.racing import RACING

MARGIN = 0.005


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--configurations", type=int, default=400)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--budget", default="50%")
    args = parser.parse_args()
    known = truth(args.configurations, args.images, args.budget)
    table = [
        _row(known, rule, images, cohort, args.seeds)
        for images in (args.images, 1000)
        for rule, cohort in (("both", None), ("halving", None), ("evidence", None), ("both", 32))
    ]
    record("false_kills", {"arguments": vars(args), "default": table[0], "compared": table})


def _row(known: Truth, rule: str, images: int, cohort: int | None, seeds: int) -> dict[str, Any]:
    accuracies = known.correct.mean(1)  # on all images, also where a search saw fewer
    stopped = half_better = better = searches = 0
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        order = generator.permutation(len(known.correct))
        pictures = generator.permutation(known.correct.shape[1])[:images]
        found = replay(known, RACING[rule], order, pictures, cohort)
        ahead = accuracies[list(found.stopped)] - accuracies[found.winner]
        stopped += len(ahead)
        half_better += int((ahead >= MARGIN).sum())
        better += int((ahead >= 0).sum())
        searches += bool((ahead >= MARGIN).any())
    row = {
        "racing": rule,
        "trials": len(known.correct),
        "images": images,
        "cohort": cohort or len(known.correct),
        "seeds": seeds,
        "stopped": stopped,
        "better_by_half_a_point": half_better / max(1, stopped),
        "equal_or_better": better / max(1, stopped),
        "searches_with_one_better_by_half_a_point": searches / seeds,
    }
    print(f"{rule:9} {images} images, cohorts of {row['cohort']:3}: of {stopped} stopped "
          f"{row['better_by_half_a_point']:.4%} are half a point better than the winner (in "
          f"{row['searches_with_one_better_by_half_a_point']:.1%} of searches), "
          f"{row['equal_or_better']:.3%} equal or better", flush=True)  # fmt: skip
    return row


if __name__ == "__main__":
    main()
