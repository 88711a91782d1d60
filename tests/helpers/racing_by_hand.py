"""The racing rules as they read, a trial and an image at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TypeAlias

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from ztp_search.racing import Racing, lot

CHANCES = np.linspace(0.0, 0.5, 4001)[1:]
"""Of the challenger to win a discordant pair, as far as the bets are spread over them."""
STAKES = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64)
"""Of the wealth, in 64ths: how much is bet on each image that the challenger loses more."""
WHOLE = 65_535
"""A loss of one."""

Seen: TypeAlias = Sequence[int]
"""A trial's results by image: right or not, as bool; or losses, as int in parts of WHOLE."""


def slow_wealth(outcomes: list[bool]) -> float:
    """Image by image: the money on each chance p grows by 2 p on a win, 2 (1 - p) on a loss."""
    money = (CHANCES * (1 - CHANCES)) ** 49  # as Beta(50, 50) spreads it
    money /= money.sum() - money[-1] / 2  # the last chance, 1/2, ends the interval
    for win in outcomes:
        money = money * 2 * (CHANCES if win else 1 - CHANCES)
    return float(money.sum() - money[-1] / 2)


def slow_bets(differences: Sequence[int]) -> Fraction:
    """Image by image: the money on each stake grows by the stake times the difference, exactly.

    differences: of losses, in parts of WHOLE.
    """
    money = [1] * len(STAKES)  # in parts of a whole that grows with every image
    for difference in differences:
        money = [m * (64 * WHOLE + s * difference) for m, s in zip(money, STAKES, strict=True)]
    return Fraction(sum(money), len(STAKES) * (64 * WHOLE) ** len(differences))


def loss_on(result: int) -> int:
    if isinstance(result, bool):
        return 0 if result else WHOLE
    return result


def slow_evidence(mine: Seen, incumbent: Seen) -> float | Fraction:
    """That a trial is worse than the incumbent."""
    if not isinstance(mine[0], bool):
        return slow_bets([a - b for a, b in zip(mine, incumbent, strict=True)])
    differ = [bool(a) for a, b in zip(mine, incumbent, strict=True) if a != b]
    return slow_wealth(differ) if differ.count(False) > differ.count(True) else 0.0


def slow_survivors(
    racing: Racing, cohort: Mapping[int, Seen], complete: Mapping[int, Seen],
    quota: int, finalists: int, rivals: int,
) -> set[int]:  # fmt: skip
    """As the rules read, a trial at a time."""
    images = len(next(iter(cohort.values())))
    comparable = {n: seen[:images] for n, seen in complete.items() if len(seen) >= images}
    everyone: dict[int, Seen] = {**comparable, **cohort}
    totals = {number: sum(map(loss_on, seen)) for number, seen in everyone.items()}

    def place(number: int) -> tuple[int, bytes]:
        return totals[number], lot(number)

    incumbent = everyone[min(everyone, key=place)]
    surviving = set()
    for number, mine in cohort.items():
        rank_in_cohort = sum(place(other) < place(number) for other in cohort)
        rank_in_study = sum(place(other) < place(number) for other in everyone)
        stopped = False
        if racing.halving and rank_in_cohort >= quota and rank_in_study >= finalists:
            stopped = True
        if racing.evidence and not stopped:
            stopped = slow_evidence(mine, incumbent) >= 10 * max(1, rivals)
        if not stopped:
            surviving.add(number)
    return surviving


def slow_interval(
    images: Sequence[tuple[bool, bool]], error: float = 0.05
) -> tuple[float, float]:
    """Bonett and Price (2012), as they write it, one image at a time and exact to the root.

    error: how often the interval may miss.
    """
    n = Fraction(len(images))
    f12 = sum(Fraction(1) for first, other in images if first and not other)
    f21 = sum(Fraction(1) for first, other in images if other and not first)
    p12, p21 = (f12 + 1) / (n + 2), (f21 + 1) / (n + 2)
    variance = (p12 + p21 - (p12 - p21) ** 2) / (n + 2)
    half = float(norm.isf(error / 2)) * float(variance) ** 0.5
    return max(-1.0, float(p12 - p21) - half), min(1.0, float(p12 - p21) + half)


def slow_equal(finalists: Sequence[Sequence[bool]], looks: int) -> bool:
    """Every pair, at every look, has its equal part of the 5 % of error."""
    pairs = len(finalists) * (len(finalists) - 1) // 2
    for place, first in enumerate(finalists):
        for other in finalists[:place]:
            images = list(zip(first, other, strict=True))
            low, high = slow_interval(images, 0.05 / (pairs * looks))
            if low < -0.002 or high > 0.002:
                return False
    return True


class FayHerriot:
    """Fay and Herriot (1979) with the logarithm of the mean loss as regressor.

    A slope above zero is set to zero. Fitted by least squares on rows divided by their standard
    errors; the spread by moments, as they write it in their equation 2.8.

    Args:
        trials: Right or not by image, and the mean loss.
        unpruned: Right or not by image.
    """

    def __init__(
        self, trials: Sequence[tuple[Sequence[bool], float]], unpruned: Sequence[bool]
    ) -> None:
        found, errors = [], []
        for seen, _ in trials:
            n = len(seen)
            signs = [int(mine) - int(its) for mine, its in zip(seen, unpruned[:n], strict=True)]
            found.append(sum(signs) / n)
            padded = [1, -1] + signs  # a pair of each kind added
            mean = Fraction(sum(padded), n + 2)
            squares = Fraction(sum(sign * sign for sign in padded), n + 2)
            errors.append(float(squares - mean**2) / n)
        self.found, self.errors = np.array(found), np.array(errors)
        self.x = np.array([math.log(loss + 1e-5) for _, loss in trials])
        self.spread = self._root()

    def slope(self, spread: float) -> float:
        scale = np.sqrt(self.errors + spread)
        rows = np.stack([np.ones_like(self.x), self.x], axis=1) / scale[:, None]
        return float(np.linalg.lstsq(rows, self.found / scale, rcond=None)[0][1])

    def line(self, spread: float) -> np.typing.NDArray[np.float64]:
        """The regression at each trial."""
        slope = min(0.0, self.slope(spread))
        weights = 1 / (self.errors + spread)
        level = ((self.found - slope * self.x) * weights).sum() / weights.sum()
        at_each: np.typing.NDArray[np.float64] = level + slope * self.x
        return at_each

    def _root(self) -> float:
        freedom = len(self.x) - (2 if self.slope(0.0) < 0 else 1)

        def excess(spread: float) -> float:
            residuals = self.found - self.line(spread)
            return float((residuals**2 / (self.errors + spread)).sum()) - freedom

        return root_above_zero(excess)

    def predicted(self) -> np.typing.NDArray[np.float64]:
        trust = self.spread / (self.spread + self.errors)
        shrunk: np.typing.NDArray[np.float64] = (
            trust * self.found + (1 - trust) * self.line(self.spread)
        )
        return shrunk


def root_above_zero(falling: Callable[[float], float]) -> float:
    """Where a falling function crosses zero; 0 if it is below zero from there."""
    if falling(0.0) <= 0:
        return 0.0
    high = 1e-6
    while falling(high) > 0:
        high *= 2
    return float(brentq(falling, 0.0, high, xtol=1e-16, rtol=1e-12))
