"""Rungs, and the rules that decide which trials are promoted to the next one. Pure functions.

The trials of a cohort climb rungs, each of twice as many images as the one before. They are ranked
by their mean loss (of right and wrong alone: by how many are right). After a rung one or both of
two rules stop trials (`benchmarks/search_cost.py` compares them); the others survive:

halving    stops all but the best third of the cohort after the first rung, all but the best ninth
           after the second, and so on, but none of the `finalists` best of the study. Of right and
           wrong alone it keeps halves, as sequential halving does (Karnin, Koren and Somekh 2013);
           with losses thirds lead to the same winners for half of the work.
evidence   stops those that are shown to be worse than the rung's incumbent, by a test that holds
           however often one looks and however many trials the incumbent was chosen from: a
           betting e-process on paired differences, with a union bound over those trials.

The incumbent is the best at that rung of the cohort and of the trials that were complete before,
so decisions follow from the results alone: any number of workers, any order of completion.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ztp_search.racing.results import LOSS_UNITS, Results
from ztp_search.racing.sequential_test import log_evidence_worse, log_wealth, needed
from ztp_search.racing.statistics import paired_difference

FIRST_RUNG_IMAGES = 8
"""With losses, on CPUs, where a forward of 8 takes a quarter to a half longer per image than one of
64. From 32 on, winners are 0.15 points better on one task and 0.07 worse on another, for three
times the image evaluations (`benchmarks/search_cost.py`)."""
FIRST_RUNG_OF_BITS = 64
FINALISTS = 5
"""So many of a study's best halving never stops, however few are asked for: what is told of one
trial alone at last is what its losses foretell (`predicted_differences`)."""
GROWTH = 2
TOLERANCE = 0.002
"""Accuracies that lie no farther apart are equal to those who wait for the last rungs."""
ERROR = 0.05
"""How often finalists may be called equal which are not, over all pairs and rungs."""


@dataclass(frozen=True, slots=True)
class Racing:
    """Which rules stop trials early; with neither, every trial is evaluated on all images.

    kept_of: halving keeps one of so many trials.
    """

    halving: bool
    evidence: bool
    kept_of: int = 3

    def by(self, *, losses: bool) -> Racing:
        """For trials that are told apart by losses, or by right and wrong alone."""
        return self if losses else replace(self, kept_of=2)

    def rungs(self, images: int, first: int) -> tuple[int, ...]:
        """How many images a trial has been evaluated on after each rung.

        `first` on the first rung, and all images on the last one.

        Example:
            >>> RACING["both"].rungs(images=1000, first=64)
            (64, 128, 256, 512, 1000)
        """
        if not (self.halving or self.evidence):
            return (images,)
        rung, rungs = first, []
        while rung < images:
            rungs.append(rung)
            rung *= GROWTH
        return (*rungs, images)

    def share_of_first_rung(self, rungs: Sequence[int]) -> float:
        """Which part of a cohort's image evaluations is on its first rung, if halving decides."""
        return rungs[0] / self.remaining_evaluations(1.0, rungs, 0)

    def quota(self, trials: int, rung: int) -> int:
        """How many trials of a cohort halving promotes from a rung.

        Args:
            trials: Of the whole cohort, as it began.
            rung: Number of the rung, from 0.
        """
        share: int = self.kept_of ** (rung + 1)
        return -(-trials // share)  # rounded up

    def remaining_evaluations(self, trials: float, rungs: Sequence[int], first: int) -> float:
        """Image evaluations that are left to trials before rung `first`, if halving decides."""
        images = 0.0
        for rung in range(first, len(rungs)):
            images += trials * (rungs[rung] - (rungs[rung - 1] if rung else 0))
            if self.halving:
                trials /= self.kept_of
        return images


def first_rung(batch_size: int, *, losses: bool, on_cpu: bool) -> int:
    """Images of the first rung.

    Losses rank trials on few images. But on a GPU a batch takes as long half empty as full, so
    whole batches are evaluated there, and right and wrong alone says nothing on so few.
    """
    if losses:
        return min(FIRST_RUNG_IMAGES, batch_size) if on_cpu else batch_size
    return batch_size * math.ceil(FIRST_RUNG_OF_BITS / batch_size)


RACING: Mapping[str, Racing] = {
    "both": Racing(halving=True, evidence=True),
    "halving": Racing(halving=True, evidence=False),
    "evidence": Racing(halving=False, evidence=True),
    "off": Racing(halving=False, evidence=False),
}
"""By the name of the setting `racing`."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a trial is not promoted from a rung.

    Attributes:
        rules: "halving", "evidence" or both, each of which would stop it.
        rank: among the cohort's on this rung, from 1.
        incumbent: the trial that is best there.
        evidence: logarithm of the evidence that it is worse than the incumbent; None where that
            rule is not in force.
        needed: the evidence that stops it; None likewise.
    """

    rules: tuple[str, ...]
    rank: int
    incumbent: int
    evidence: float | None
    needed: float | None


def stopped(
    racing: Racing,
    cohort: Mapping[int, Results],
    complete: Mapping[int, Results],
    quota: int,
    finalists: int,
    rivals: int,
) -> dict[int, Stop]:
    """Which trials of a cohort are not promoted to the next rung, and why.

    Trials of the same mean loss rank in an order that has nothing to do with their numbers.

    Args:
        racing: The rules that decide.
        cohort: Trial number -> results on the images up to this rung, of those that reached it.
        complete: Trial number -> results of those that were complete before; those on fewer
            images than this rung's are not compared.
        quota: How many halving promotes; see `Racing.quota`.
        finalists: How many of the study's best halving never stops.
        rivals: How many other trials might have become the incumbent, those that racing stopped
            before included: the evidence asked for grows with their number.

    Returns:
        The reason by trial number.
    """
    if not cohort:
        return {}
    images = len(next(iter(cohort.values())))
    field = dict(cohort)
    for number, results in complete.items():
        if number not in field and len(results) >= images:
            field[number] = results.first(images)
    total = {number: int(each.units.sum(dtype=np.int64)) for number, each in field.items()}
    ranked = sorted(field, key=lambda number: (total[number], lot(number)))
    of_cohort = [number for number in ranked if number in cohort]
    safe = {*of_cohort[:quota], *ranked[:finalists]} if racing.halving else set(cohort)
    evidence: Mapping[int, float] = {}
    if racing.evidence:
        evidence = _evidence(cohort, field[ranked[0]])
    bound = needed(rivals)
    stops = {}
    for rank, number in enumerate(of_cohort, 1):
        rules = ("halving",) * (number not in safe)
        if racing.evidence and evidence[number] >= bound:
            rules += ("evidence",)
        if rules:
            numbers = (evidence[number], bound) if racing.evidence else (None, None)
            stops[number] = Stop(rules, rank, ranked[0], *numbers)
    return stops


def _evidence(cohort: Mapping[int, Results], incumbent: Results) -> dict[int, float]:
    """The logarithm of the evidence that each is worse than the incumbent."""
    if incumbent.losses is not None:
        units = np.stack([each.units for each in cohort.values()]).astype(np.int32)
        evidence = log_wealth((units - incumbent.units) / LOSS_UNITS)
    else:
        correct = np.stack([each.correct for each in cohort.values()])
        wins = (correct & ~incumbent.correct).sum(1)
        losses = (~correct & incumbent.correct).sum(1)
        evidence = log_evidence_worse(wins, losses)
    return dict(zip(cohort, evidence.tolist(), strict=True))


def shown_equal(finalists: Sequence[Results], looks: int) -> bool:
    """Whether the accuracies of all finalists are shown to lie within TOLERANCE of one another.

    By paired intervals of which all hold the difference at once with probability 1 - ERROR.

    Args:
        finalists: On the same images.
        looks: On how many rungs this may be asked.
    """
    pairs = list(itertools.combinations([each.correct for each in finalists], 2))
    confidence = 1.0 - ERROR / max(1, len(pairs) * looks)
    for pair in pairs:
        low, high = paired_difference(*pair, confidence).interval
        if max(-low, high) > TOLERANCE:
            return False
    return True


def lot(number: int) -> bytes:
    """What decides between equal trials: drawn from the number, but in no order of numbers."""
    return hashlib.blake2b(number.to_bytes(8), digest_size=8).digest()
