"""Racing: paired statistics on per-image results, rungs, and who goes on. Pure functions.

All trials are measured on the same images in the same order, so only the images on which two of
them differ (the discordant pairs) carry evidence, and the spread between images drops out.

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
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Correct: TypeAlias = npt.NDArray[np.bool_]
"""Per image: right or not, (images,)."""

Counts: TypeAlias = npt.NDArray[np.int64]

Z95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Accuracy of one configuration minus that of another, in fractions of one.

    ci95: two-sided 95 % interval.
    wins, losses: images that only the first, only the other got right.
    """

    difference: float
    ci95: tuple[float, float]
    wins: int
    losses: int
    images: int


def accuracy(correct: Correct) -> float:
    """Share of images that are right."""
    return float(np.mean(correct))


def standard_error(correct: Correct) -> float:
    """Standard error of `accuracy`, sqrt(p (1 - p) / n)."""
    p = accuracy(correct)
    return math.sqrt(p * (1.0 - p) / len(correct))


def paired_difference(first: Correct, other: Correct) -> PairedDifference:
    """The difference with the adjusted Wald interval for paired proportions.

    Bonett and Price (2012), "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data": one image is added to each kind of discordant pair, which
    keeps the coverage near 95 % where few or no pairs are discordant.
    """
    if first.shape != other.shape or first.ndim != 1 or len(first) == 0:
        raise ValueError(
            f"two equally long results are needed, but got {first.shape} and {other.shape}"
        )
    n = len(first)
    wins = int(np.sum(first & ~other))
    losses = int(np.sum(~first & other))
    up, down = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
    half = Z95 * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    low, high = max(-1.0, up - down - half), min(1.0, up - down + half)
    return PairedDifference((wins - losses) / n, (low, high), wins, losses, n)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Accuracy estimated from the images seen so far, a fraction of one, and its standard error."""

    value: float
    standard_error: float


def estimate(correct: Correct, unpruned: Correct) -> Estimate:
    """The unpruned model's accuracy on all images plus the paired difference on those seen.

    correct: of the first images, unpruned: of all of them. On n of N images with differences d,

        Var = (Var(u) + 2 Cov(u, d)) / N + Var(d) / n,

    as the n images are among the N; the rates of discordant pairs in Var(d) and Cov(u, d) have one
    pair of each kind added (as in `paired_difference`), as few images may show none. With all
    images seen it is plain accuracy and its standard error.
    """
    n, images = len(correct), len(unpruned)
    if not 0 < n <= images:
        raise ValueError(f"results of 1 to {images} images are needed, but got {n}")
    if n == images:
        return Estimate(accuracy(correct), standard_error(correct))
    wins = int(np.sum(correct & ~unpruned[:n]))
    losses = int(np.sum(~correct & unpruned[:n]))
    p = accuracy(unpruned)
    value = min(1.0, max(0.0, p + (wins - losses) / n))
    up, down = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
    spread = up + down - (up - down) ** 2
    covariance = -down - p * (up - down)  # where u = 1, d is -1 or 0
    variance = max(0.0, p * (1.0 - p) + 2.0 * covariance) / images + spread / n
    return Estimate(value, math.sqrt(variance))


FIRST_RUNG_IMAGES = 64
GROWTH = 2
ALPHA = 0.1
"""How often a trial may be stopped for one that is no better."""
PRIOR = 50.0
"""Of the Beta(PRIOR, PRIOR) over bets: discordant pairs split about 50:50 with a spread of 5 %."""


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


def shown_worse(wins: Counts, losses: Counts, rivals: int) -> Correct:
    """Whether discordant pairs show, at any time of looking, that the incumbent is better.

    A challenger is ever stopped for an incumbent that is no better with probability ALPHA at most:
    however often one looks (Ville's inequality), and though the incumbent is the best of `rivals`
    on the same images, as the evidence asked for grows with their number (a union bound; the best
    of many looks better than it is). wins, losses: of each challenger, (challengers,).
    """
    needed = math.log(max(1, rivals) / ALPHA)
    worse: Correct = (losses > wins) & (log_evidence(wins, losses) >= needed)
    return worse


def log_evidence(wins: Counts, losses: Counts) -> npt.NDArray[np.float64]:
    """Logarithm of what one would own who had bet 1 against "the challenger is as good".

    Each discordant pair is bet on at odds that are fair where either is as likely to win. The
    bets are mixed over p, the challenger's chance, from the half of Beta(PRIOR, PRIOR) below 1/2:

        2 / B(PRIOR, PRIOR) * integral over p < 1/2 of p^(PRIOR + wins - 1)
            (1 - p)^(PRIOR + losses - 1) dp * 2^(wins + losses),

    a test supermartingale wherever the challenger's chance is 1/2 or more. See Waudby-Smith and
    Ramdas (2024), "Estimating means of bounded random variables by betting".
    """
    from scipy.special import betainc, betaln  # here, as the command line imports RACING

    a, b = PRIOR + np.asarray(wins), PRIOR + np.asarray(losses)
    with np.errstate(divide="ignore"):  # nothing below 1/2 where wins are far ahead
        below = np.log(2.0 * betainc(a, b, 0.5))  # the part of Beta(a, b) below 1/2
    mixed = betaln(a, b) - betaln(PRIOR, PRIOR) + (a + b - 2 * PRIOR) * math.log(2.0)
    evidence: npt.NDArray[np.float64] = mixed + below
    return evidence
