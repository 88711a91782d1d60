"""The evidence test: is a challenger shown to be worse than the incumbent?"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ztp_search.racing.statistics import Correct

Counts: TypeAlias = npt.NDArray[np.int64]

ALPHA = 0.1
"""How often a trial may be stopped for one that is no better."""
PRIOR = 50.0
"""Of the Beta(PRIOR, PRIOR) over bets: discordant pairs split about 50:50 with a spread of 5 %."""


def shown_worse(wins: Counts, losses: Counts, rivals: int) -> Correct:
    """Whether the discordant pairs show that the incumbent is better.

    The probability that a challenger is ever stopped for an incumbent that is no better is ALPHA
    at most. This holds however often one looks (Ville's inequality), and although the incumbent
    was chosen on the same images as the best of `rivals` trials, which makes it look better than
    it is: the evidence asked for grows with their number (a union bound).

    Args:
        wins: Images that only the challenger got right, (challengers,).
        losses: Images that only the incumbent got right, (challengers,).
        rivals: How many trials the incumbent may have been chosen from.

    Returns:
        For each challenger, (challengers,).
    """
    needed = math.log(max(1, rivals) / ALPHA)
    worse: Correct = (losses > wins) & (log_evidence(wins, losses) >= needed)
    return worse


def log_evidence(wins: Counts, losses: Counts) -> npt.NDArray[np.float64]:
    """The logarithm of the evidence against "the challenger is at least as good", (challengers,).

    The evidence is the wealth of a gambler who began with 1 and bet on each discordant pair that
    the challenger loses it, at odds that are fair where either is as likely to win. The bets are
    mixed over p, the challenger's chance to win, from the half of Beta(PRIOR, PRIOR) below 1/2:

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
