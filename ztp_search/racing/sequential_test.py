"""The evidence test: is a challenger shown to be worse than the incumbent?

Both tests bet: the evidence against "the challenger is at least as good" is the wealth of a
gambler who began with 1 and bets, image by image, that the challenger loses, at odds that are fair
where it is as good. Such wealth is a test supermartingale, so by Ville's inequality it ever
reaches 1 / alpha with probability alpha at most, however often one looks. See Waudby-Smith and
Ramdas (2024), "Estimating means of bounded random variables by betting".
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Counts: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

ALPHA = 0.1
"""How often a trial may be stopped for one that is no better."""
PRIOR = 50.0
"""Of the Beta(PRIOR, PRIOR) over bets: discordant pairs split about 50:50 with a spread of 5 %."""
STAKES = tuple(2.0**-k for k in range(7)) + (0.75, 0.375, 0.1875)
"""Shares of the wealth that are bet on each image, mixed in equal parts."""
BLOCK = 1 << 22
"""Numbers in memory at a time."""


def needed(rivals: int) -> float:
    """The logarithm of the evidence that stops a challenger.

    The incumbent was chosen on the same images as the best of `rivals` trials, which makes it look
    better than it is: the evidence asked for grows with their number (a union bound).
    """
    return math.log(max(1, rivals) / ALPHA)


def log_evidence_worse(wins: Counts, losses: Counts) -> Floats:
    """The logarithm of the evidence that the incumbent is better, (challengers,); see `needed`.

    The probability that a challenger is ever stopped for an incumbent that is no better is ALPHA
    at most, although the incumbent was chosen from many trials. Who wins as many images as it
    loses is never stopped.

    Args:
        wins: Images that only the challenger got right, (challengers,).
        losses: Images that only the incumbent got right, (challengers,).
    """
    return np.where(losses > wins, log_evidence(wins, losses), -np.inf)


def log_evidence(wins: Counts, losses: Counts) -> Floats:
    """The logarithm of the evidence of discordant pairs, (challengers,).

    The bets are mixed over p, the challenger's chance to win a discordant pair, from the half of
    Beta(PRIOR, PRIOR) below 1/2:

        2 / B(PRIOR, PRIOR) * integral over p < 1/2 of p^(PRIOR + wins - 1)
            (1 - p)^(PRIOR + losses - 1) dp * 2^(wins + losses),

    a test supermartingale wherever the challenger's chance is 1/2 or more.
    """
    from scipy.special import betainc, betaln  # here, as the command line imports RACING

    a, b = PRIOR + np.asarray(wins), PRIOR + np.asarray(losses)
    with np.errstate(divide="ignore"):  # nothing below 1/2 where wins are far ahead
        below = np.log(2.0 * betainc(a, b, 0.5))  # the part of Beta(a, b) below 1/2
    mixed = betaln(a, b) - betaln(PRIOR, PRIOR) + (a + b - 2 * PRIOR) * math.log(2.0)
    evidence: Floats = mixed + below
    return evidence


def log_wealth(differences: npt.NDArray[Any]) -> Floats:
    """The logarithm of the evidence of bounded paired differences, (challengers,).

    The twin of `log_evidence_worse` for losses from 0 to 1, with the same guarantee.

    The wealth is the mean over STAKES s of the product over images of 1 + s * difference: where
    the mean difference is 0 or less, a test supermartingale.

    Args:
        differences: Loss of each challenger minus the incumbent's, image by image, -1 to 1,
            (challengers, images).
    """
    challengers, images = differences.shape
    wealth = np.empty(challengers)
    rows = max(1, BLOCK // max(1, images))
    for first in range(0, challengers, rows):
        d = differences[first : first + rows].astype(np.float64)  # (rows, images)
        with np.errstate(divide="ignore"):  # where the whole stake is lost
            logs = np.stack([np.log1p(stake * d).sum(1) for stake in STAKES])  # (stakes, rows)
        top = logs.max(0)
        wealth[first : first + rows] = top + np.log(np.exp(logs - top).mean(0))
    return wealth
