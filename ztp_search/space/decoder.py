"""From a point of the unit cube to a configuration that meets the budget.

`Decoder.decode` turns any point into a configuration with (1 - tolerance) budget <= cost <=
budget, by construction and in bounded time, never by drawing again:

1. The first coordinate picks a set of locations, with equal probability over the sets whose
   cheapest and dearest configurations enclose the budget (`locations.py`).
2. The configuration's scales (head thresholds) are read off their coordinates.
3. In the order of their `order` coordinates the layers take their knobs' values, each uniformly
   from those that leave the budget reachable by what is not decided yet: first the knobs that
   make a layer dearer (WPR iterations), then those that make it cheaper (S-stage tokens).
4. The retentions are low + (high - low) * bend(u, t) with one t for all layers, the least that
   keeps the budget: bend moves all rates of a point up (t < 1) or down (t > 1) without piling
   them up at either end. Every point of the budget surface is reached (by its own relative
   rates, at t = 1), no layer is preferred, and the result moves steadily with the point.
5. Rates are multiples of 1 / RETENTION_UNIT throughout, so counts are integers at every step;
   what rounding left over is used up by single tokens, the dearest that fits first.
A set in which integer counts miss the tolerance hands over to the next one.

The result is spread out over the budget surface, but not uniform on it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

from ztp_search.errors import BudgetError
from ztp_search.pruning.budget import Budget
from ztp_search.pruning.config import RETENTION_UNIT, PruningConfig
from ztp_search.pruning.geometry import Geometry
from ztp_search.space.draft import Draft, Knobs, Pricing, retention_units
from ztp_search.space.locations import Locations, check_blocks, feasible_locations
from ztp_search.space.space import SearchSpace

MAX_HANDOVERS = 2_000
"""Sets that one point tries before it is refused: seconds, in any space."""
MARGIN = 1e-6
"""Coordinates of retention are kept this far off 0 and 1."""
STEPS, OCTAVES = 1_024, 40
"""t is 2**(step / STEPS), within OCTAVES of 1: enough to bend MARGIN to 1 and 1 - MARGIN to 0."""

ItemT = TypeVar("ItemT")


class Decoder:
    """Decodes points of the unit cube for one space, model geometry and budget.

    Args:
        space: what may be tried.
        geometry: the model's sizes.
        budget: what every configuration must meet.

    Attributes:
        blocks: the candidate locations, ascending.
        names: of the coordinates.

    Raises:
        BudgetError: no configuration meets the budget; names the interval that can be met.
        SpaceError: the space does not fit the model.

    Example:
        >>> decoder = Decoder(load_space("deit_small"), geometry, parse_budget("3.08", geometry))
        >>> config = decoder.decode([0.5] * decoder.dimensions)
    """

    def __init__(self, space: SearchSpace, geometry: Geometry, budget: Budget) -> None:
        self.space = space
        self.geometry = geometry
        self.budget = budget
        self.blocks = space.blocks(geometry.depth)
        self.pricing = Pricing(space, geometry, budget)
        self.method = self.pricing.method
        per_layer = ("order", "retention", *(knob.name for knob in self.method.knobs))
        self.names = (
            "locations",
            *(f"block{block.block:02d}.{name}" for block in self.blocks for name in per_layer),
            *self.method.scales,
        )
        self._column = {block.block: 1 + len(per_layer) * i for i, block in enumerate(self.blocks)}
        check_blocks(space, self.blocks, geometry)
        self._sets = feasible_locations(space, self.blocks, self.pricing, budget)
        knobs = self.method.knobs
        self._decided = sorted(range(len(knobs)), key=lambda k: not knobs[k].raises_cost)

    @property
    def dimensions(self) -> int:
        """How many coordinates a point has."""
        return len(self.names)

    def decode(self, point: Sequence[float]) -> PruningConfig:
        """Decode a point.

        Args:
            point: `dimensions` numbers in [0, 1].

        Returns:
            A configuration of the space that meets the budget; the same for the same point.

        Raises:
            ValueError: the point has another number of coordinates.
            BudgetError: whole numbers of tokens miss the budget in all sets that were tried.
        """
        if len(point) != self.dimensions:
            raise ValueError(f"a point has {self.dimensions} coordinates, but got {len(point)}")
        first = min(int(point[0] * len(self._sets)), len(self._sets) - 1)
        for step in range(min(len(self._sets), MAX_HANDOVERS)):
            config = self._decode_in(self._sets[(first + step) % len(self._sets)], point)
            if config is not None:
                return config
        model = self.pricing.cost_model
        raise BudgetError(
            f"no whole numbers of tokens meet {self.budget.macs / model.per_unit:.4g} "
            f"{model.unit} within {self.budget.tolerance:.2%} in this space; use a wider "
            "`tolerance`"
        )

    def parameter_ranges(self) -> dict[str, tuple[float, float]]:
        """Least and most of every parameter of a trial (`block03.retention`, …, `v_max`).

        They include those of a block without a pruning layer.
        """
        out: dict[str, tuple[float, float]] = {}
        for block in self.blocks:
            for name, neutral in self.method.neutral.items():
                low, high = getattr(block, name)
                out[f"block{block.block:02d}.{name}"] = min(low, neutral), max(high, neutral)
        for name, scale in self.pricing.scales.items():
            out[name] = (scale.low, scale.high)
        return out

    # ---- one set -------------------------------------------------------------------------

    def _decode_in(self, locations: Locations, point: Sequence[float]) -> PruningConfig | None:
        """The configuration in this set of locations; None where integer counts miss."""
        columns = [self._column[space.block] for space in locations]
        draft = self.pricing.draft(locations)
        order = sorted(range(len(locations)), key=lambda j: (point[columns[j]], j))
        for k in self._decided:
            for j in order:
                value = self._reachable(draft, j, k, point[columns[j] + 2 + k])
                draft.cheap[j] = _with(draft.cheap[j], k, value)
                draft.dear[j] = _with(draft.dear[j], k, value)
        rates = self._solve(draft, [point[column + 1] for column in columns])
        if rates is None:
            return None
        rates = self._top_up(draft, rates)
        config = self._config(draft, rates, point)
        for layer, space in zip(config.layers, locations, strict=True):
            for knob in self.method.knobs:
                if getattr(layer, knob.name) < getattr(space, knob.name)[0]:
                    return None  # lowered, as too few tokens come in
        return config if self.budget.holds(self.pricing.cost_model.total(config)) else None

    def _reachable(self, draft: Draft, j: int, k: int, u: float) -> int:
        """A value of knob k of layer j that leaves the budget reachable."""
        knob = self.method.knobs[k]
        low, high = getattr(draft.spaces[j], knob.name)
        if low == high:
            return int(low)
        cost, budget = self.pricing.cost, self.budget.macs

        def cheap_enough(value: int) -> bool:
            cheap = _replaced(draft.cheap, j, _with(draft.cheap[j], k, value))
            return cost(draft, draft.low, cheap) <= budget

        def dear_enough(value: int) -> bool:
            dear = _replaced(draft.dear, j, _with(draft.dear[j], k, value))
            return cost(draft, draft.high, dear) >= budget

        if knob.raises_cost:
            return _integer(low, _last(low, high, cheap_enough), u)
        # Small values may overshoot; the dearest must reach the budget, or at least come nearest
        # to it from below.
        first = _first(low, high, cheap_enough)
        last = _last(low, high, dear_enough)
        return _integer(first, max(first, last), u)

    def _solve(self, draft: Draft, relative: Sequence[float]) -> list[int] | None:
        """The highest retentions (in units) on the curve through `relative` within budget."""
        inner = [min(max(u, MARGIN), 1.0 - MARGIN) for u in relative]  # the ends do not bend

        def rates(step: int) -> list[int]:
            t = 2.0 ** (step / STEPS)
            return [
                low + round((high - low) * _bend(u, t))
                for low, high, u in zip(draft.low, draft.high, inner, strict=True)
            ]

        def fits(step: int) -> bool:
            return self.pricing.cost(draft, rates(step), draft.dear) <= self.budget.macs

        step = _first(-OCTAVES * STEPS, OCTAVES * STEPS, fits)
        return rates(step) if fits(step) else None

    def _top_up(self, draft: Draft, rates: list[int]) -> list[int]:
        """Use up what is left of the budget by single tokens, the dearest that fits first.

        So no layer gains more than a few, and none is pushed to its bound.
        """
        bounds = [retention_units(space)[1] for space in draft.spaces]
        for j in range(len(rates)):
            while True:
                n, kept = self._kept_by_rate(draft, rates, j)
                # the least rate that keeps one more
                more = math.ceil((kept + 0.5) / n * RETENTION_UNIT - 1e-6)
                if kept + 1 >= n or more >= bounds[j]:
                    break
                longer = _replaced(rates, j, more)
                if self.pricing.cost(draft, longer, draft.dear) > self.budget.macs:
                    break
                rates = longer
        return rates

    def _kept_by_rate(self, draft: Draft, rates: Sequence[int], j: int) -> tuple[int, int]:
        """Patch tokens that come into layer j, and those that its rate alone would keep."""
        n = self.geometry.patch_tokens
        template = self.pricing.template
        for i in range(j):
            rate = rates[i] / RETENTION_UNIT
            n, _, _ = self.method.layer_tokens(template, n, rate, draft.dear[i])
        rate = rates[j] / RETENTION_UNIT
        _, kept_by_rate, _ = self.method.layer_tokens(template, n, rate, draft.dear[j])
        return n, kept_by_rate

    def _config(
        self, draft: Draft, rates: Sequence[int], point: Sequence[float]
    ) -> PruningConfig:
        layers = []
        n = self.geometry.patch_tokens
        for space, units, knobs in zip(draft.spaces, rates, draft.dear, strict=True):
            rate = units / RETENTION_UNIT
            n, _, allowed = self.method.layer_tokens(self.pricing.template, n, rate, knobs)
            layers.append(self.method.layer(space.block, rate, allowed))
        scales = self.method.scales
        coordinates = dict(zip(scales, point[len(point) - len(scales) :], strict=True))
        return self.method.config(
            layers, self.pricing.scale_values(coordinates), self.space.variants
        )


def _bend(u: float, t: float) -> float:
    """u in (0, 1), moved up for t < 1 and down for t > 1; falls with t, and is u at 1."""
    return math.pow(u, t) if t < 1.0 else 1.0 - math.pow(1.0 - u, 1.0 / t)


def _with(knobs: Knobs, k: int, value: int) -> Knobs:
    return (*knobs[:k], value, *knobs[k + 1 :])


def _replaced(values: list[ItemT], index: int, value: ItemT) -> list[ItemT]:
    out = values.copy()
    out[index] = value
    return out


def _integer(low: int, high: int, u: float) -> int:
    """An integer of [low, high], evenly by u in [0, 1]."""
    return min(low + int(u * (high - low + 1)), high)


def _last(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The greatest value of [low, high] where a condition that ends holds; low if none."""
    if holds(high):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The least value of [low, high] where a condition that begins holds; high if none."""
    if holds(low):
        return low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
