"""Rungs, and the rules that say who goes on to the next one. Pure functions.

The trials of a cohort climb rungs, each twice as many images as the one before. After a rung two
rules say who goes on, one or both of them (`benchmarks/search_cost.py` compares them):

halving    the better half of what began the rung's climb (sequential halving; Karnin, Koren and
           Somekh 2013), but nobody who is among the study's `finalists` best.
evidence   all that are not shown to be worse than the rung's incumbent, by a test that holds
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
    """Which rules decide who goes on; with neither, every trial sees all images."""

    halving: bool
    evidence: bool

    def rungs(self, images: int, batch_size: int) -> tuple[int, ...]:
        """How many images a trial has seen after each rung: whole batches, the last all images."""
        if not (self.halving or self.evidence):
            return (images,)
        rung = batch_size * math.ceil(FIRST_RUNG_IMAGES / batch_size)
        rungs = []
        while rung < images:
            rungs.append(rung)
            rung *= GROWTH
        return (*rungs, images)

    def share_of_first_rung(self, rungs: Sequence[int]) -> float:
        """About which part of a cohort's image evaluations is on its first rung."""
        every = cost_to_come(1.0, rungs, 0, self.halving)
        return rungs[0] / every


RACING: Mapping[str, Racing] = {
    "both": Racing(halving=True, evidence=True),
    "halving": Racing(halving=True, evidence=False),
    "evidence": Racing(halving=False, evidence=True),
    "off": Racing(halving=False, evidence=False),
}
"""By the name that --racing takes."""


def cost_to_come(trials: float, rungs: Sequence[int], first: int, halving: bool) -> float:
    """Image evaluations of so many trials from rung `first` on, if halving alone decides."""
    images = 0.0
    for rung in range(first, len(rungs)):
        images += trials * (rungs[rung] - (rungs[rung - 1] if rung else 0))
        if halving:
            trials /= GROWTH
    return images


def go_on(
    racing: Racing,
    cohort: Mapping[int, Correct],
    complete: Mapping[int, Correct],
    quota: int,
    finalists: int,
    rivals: int,
) -> set[int]:
    """Numbers of the trials that go on to the next rung.

    cohort: results on the images up to this rung of the trials that reached it. complete: results
    on these images, or more, of trials that were complete before. quota: how many go on by
    halving. rivals: how many trials beside a challenger might have become incumbent, those that
    racing stopped before included. Ties are the lower number's.
    """
    if not cohort:
        return set()
    rung = len(next(iter(cohort.values())))
    mine, others = list(cohort), [number for number in complete if number not in cohort]
    results = np.stack(
        [cohort[number] for number in mine] + [complete[number][:rung] for number in others]
    )  # (trials, images)
    ranked = np.lexsort((mine + others, -results.sum(1))).tolist()  # by the last key first
    going = set(range(len(mine)))
    if racing.halving:
        own = [i for i in ranked if i < len(mine)]
        going = set(own[:quota]) | set(ranked[:finalists]) & going
    if racing.evidence:
        incumbent = results[ranked[0]]
        wins = (results[: len(mine)] & ~incumbent).sum(1)
        losses = (~results[: len(mine)] & incumbent).sum(1)
        going -= set(np.flatnonzero(shown_worse(wins, losses, rivals)).tolist())
    return {mine[i] for i in going}


def quota_after(trials: int, rung: int) -> int:
    """How many of a cohort of `trials` go on after rung 0, 1, … by halving."""
    share: int = GROWTH ** (rung + 1)
    return -(-trials // share)
