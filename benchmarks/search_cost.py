"""What racing saves, and what it costs in accuracy, on recorded results of every configuration.

    python benchmarks/search_cost.py [--seeds 40] [--configurations 400] [--images 5000]

The truth is every configuration on all images (benchmarks/truth.py). Then, over seeds of trial
order and image order: regret, the points by which the racing search's winner lies below the best
of all, and the share of the image evaluations of evaluating every trial in full (the unpruned
model's are counted). To reach: regret 0.1 point on average, 1/15 of the images.

Compared: the rules one by one, smaller cohorts, fewer trials and images.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from common import record
from replay import replay
from truth import Truth, truth

from ztp_search.racing import RACING


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--configurations", type=int, default=400)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--budget", default="50%")
    args = parser.parse_args()
    known = truth(args.configurations, args.images, args.budget)
    trials, images = known.correct.shape
    accuracies = known.correct.mean(1)
    print(f"unpruned {known.unpruned.mean():.4f}, best {accuracies.max():.4f}, "
          f"median {np.median(accuracies):.4f}, worst {accuracies.min():.4f}")  # fmt: skip
    rows: list[tuple[str, int, int, int | None]] = [("both", trials, images, None)]
    rows += [(rule, trials, images, None) for rule in ("halving", "evidence")]
    rows += [(rule, trials, images, size) for size in (128, 32) for rule in ("both", "halving")]
    rows += [("both", n, images, None) for n in (64, 128, 256) if n < trials]
    rows += [("both", n, 2000, None) for n in (64, trials) if images > 2000]
    table = [_row(known, *row, seeds=args.seeds) for row in rows]
    result = {
        "arguments": vars(args),
        "configurations": trials,
        "images": images,
        "accuracy": {
            "unpruned": float(known.unpruned.mean()),
            "best": float(accuracies.max()),
            "median": float(np.median(accuracies)),
            "worst": float(accuracies.min()),
            "within_half_a_point_of_the_best": int((accuracies > accuracies.max() - 0.005).sum()),
        },
        "default": table[0],
        "compared": table,
    }
    record("search_cost", result)


def _row(
    known: Truth, rule: str, trials: int, images: int, cohort: int | None, *, seeds: int
) -> dict[str, Any]:
    regrets, shares = [], []
    for seed in range(seeds):
        generator = np.random.default_rng(seed)
        order = generator.permutation(len(known.correct))[:trials]
        pictures = generator.permutation(known.correct.shape[1])[:images]
        found = replay(known, RACING[rule], order, pictures, cohort)
        regrets.append(100 * found.regret)
        shares.append(found.image_evaluations / (trials * images))
    half = 1.96 * np.std(regrets, ddof=1) / seeds**0.5
    row = {
        "racing": rule,
        "trials": trials,
        "images": images,
        "cohort": cohort or trials,
        "seeds": seeds,
        "regret_points": float(np.mean(regrets)),
        "regret_points_ci95": [float(np.mean(regrets) - half), float(np.mean(regrets) + half)],
        "regret_points_worst": float(np.max(regrets)),
        "share_of_image_evaluations": float(np.mean(shares)),
        "one_in": float(1 / np.mean(shares)),
    }
    print(f"{rule:9} {trials:4} trials x {images} images, cohorts of {row['cohort']:4}: "
          f"1/{row['one_in']:.1f} of the images, regret {row['regret_points']:.3f} "
          f"± {half:.3f} points, worst {row['regret_points_worst']:.2f}", flush=True)  # fmt: skip
    return row


if __name__ == "__main__":
    main()
