"""Rungs, and the rules that decide which trials are promoted to the next one. Pure functions.

The trials of a cohort climb rungs, each of twice as many images as the one before. After a rung one
or both of two rules stop trials (`benchmarks/search_cost.py` compares them); the others survive:

halving    stops all but the best half of the cohort after the first rung, all but the best quarter
           after the second, and so on (sequential halving; Karnin, Koren and Somekh 2013), but
           none of the `finalists` best of the study.
evidence   stops those that are shown to be worse than the rung's incumbent, by a test that holds
           however often one looks and however many trials the incumbent was chosen from: a
           betting e-process on the discordant pairs, with a union bound over those trials.

The incumbent is the best at that rung of the cohort and of the trials that were complete before,
so decisions follow from the results alone: any number of workers, any order of completion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ztp_search.racing.sequential_test import shown_worse
from ztp_search.racing.statistics import Correct

FIRST_RUNG_IMAGES = 64
GROWTH = 2


@dataclass(frozen=True, slots=True)
class Racing:
    """Which rules stop trials early; with neither, every trial is evaluated on all images."""

    halving: bool
    evidence: bool

    def rungs(self, images: int, batch_size: int) -> tuple[int, ...]:
        """How many images a trial has been evaluated on after each rung.

        Whole batches, from FIRST_RUNG_IMAGES on, and all images on the last rung.

        Example:
            >>> RACING["both"].rungs(images=1000, batch_size=64)
            (64, 128, 256, 512, 1000)
        """
        if not (self.halving or self.evidence):
            return (images,)
        rung = batch_size * math.ceil(FIRST_RUNG_IMAGES / batch_size)
        rungs = []
        while rung < images:
            rungs.append(rung)
            rung *= GROWTH
        return (*rungs, images)

    def share_of_first_rung(self, rungs: Sequence[int]) -> float:
        """Which part of a cohort's image evaluations is on its first rung, if halving decides."""
        return rungs[0] / remaining_evaluations(1.0, rungs, 0, self.halving)


RACING: Mapping[str, Racing] = {
    "both": Racing(halving=True, evidence=True),
    "halving": Racing(halving=True, evidence=False),
    "evidence": Racing(halving=False, evidence=True),
    "off": Racing(halving=False, evidence=False),
}
"""By the name of the setting `racing`."""


def survivors(
    racing: Racing,
    cohort: Mapping[int, Correct],
    complete: Mapping[int, Correct],
    quota: int,
    finalists: int,
    rivals: int,
) -> set[int]:
    """Which trials of a cohort are promoted to the next rung.

    Trials with as many images right rank by their number, the lower one first.

    Args:
        racing: The rules that decide.
        cohort: Trial number -> results on the images up to this rung, of those that reached it.
        complete: Trial number -> results on all images, of those that were complete before.
        quota: How many halving promotes; see `promotion_quota`.
        finalists: How many of the study's best halving never stops.
        rivals: How many other trials might have become the incumbent, those that racing stopped
            before included: the evidence asked for grows with their number.

    Returns:
        Their numbers.
    """
    if not cohort:
        return set()
    rung_images = len(next(iter(cohort.values())))
    racing_now = list(cohort)
    others = [number for number in complete if number not in cohort]
    results = np.stack(
        [cohort[number] for number in racing_now]
        + [complete[number][:rung_images] for number in others]
    )  # (trials, images)
    ranked = np.lexsort((racing_now + others, -results.sum(1))).tolist()  # by the last key first
    surviving = set(range(len(racing_now)))  # rows of `results`
    if racing.halving:
        ranked_cohort = [row for row in ranked if row < len(racing_now)]
        surviving = set(ranked_cohort[:quota]) | set(ranked[:finalists]) & surviving
    if racing.evidence:
        challengers, incumbent = results[: len(racing_now)], results[ranked[0]]
        wins = (challengers & ~incumbent).sum(1)
        losses = (~challengers & incumbent).sum(1)
        surviving -= set(np.flatnonzero(shown_worse(wins, losses, rivals)).tolist())
    return {racing_now[row] for row in surviving}


def promotion_quota(trials: int, rung: int) -> int:
    """How many trials of a cohort halving promotes from a rung.

    Args:
        trials: Of the whole cohort, as it began.
        rung: Number of the rung, from 0.
    """
    share: int = GROWTH ** (rung + 1)
    return -(-trials // share)  # rounded up


def remaining_evaluations(
    trials: float, rungs: Sequence[int], first: int, halving: bool
) -> float:
    """Image evaluations that are left to trials before rung `first`, if halving alone decides."""
    images = 0.0
    for rung in range(first, len(rungs)):
        images += trials * (rungs[rung] - (rungs[rung - 1] if rung else 0))
        if halving:
            trials /= GROWTH
    return images
