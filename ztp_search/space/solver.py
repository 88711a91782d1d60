"""Meeting the budget: what a draft's layers may be, and how many tokens each of them keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from ztp_search.pruning.budget import Budget
from ztp_search.pruning.config import RETENTION_UNIT
from ztp_search.space.draft import Coordinates, Draft, Pricing

MARGIN = 1e-6
"""Coordinates of the share kept are kept this far off 0 and 1."""
STEPS, OCTAVES = 1_024, 40
"""t is 2**(step / STEPS), within OCTAVES of 1: enough to bend MARGIN to 1 and 1 - MARGIN to 0."""

ItemT = TypeVar("ItemT")


class Solver:
    """Brings drafts to cost what a budget allows.

    Args:
        pricing: says what they cost.
        budget: to be met.
    """

    def __init__(self, pricing: Pricing, budget: Budget) -> None:
        self.pricing = pricing
        self.budget = budget

    def decide(self, draft: Draft, drawn: Sequence[Coordinates]) -> None:
        """Give every layer the coordinates drawn, or the nearest that leave the budget in reach."""
        if self._in_reach(draft, list(drawn), list(drawn)):
            draft.cheap, draft.dear = list(drawn), list(drawn)
            return
        for j, layer in enumerate(drawn):
            for k, value in enumerate(layer):
                value = self._reachable(draft, j, k, value)
                draft.cheap[j] = _with(draft.cheap[j], k, value)
                draft.dear[j] = _with(draft.dear[j], k, value)

    def _in_reach(
        self, draft: Draft, cheap: Sequence[Coordinates], dear: Sequence[Coordinates]
    ) -> bool:
        return (
            self.pricing.cost(draft, draft.low, cheap) <= self.budget.macs
            and self.pricing.cost(draft, draft.high, dear) >= self.budget.least
        )

    def _reachable(self, draft: Draft, j: int, k: int, value: int) -> int:
        """The value of coordinate k of layer j nearest to this that leaves the budget in reach.

        Nearest on the way to where the layer is cheapest, or dearest where it must cost more.
        """

        def in_reach(other: int) -> bool:
            cheap = _replaced(draft.cheap, j, _with(draft.cheap[j], k, other))
            dear = _replaced(draft.dear, j, _with(draft.dear[j], k, other))
            return self._in_reach(draft, cheap, dear)

        if in_reach(value):
            return value
        end = draft.cheap[j][k] if in_reach(draft.cheap[j][k]) else draft.dear[j][k]
        way = range(value, end, 1 if end > value else -1)  # ends before `end`
        nearest = _first(0, len(way), lambda d: d == len(way) or in_reach(way[d]))
        return way[nearest] if nearest < len(way) else end

    def shares(self, draft: Draft, relative: Sequence[float]) -> list[int] | None:
        """The highest shares (in units) on the curve through `relative` within budget.

        And what is left of it used up by single tokens; None where even the least are too dear.
        """
        inner = [min(max(u, MARGIN), 1.0 - MARGIN) for u in relative]  # the ends do not bend

        def shares(step: int) -> list[int]:
            t = 2.0 ** (step / STEPS)
            return [
                low + round((high - low) * _bend(u, t))
                for low, high, u in zip(draft.low, draft.high, inner, strict=True)
            ]

        def fits(step: int) -> bool:
            return self.pricing.cost(draft, shares(step), draft.dear) <= self.budget.macs

        step = _first(-OCTAVES * STEPS, OCTAVES * STEPS, fits)
        return self._top_up(draft, shares(step)) if fits(step) else None

    def _top_up(self, draft: Draft, shares: list[int]) -> list[int]:
        """Use up what is left of the budget by single tokens, the dearest that fits first.

        So no layer gains more than a few, and none is pushed to its bound.
        """
        plan, template = self.pricing.method.plan, draft.template
        n = self.pricing.geometry.patch_tokens
        for j, (space, coordinates) in enumerate(zip(draft.spaces, draft.dear, strict=True)):
            kept, _ = plan(template, space, n, shares[j] / RETENTION_UNIT, coordinates)
            while kept + 1 < n:
                # the least share that keeps one more
                more = math.ceil((kept + 0.5) / n * RETENTION_UNIT - 1e-6)
                longer = _replaced(shares, j, more)
                if more >= draft.high[j] or (
                    self.pricing.cost(draft, longer, draft.dear) > self.budget.macs
                ):
                    break
                shares = longer
                now, _ = plan(template, space, n, more / RETENTION_UNIT, coordinates)
                if now == kept:  # held back by another range
                    break
                kept = now
            n = kept
        return shares


def _bend(u: float, t: float) -> float:
    """u in (0, 1), moved up for t < 1 and down for t > 1; falls with t, and is u at 1."""
    return math.pow(u, t) if t < 1.0 else 1.0 - math.pow(1.0 - u, 1.0 / t)


def _with(coordinates: Coordinates, k: int, value: int) -> Coordinates:
    return (*coordinates[:k], value, *coordinates[k + 1 :])


def _replaced(values: list[ItemT], index: int, value: ItemT) -> list[ItemT]:
    out = values.copy()
    out[index] = value
    return out


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The least value of [low, high] where a condition that begins holds; high if none."""
    if holds(low):
        return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
