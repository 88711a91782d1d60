"""What racing saves, and what it costs in accuracy, on recorded results of every configuration.

    python benchmarks/search_cost.py [--seeds 100] [--truth digits:35%:1000 digits:50%:1000 …]

From recorded results of 1,000 configurations (benchmarks/truth.py). Over seeds the images are cut
in halves: the search is replayed on one, in random order of trials and images, and its winner is
judged on the other, as is the winner of evaluating every configuration on all images of the first.
Their difference is the regret; the unpruned model's image evaluations are counted. Full
evaluation chooses by accuracy, or as the library ranks complete trials (with losses).

To reach: regret 0.05 point on average against the better of the two, for 1/50 of the image
evaluations. Compared: rules, signals, first rungs, fewer trials, fewer images.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from common import record
from replay import chosen, replay
from truth import Truth, named_truth

from ztp_search.racing import RACING, Results

TRUTHS = ("digits:35%:1000", "digits:50%:1000", "digits:68%:1000")
BY_ACCURACY, AS_RANKED = "accuracy", "as complete trials are ranked"


@dataclass(frozen=True)
class Way:
    """A way to search. first: images of the first rung, if not the default."""

    rule: str = "both"
    signal: str = "total-variation"
    first: int | None = None
    trials: int | None = None
    images: int | None = None
    seeds: int | None = None

    def __str__(self) -> str:
        parts = [self.rule, self.signal]
        parts += [f"from {self.first}"] if self.first else []
        parts += [f"{self.trials} trials"] if self.trials else []
        parts += [f"{self.images} images"] if self.images else []
        return ", ".join(parts)


WAYS = (
    Way(),
    Way(signal="correct"),
    Way("halving"),
    Way("evidence", seeds=10),
    Way(first=16),
    Way(first=32),
    Way(first=64),
    Way(trials=300),
    Way(trials=100),
    Way(images=512),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--truth", nargs="+", default=list(TRUTHS))
    args = parser.parse_args()
    results = []
    for name in args.truth:
        known, about = named_truth(name, args.images)
        accuracies = known.correct.mean(1)
        print(f"{name}: unpruned {known.unpruned_correct.mean():.4f}, best {accuracies.max():.4f}, "
              f"median {np.median(accuracies):.4f}, worst {accuracies.min():.4f}")  # fmt: skip
        full = Full(known, args.seeds)
        table = [row(known, full, way, min(way.seeds or args.seeds, args.seeds)) for way in WAYS]
        results.append(
            {
                **about,
                "search_images": args.images // 2,
                "unpruned": float(known.unpruned_correct.mean()),
                "best": float(accuracies.max()),
                "median": float(np.median(accuracies)),
                "full_minus_unpruned_points": full.means(),
                "compared": table,
            }
        )
    record("search_cost", {"arguments": vars(args), "truths": results})


class Full:
    """What evaluating every configuration on all search images chooses, by seed.

    judged: accuracy on the other images minus unpruned, in points, by way of choosing and seed.
    """

    def __init__(self, known: Truth, seeds: int) -> None:
        self.correct, self.unpruned, self.losses = (
            known.correct, known.unpruned_correct, known.losses(),
        )  # fmt: skip
        self.judged: dict[str, list[float]] = {BY_ACCURACY: [], AS_RANKED: []}
        for seed in range(seeds):
            mine, _ = self.halves(seed)
            points = self.points(seed)
            right = self.correct[:, mine].sum(1)
            best = np.flatnonzero(right == right.max())
            self.judged[BY_ACCURACY].append(float(points[best].mean()))  # of equals the average
            every = {
                i: Results(self.correct[i, mine], self.losses[i, mine]) for i in range(len(right))
            }
            self.judged[AS_RANKED].append(float(points[chosen(every, self.unpruned[mine])]))

    def halves(self, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        order = np.random.default_rng([seed, 0]).permutation(self.correct.shape[1])
        return order[: len(order) // 2], order[len(order) // 2 :]

    def points(self, seed: int) -> npt.NDArray[np.float64]:
        """Of every configuration, on the other images."""
        _, theirs = self.halves(seed)
        minus = self.correct[:, theirs].mean(1) - self.unpruned[theirs].mean()
        return np.asarray(100 * minus)

    def means(self) -> dict[str, float]:
        return {name: float(np.mean(points)) for name, points in self.judged.items()}


def row(known: Truth, full: Full, way: Way, seeds: int) -> dict[str, Any]:
    best = max(full.judged, key=lambda name: float(np.mean(full.judged[name])))
    regrets, winners, shares = [], [], []
    for seed in range(seeds):
        mine, _ = full.halves(seed)
        order = np.random.default_rng([seed, 1]).permutation(len(full.correct))
        found = replay(
            full.correct, None if way.signal == "correct" else full.losses, full.unpruned,
            RACING[way.rule], order[: way.trials], mine[: way.images], way.first,
        )  # fmt: skip
        points = full.points(seed)[found.winner]
        winners.append(points)
        regrets.append(full.judged[best][seed] - points)
        shares.append(found.image_evaluations / (len(order[: way.trials]) * len(mine)))
    half = 1.96 * float(np.std(regrets, ddof=1)) / math.sqrt(seeds)
    mean = float(np.mean(regrets))
    result = {
        "way": str(way),
        "seeds": seeds,
        "minus_unpruned_points": float(np.mean(winners)),
        "regret_points": mean,
        "regret_points_ci95_of_splits": [mean - half, mean + half],
        "one_in": 1 / float(np.mean(shares)),
        "one_in_of_all_configurations": len(full.correct) / len(order[: way.trials])
        / float(np.mean(shares)),
    }  # fmt: skip
    print(f"  {result['way']:36} 1/{result['one_in']:.1f} of the images, regret {mean:+.3f} ± "
          f"{half:.3f} points", flush=True)  # fmt: skip
    return result


if __name__ == "__main__":
    main()
