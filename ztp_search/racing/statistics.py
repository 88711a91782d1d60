"""Accuracies, differences and estimates from per-image results. Pure functions.

All trials are measured on the same images in the same order, so only the images on which two of
them differ (the discordant pairs) carry evidence, and the spread between images drops out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Correct: TypeAlias = npt.NDArray[np.bool_]
"""Per image: right or not, (images,)."""

@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Accuracy of one configuration minus that of another, in fractions of one.

    interval: two-sided, of the confidence that was asked for.
    wins, losses: images that only the first, only the other got right.
    """

    difference: float
    interval: tuple[float, float]
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


class Discordant(NamedTuple):
    """Images on which two configurations differ, and what they say of the difference.

    wins, losses: images that only the first, only the other got right. images: all of them.
    """

    wins: int
    losses: int
    images: int

    @property
    def rates(self) -> tuple[float, float]:
        """Of wins and of losses, with one of each added, as few images may show none."""
        return (self.wins + 1) / (self.images + 2), (self.losses + 1) / (self.images + 2)

    @property
    def variance(self) -> float:
        """Of the difference on one image, by these rates."""
        up, down = self.rates
        return up + down - (up - down) ** 2


def discordant(first: Correct, other: Correct) -> Discordant:
    """Count the images on which two equally long results differ."""
    return Discordant(int(np.sum(first & ~other)), int(np.sum(~first & other)), len(first))


def paired_difference(
    first: Correct, other: Correct, confidence: float = 0.95
) -> PairedDifference:
    """The difference of two accuracies, with the adjusted Wald interval for paired proportions.

    Bonett and Price (2012), "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data": one image is added to each kind of discordant pair, which
    keeps the coverage near 95 % where few or no pairs are discordant.

    Example:
        >>> paired_difference(np.array([True, True]), np.array([True, False])).difference
        0.5
    """
    if first.shape != other.shape or first.ndim != 1 or len(first) == 0:
        raise ValueError(
            f"two equally long results are needed, but got {first.shape} and {other.shape}"
        )
    pairs = discordant(first, other)
    wins, losses, n = pairs
    up, down = pairs.rates
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    half = z * math.sqrt(pairs.variance / (n + 2))
    low, high = max(-1.0, up - down - half), min(1.0, up - down + half)
    return PairedDifference((wins - losses) / n, (low, high), wins, losses, n)


@dataclass(frozen=True, slots=True)
class Estimate:
    """Accuracy estimated from the images seen so far, a fraction of one, and its standard error."""

    value: float
    standard_error: float


def estimate(correct: Correct, unpruned: Correct) -> Estimate:
    """Estimate the accuracy on all images from results on the first of them.

    The estimate is the unpruned model's accuracy on all images plus the paired difference on those
    seen. On n of N images with differences d,

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
    pairs = discordant(correct, unpruned[:n])
    p = accuracy(unpruned)
    value = min(1.0, max(0.0, p + (pairs.wins - pairs.losses) / n))
    up, down = pairs.rates
    covariance = -down - p * (up - down)  # where u = 1, d is -1 or 0
    variance = max(0.0, p * (1.0 - p) + 2.0 * covariance) / images + pairs.variance / n
    return Estimate(value, math.sqrt(variance))
