"""Searches replayed on recorded per-image results, with the library's own rules."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ztp_search.racing import (
    FINALISTS,
    Losses,
    Racing,
    Results,
    first_rung,
    predicted_differences,
    stopped,
)

BATCH_SIZE = 64


@dataclass(frozen=True)
class Replay:
    """What a search on recorded results came to.

    winner: its configuration. image_evaluations: of trials and, once, of the unpruned model.
    stopped: configurations that racing stopped.
    """

    winner: int
    image_evaluations: int
    stopped: tuple[int, ...]


def replay(
    correct: npt.NDArray[np.bool_], losses: Losses | None, unpruned: npt.NDArray[np.bool_],
    racing: Racing, order: npt.NDArray[np.int64], images: npt.NDArray[np.int64],
    first: int | None = None,
) -> Replay:  # fmt: skip
    """A search whose trial i is configuration order[i], on images in this order.

    Args:
        correct: Right or not, (configurations, images).
        losses: Of the same; None where trials are told apart by right and wrong alone.
        unpruned: Of the unpruned model, (images,).
        racing: The rules.
        order: Configurations in order of trial.
        images: Images in order.
        first: Images of the first rung, if not the default.
    """
    whole = {
        trial: Results(correct[config, images], None if losses is None else losses[config, images])
        for trial, config in enumerate(order.tolist())
    }
    first = first or first_rung(BATCH_SIZE, losses=losses is not None, on_cpu=True)
    rungs = racing.rungs(len(images), first)
    evaluations, before = len(images), 0
    alive, ended = sorted(whole), []
    for rung, seen in enumerate(rungs):
        evaluations += len(alive) * (seen - before)
        before = seen
        if rung == len(rungs) - 1:
            break
        results = {trial: whole[trial].first(seen) for trial in alive}
        quota = racing.by(losses=losses is not None).quota(len(order), rung)
        stops = stopped(racing, results, {}, quota, FINALISTS, len(order) - 1)
        surviving = results.keys() - stops.keys()
        ended += [int(order[trial]) for trial in alive if trial not in surviving]
        alive = sorted(surviving)
    winner = chosen({trial: whole[trial] for trial in alive}, unpruned[images])
    return Replay(int(order[winner]), evaluations, tuple(ended))


def chosen(complete: dict[int, Results], unpruned: npt.NDArray[np.bool_]) -> int:
    """The winner among complete trials, as a study ranks them."""
    numbers = sorted(complete)
    scores = predicted_differences([complete[number] for number in numbers], unpruned).tolist()
    ranked = sorted(
        zip(numbers, scores, strict=True), key=lambda each: (-each[1], complete[each[0]].loss)
    )
    return ranked[0][0]
