"""What tells configurations apart on few images: candidate signals against accuracy on others.

    python benchmarks/signals.py [--draws 40] [--splits 100]
        [--truth digits:35%:1000 digits:50%:1000 digits:68%:1000 digits:80%:300 …]

From recorded results (benchmarks/truth.py). First: the rank correlation, over configurations,
between each signal's mean on n images and accuracy on other images, with the interval over draws
of both. Then: searches replayed with each signal, on random halves of the images, the winner
judged on the other halves against the unpruned model; the same rungs for all, so the same image
evaluations.

The signals: right or wrong; the probability of the label; minus the Kullback-Leibler divergence and
minus the total variation from the unpruned model's output distribution; the margin of the label's
logit over the highest other. "total variation, then accuracy" ranks the trials that are left at
last as the library does (`racing.predicted_differences`).
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from common import record
from replay import chosen
from scipy.special import log_softmax
from scipy.stats import rankdata
from truth import Truth, named_truth

from ztp_search.racing import FINALISTS, RACING, Results

Floats = npt.NDArray[np.float64]

COUNTS = (4, 8, 16, 32, 64, 128, 256, 512, 1024)
TRUTHS = ("digits:35%:1000", "digits:50%:1000", "digits:68%:1000", "digits:80%:300")
BIT, SOFT = "right or wrong", "minus total variation"
FINISHED = "total variation, then accuracy"


def signals(known: Truth) -> dict[str, npt.NDArray[np.float32]]:
    """Each signal by image, more is better, (configurations, images)."""
    reference = log_softmax(known.unpruned, -1)
    rows: dict[str, list[Floats]] = {}
    every = np.arange(len(known.labels))
    for logits in known.logits:
        logs = log_softmax(logits, -1)
        others = logs.copy()
        others[every, known.labels] = -np.inf
        found = {
            BIT: logits.argmax(-1) == known.labels,
            "probability of the label": np.exp(logs[every, known.labels]),
            "minus KL divergence": -(np.exp(reference) * (reference - logs)).sum(-1),
            SOFT: -np.abs(np.exp(logs) - np.exp(reference)).sum(-1) / 2,
            "margin of the label": logs[every, known.labels] - others.max(-1),
        }
        for name, values in found.items():
            rows.setdefault(name, []).append(values)
    return {name: np.array(values, np.float32) for name, values in rows.items()}


def correlations(
    each: dict[str, npt.NDArray[np.float32]], draws: int
) -> dict[str, dict[str, list[float]]]:
    """By signal and number of images: mean rank correlation, and the 95 % range of draws."""
    configurations, images = each[BIT].shape
    generator = np.random.default_rng(0)
    table: dict[str, dict[str, list[float]]] = {name: {} for name in each}
    for n in (count for count in COUNTS if count <= images // 2):
        found: dict[str, list[float]] = {name: [] for name in each}
        for _ in range(draws):
            order = generator.permutation(images)
            some = generator.choice(configurations, max(50, configurations // 2), replace=False)
            accuracy = each[BIT][np.ix_(some, order[n:])].mean(1)
            for name, values in each.items():
                mean = values[np.ix_(some, order[:n])].mean(1)
                found[name].append(rank_correlation(mean, accuracy))
        for name, drawn in found.items():
            low, high = np.percentile(drawn, [2.5, 97.5])
            table[name][str(n)] = [float(np.mean(drawn)), float(low), float(high)]
    return table


def rank_correlation(first: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Spearman's; 0 where all are the same."""
    a, b = rankdata(first), rankdata(other)
    if a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def races(
    known: Truth, each: dict[str, npt.NDArray[np.float32]], splits: int
) -> dict[str, dict[str, float]]:
    """By signal: winners' accuracy minus unpruned on the other half of the images, in points."""
    correct, unpruned, losses = known.correct, known.unpruned_correct, known.losses()
    configurations, images = correct.shape
    half = images // 2
    generator = np.random.default_rng(1)
    found: dict[str, list[float]] = {}
    evaluations = 0
    for _ in range(splits):
        order = generator.permutation(images)
        mine, theirs = order[:half], order[half:]
        judged = 100 * (correct[:, theirs].mean(1) - unpruned[theirs].mean())
        for name, values in each.items():
            means = np.cumsum(values[:, mine], axis=1, dtype=np.float64)
            alive, evaluations = raced(means)
            winner = max(alive, key=lambda trial: means[trial, -1])
            found.setdefault(name, []).append(judged[winner])
            if name == SOFT:
                whole = {t: Results(correct[t, mine], losses[t, mine]) for t in alive}
                winner = chosen(whole, unpruned[mine])
                found.setdefault(FINISHED, []).append(judged[winner])
        for name in (BIT, SOFT):
            winner = int(each[name][:, mine].sum(1, dtype=np.float64).argmax())
            found.setdefault(f"all in full, by {name}", []).append(judged[winner])
    base = np.array(found[BIT])
    return {
        name: {
            "minus_unpruned_points": float(np.mean(points)),
            "more_than_right_or_wrong": float(np.mean(points - base)),
            "ci95_half": 1.96 * float(np.std(points - base, ddof=1)) / math.sqrt(splits),
            "image_evaluations_one_in": 1.0 if "full" in name
            else configurations * half / evaluations,
        }
        for name, points in found.items()
    }  # fmt: skip


def raced(sums: Floats) -> tuple[list[int], int]:
    """The trials that are left at the last rung, and the image evaluations of the race.

    sums: of a signal over the first images, (trials, images).
    """
    racing = RACING["halving"]
    rungs = racing.rungs(sums.shape[1], 16)
    alive, evaluations, before = list(range(len(sums))), 0, 0
    for rung, seen in enumerate(rungs):
        evaluations += len(alive) * (seen - before)
        before = seen
        if rung < len(rungs) - 1:
            alive.sort(key=lambda trial: -sums[trial, seen - 1])
            alive = alive[: max(racing.quota(len(sums), rung), FINALISTS)]
    return alive, evaluations


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=40)
    parser.add_argument("--splits", type=int, default=100)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--truth", nargs="+", default=list(TRUTHS))
    args = parser.parse_args()
    results = []
    for name in args.truth:
        known, about = named_truth(name, args.images)
        each = signals(known)
        accuracies = known.correct.mean(1)
        result = {
            **about,
            "accuracy": {
                "unpruned": float(known.unpruned_correct.mean()),
                "mean": float(accuracies.mean()),
                "spread": float(accuracies.std()),
                "best": float(accuracies.max()),
            },
            "rank_correlation": correlations(each, args.draws),
            "races": races(known, each, args.splits),
        }
        results.append(result)
        shown = {key: round(100 * value, 1) for key, value in result["accuracy"].items()}
        print(f"{about['space']} at {about['budget']}: {shown}")
        for signal, by_count in result["rank_correlation"].items():
            print(f"  {signal:26}", " ".join(f"{n}: {v[0]:.2f}" for n, v in by_count.items()))
        for signal, row in result["races"].items():
            print(f"  {signal:40} {row['minus_unpruned_points']:+.2f} "
                  f"({row['more_than_right_or_wrong']:+.2f} ± {row['ci95_half']:.2f}) "
                  f"1/{row['image_evaluations_one_in']:.0f}", flush=True)  # fmt: skip
    record("signals", {"arguments": vars(args), "truths": results})


if __name__ == "__main__":
    main()
