"""Searches replayed on recorded per-image results, with the library's own rules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from truth import Truth

from ztp_search.racing import Racing, promotion_quota, survivors

BATCH_SIZE = 64
FINALISTS = 5


@dataclass(frozen=True)
class Replay:
    """What a search on the truth came to.

    winner: its configuration. image_evaluations: of trials and, once, of the unpruned model.
    stopped: configurations that racing stopped. regret: accuracy that the best configuration has
    on all images beyond the winner's, as a fraction of one.
    """

    winner: int
    image_evaluations: int
    stopped: tuple[int, ...]
    regret: float


def replay(
    truth: Truth, racing: Racing, order: npt.NDArray[np.int64], images: npt.NDArray[np.int64],
    cohort: int | None = None,
) -> Replay:  # fmt: skip
    """A search whose trial i is configuration order[i], on images in this order.

    cohort: trials that race at a time; None: all. Ties are the lower trial number's, as there.
    """
    correct = truth.correct[:, images][order]  # (trials, images)
    rungs = racing.rungs(len(images), BATCH_SIZE)
    complete: dict[int, npt.NDArray[np.bool_]] = {}
    evaluations = len(images)
    stopped: list[int] = []
    size = cohort or len(order)
    for first in range(0, len(order), size):
        alive = list(range(first, min(first + size, len(order))))
        last = alive[-1]
        trials, before = len(alive), 0
        for rung, seen in enumerate(rungs):
            evaluations += len(alive) * (seen - before)
            before = seen
            if rung == len(rungs) - 1:
                break
            results = {trial: correct[trial, :seen] for trial in alive}
            quota = promotion_quota(trials, rung)
            surviving = survivors(racing, results, complete, quota, FINALISTS, last)
            stopped += [int(order[trial]) for trial in alive if trial not in surviving]
            alive = sorted(surviving)
        complete.update((trial, correct[trial]) for trial in alive)
    accuracies = correct.mean(1)
    winner = max(complete, key=lambda trial: (accuracies[trial], -trial))
    regret = float(accuracies.max() - accuracies[winner])
    return Replay(int(order[winner]), evaluations, tuple(stopped), regret)
