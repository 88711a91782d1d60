"""From a point of the unit cube to a configuration that meets the budget.

`Decoder.decode` turns any point into a configuration with (1 - tolerance) budget <= macs <=
budget, by construction and in bounded time, never by drawing again:

1. The first coordinate picks a set of locations, with equal probability over the sets whose
   cheapest and dearest configurations enclose the budget.
2. Head thresholds are read off their coordinates, and so are WPR iterations: as many as leave
   the budget reachable.
3. In the order of their `order` coordinates the layers take their S-stage counts, each uniformly
   from the counts that leave the budget reachable by what is not decided yet.
4. The retentions are low + (high - low) * bend(u, t) with one t for all layers, the least that
   keeps the budget: bend moves all rates of a point up (t < 1) or down (t > 1) without piling
   them up at either end. Every point of the budget surface is reached (by its own relative
   rates, at t = 1), no layer is preferred, and the result moves steadily with the point.
5. Rates are multiples of 0.0001 throughout, so counts are integers at every step; what rounding
   left over is used up by single tokens, the dearest that fits first.
A set in which integer counts miss the tolerance hands over to the next one.

The result is spread out over the budget surface, but not uniform on it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ztp_search.errors import BudgetError, SpaceError
from ztp_search.pruning.budget import Budget
from ztp_search.pruning.config import RETENTION_UNIT, PruningConfig, PruningLayer
from ztp_search.pruning.cost import (
    Geometry,
    block_macs,
    flops,
    max_s_tokens,
    patch_tokens_kept,
    stage_macs,
    unpruned_macs,
)
from ztp_search.space.space import BlockSpace, SearchSpace

MAX_SETS = 200_000
MAX_HANDOVERS = 2_000
"""Sets that one point tries before it is refused: seconds, in any space."""


MARGIN = 1e-6
"""Coordinates of retention are kept this far off 0 and 1."""
STEPS, OCTAVES = 1_024, 40
"""t is 2**(step / STEPS), within OCTAVES of 1: enough to bend MARGIN to 1 and 1 - MARGIN to 0."""


@dataclass(slots=True)
class _Draft:
    """A configuration under construction; lists run over the pruning layers."""

    spaces: tuple[BlockSpace, ...]
    low: list[int]  # least retention, in units
    high: list[int]
    s_low: list[int]
    s_high: list[int]
    iterations: list[int]


class Decoder:
    """Decodes points of the unit cube for one space, model geometry and budget.

    names: one name per coordinate. Raises BudgetError where no configuration meets the budget,
    naming the interval that can be met.
    """

    def __init__(self, space: SearchSpace, geometry: Geometry, budget: Budget) -> None:
        self.space = space
        self.geometry = geometry
        self.budget = budget
        self.blocks = space.blocks(geometry.depth)
        self.template = PruningConfig(
            (), v_min=space.v_min.low, v_max=space.v_max.high, **space.variants
        )
        self.names = ("locations",) + tuple(
            f"block{block.block:02d}.{name}"
            for block in self.blocks
            for name in ("order", "retention", "s_tokens", "wpr_iterations")
        ) + ("v_min", "v_max")  # fmt: skip
        self._column = {block.block: 1 + 4 * i for i, block in enumerate(self.blocks)}
        self._check_blocks()
        self._block_macs = [block_macs(geometry, n) for n in range(geometry.tokens + 1)]
        self._sets = self._feasible_sets()

    @property
    def dimensions(self) -> int:
        return len(self.names)

    def decode(self, point: Sequence[float]) -> PruningConfig:
        """The configuration at `point`, `dimensions` numbers in [0, 1]."""
        if len(point) != self.dimensions:
            raise ValueError(f"a point has {self.dimensions} coordinates, but got {len(point)}")
        first = min(int(point[0] * len(self._sets)), len(self._sets) - 1)
        for step in range(min(len(self._sets), MAX_HANDOVERS)):
            spaces = self._sets[(first + step) % len(self._sets)]
            config = self._decode_in(spaces, point)
            if config is not None:
                return config
        raise BudgetError(
            f"no whole numbers of tokens meet {self.budget.macs / 1e9:.4g} GFLOPs within "
            f"{self.budget.tolerance:.2%} in this space; use a wider --tolerance"
        )

    def parameter_ranges(self) -> dict[str, tuple[float, float]]:
        """Least and most of every parameter of a trial (`block03.retention`, …, `v_max`).

        They include those of a block without a pruning layer: retention 1, no s_tokens, and the
        one iteration that none can go below.
        """
        out: dict[str, tuple[float, float]] = {}
        for block in self.blocks:
            prefix = f"block{block.block:02d}"
            out[f"{prefix}.retention"] = (block.retention[0], 1.0)
            out[f"{prefix}.s_tokens"] = (0, block.s_tokens[1])
            out[f"{prefix}.wpr_iterations"] = (1, block.wpr_iterations[1])
        for name, scale in (("v_min", self.space.v_min), ("v_max", self.space.v_max)):
            out[name] = (scale.low, scale.high)
        return out

    # ---- feasible sets -------------------------------------------------------------------

    def _check_blocks(self) -> None:
        half = self.geometry.patch_tokens // 2
        for block in self.blocks:
            low, high = _units(block)
            if low > high:
                raise SpaceError(
                    f"{self.space.name}: pruning.retention of block {block.block} must hold a "
                    f"multiple of {1 / RETENTION_UNIT}, but got {list(block.retention)}; "
                    "round its ends"
                )
            if block.s_tokens[0] > half:
                raise SpaceError(
                    f"{self.space.name}: pruning.s_tokens of block {block.block} must start at "
                    f"{half} or below, half of the model's {self.geometry.patch_tokens} patch "
                    f"tokens, but got {list(block.s_tokens)}; lower it"
                )

    def _feasible_sets(self) -> list[tuple[BlockSpace, ...]]:
        least, most = self.space.layers
        most = min(most, len(self.blocks))
        count = sum(math.comb(len(self.blocks), k) for k in range(least, most + 1))
        if count > MAX_SETS:
            raise SpaceError(
                f"{self.space.name}: pruning.layers {list(self.space.layers)} of "
                f"{len(self.blocks)} blocks makes {count:,} sets of locations, at most "
                f"{MAX_SETS:,} can be handled; name fewer blocks or fewer layers"
            )
        feasible = []
        intervals = []
        for k in range(least, most + 1):
            for spaces in itertools.combinations(self.blocks, k):
                draft = self._draft(spaces, [s.wpr_iterations[0] for s in spaces])
                low = self._macs(draft, draft.low, draft.s_high)
                draft.iterations = [s.wpr_iterations[1] for s in spaces]
                high = self._macs(draft, draft.high, draft.s_low)
                intervals.append((low, high))
                if low <= self.budget.macs and high >= self.budget.least:
                    feasible.append(spaces)
        if not feasible:
            self._refuse(intervals)
        return feasible

    def _refuse(self, intervals: list[tuple[int, int]]) -> None:
        """Say what is feasible, rounded inwards: the ends it names can be asked for."""
        cheapest, dearest = min(low for low, _ in intervals), max(high for _, high in intervals)
        unpruned = unpruned_macs(self.geometry)
        asked, share = self.budget.macs / 1e9, 100.0 * self.budget.macs / unpruned
        interval = (
            f"feasible is {_up(cheapest / 1e9)} to {_down(dearest / 1e9)} GFLOPs, "
            f"{_up(100 * cheapest / unpruned)}% to {_down(100 * dearest / unpruned)}%"
        )
        if self.budget.macs < cheapest:
            raise BudgetError(
                f"budget {asked:.4g} GFLOPs ({share:.1f}% of the unpruned model) is below the "
                f"cheapest configuration of space {self.space.name} ({interval}); "
                "raise --budget, or allow more pruning layers or lower retention"
            )
        if self.budget.least <= dearest:
            below = max(high for _, high in intervals if high < self.budget.least)
            above = min(low for low, _ in intervals if low > self.budget.macs)
            raise BudgetError(
                f"budget {asked:.4g} GFLOPs ({share:.1f}% of the unpruned model) lies in a gap of "
                f"space {self.space.name}, whose configurations cost at most {_down(below / 1e9)} "
                f"or at least {_up(above / 1e9)} GFLOPs; change --budget, or allow a wider "
                "retention or s_tokens"
            )
        raise BudgetError(
            f"budget {asked:.4g} GFLOPs ({share:.1f}% of the unpruned model's "
            f"{unpruned / 1e9:.4g}) is not met by space {self.space.name}: {interval}; "
            "change --budget, or allow fewer pruning layers or higher retention"
        )

    def _draft(self, spaces: tuple[BlockSpace, ...], iterations: list[int]) -> _Draft:
        return _Draft(
            spaces=spaces,
            low=[_units(s)[0] for s in spaces],
            high=[_units(s)[1] for s in spaces],
            s_low=[s.s_tokens[0] for s in spaces],
            s_high=[s.s_tokens[1] for s in spaces],
            iterations=iterations,
        )

    # ---- one set -------------------------------------------------------------------------

    def _decode_in(
        self, spaces: tuple[BlockSpace, ...], point: Sequence[float]
    ) -> PruningConfig | None:
        """The configuration in this set of locations; None where integer counts miss."""
        columns = [self._column[space.block] for space in spaces]
        draft = self._draft(spaces, [space.wpr_iterations[0] for space in spaces])
        order = sorted(range(len(spaces)), key=lambda j: (point[columns[j]], j))
        for j in order:
            draft.iterations[j] = self._reachable_iterations(draft, j, point[columns[j] + 3])
        for j in order:
            s_tokens = self._reachable_s(draft, j, point[columns[j] + 2])
            draft.s_low[j] = draft.s_high[j] = s_tokens
        rates = self._solve(draft, [point[column + 1] for column in columns])
        if rates is None:
            return None
        rates = self._top_up(draft, rates)
        config = self._config(draft, rates, point)
        for layer, space in zip(config.layers, spaces, strict=True):
            if layer.s_tokens < space.s_tokens[0]:  # more than half of the tokens left here
                return None
        return config if self.budget.holds(flops(self.geometry, config)) else None

    def _reachable_iterations(self, draft: _Draft, j: int, u: float) -> int:
        """WPR iterations for layer j that leave the budget reachable."""
        least, most = draft.spaces[j].wpr_iterations
        others = draft.iterations.copy()

        def cheap_enough(iterations: int) -> bool:
            draft.iterations = _with(others, j, iterations)
            return self._macs(draft, draft.low, draft.s_high) <= self.budget.macs

        chosen = _integer(least, _last(least, most, cheap_enough), u)
        draft.iterations = others
        return chosen

    def _reachable_s(self, draft: _Draft, j: int, u: float) -> int:
        """An S-stage count for layer j that leaves the budget reachable."""
        low, high = draft.s_low[j], draft.s_high[j]
        if low == high:
            return low

        def cheapest(s: int) -> int:
            return self._macs(draft, draft.low, _with(draft.s_high, j, s))

        def dearest(s: int) -> int:
            return self._macs(draft, draft.high, _with(draft.s_low, j, s))

        # cheapest() falls with s, so small counts may overshoot; dearest() must reach the budget,
        # or at least come nearest to it from below
        first = _first(low, high, lambda s: cheapest(s) <= self.budget.macs)
        last = _last(low, high, lambda s: dearest(s) >= self.budget.macs)
        return _integer(first, max(first, last), u)

    def _solve(self, draft: _Draft, relative: Sequence[float]) -> list[int] | None:
        """The highest retentions (in units) on the curve through `relative` within budget."""
        inner = [min(max(u, MARGIN), 1.0 - MARGIN) for u in relative]  # the ends do not bend

        def rates(step: int) -> list[int]:
            t = 2.0 ** (step / STEPS)
            return [
                low + round((high - low) * _bend(u, t))
                for low, high, u in zip(draft.low, draft.high, inner, strict=True)
            ]

        def fits(step: int) -> bool:
            return self._macs(draft, rates(step), draft.s_low) <= self.budget.macs

        step = _first(-OCTAVES * STEPS, OCTAVES * STEPS, fits)
        return rates(step) if fits(step) else None

    def _top_up(self, draft: _Draft, rates: list[int]) -> list[int]:
        """Use up what is left of the budget by single tokens, the dearest that fits first.

        So no layer gains more than a few, and none is pushed to its bound.
        """
        bounds = [_units(space)[1] for space in draft.spaces]
        for j in range(len(rates)):
            while True:
                n, kept = self._counts(draft, rates)[j]
                # the least rate that keeps one more
                more = math.ceil((kept + 0.5) / n * RETENTION_UNIT - 1e-6)
                if kept + 1 >= n or more >= bounds[j]:
                    break
                longer = _with(rates, j, more)
                if self._macs(draft, longer, draft.s_low) > self.budget.macs:
                    break
                rates = longer
        return rates

    def _config(
        self, draft: _Draft, rates: list[int], point: Sequence[float]
    ) -> PruningConfig:
        layers = []
        n = self.geometry.patch_tokens
        for j, space in enumerate(draft.spaces):
            rate = rates[j] / RETENTION_UNIT
            s_tokens = min(draft.s_low[j], max_s_tokens(n, rate, self.template.order))
            layers.append(PruningLayer(space.block, rate, s_tokens, draft.iterations[j]))
            n = patch_tokens_kept(n, rate, s_tokens)
        return PruningConfig(
            layers=tuple(layers),
            v_min=self.space.v_min.at(point[-2]),
            v_max=self.space.v_max.at(point[-1]),
            **self.space.variants,
        )

    # ---- what a draft costs --------------------------------------------------------------

    def _counts(self, draft: _Draft, rates: list[int]) -> list[tuple[int, int]]:
        """Per layer: patch tokens coming in, and those the rate keeps before s is taken off."""
        out = []
        n = self.geometry.patch_tokens
        for rate, s_tokens in zip(rates, draft.s_low, strict=True):
            s_tokens = min(s_tokens, max_s_tokens(n, rate / RETENTION_UNIT, self.template.order))
            kept = patch_tokens_kept(n, rate / RETENTION_UNIT, s_tokens)
            out.append((n, kept + s_tokens))
            n = kept
        return out

    def _macs(self, draft: _Draft, rates: list[int], s_tokens: list[int]) -> int:
        """What the budget bounds, of these rates (in units) and S-stage counts.

        Half of a decode's time goes by here, in 40 calls.
        """
        geometry, template, of_block = self.geometry, self.template, self._block_macs
        prefix, total = geometry.prefix_tokens, self.budget.counts == "total"
        macs = geometry.stem_macs + geometry.tail_macs
        n, start = geometry.patch_tokens, 0
        for j, space in enumerate(draft.spaces):
            macs += (space.block - start) * of_block[n + prefix]
            start = space.block
            rate = rates[j] / RETENTION_UNIT
            s = min(s_tokens[j], max_s_tokens(n, rate, template.order))
            kept = patch_tokens_kept(n, rate, s)
            if total:
                macs += stage_macs(geometry, template, n, kept, s, draft.iterations[j])
            n = kept
        macs += (geometry.depth - start) * of_block[n + prefix]
        return macs + geometry.tail_macs_per_token * (n + prefix)


def _bend(u: float, t: float) -> float:
    """u in (0, 1), moved up for t < 1 and down for t > 1; falls with t, and is u at 1."""
    return math.pow(u, t) if t < 1.0 else 1.0 - math.pow(1.0 - u, 1.0 / t)


def _with(values: list[int], index: int, value: int) -> list[int]:
    out = values.copy()
    out[index] = value
    return out


def _units(space: BlockSpace) -> tuple[int, int]:
    """Least and most retention of a block in units."""
    low, high = space.retention
    return math.ceil(low * RETENTION_UNIT - 1e-6), math.floor(high * RETENTION_UNIT + 1e-6)


def _up(value: float) -> str:
    """To four significant digits, never below the value."""
    step = 10.0 ** (math.floor(math.log10(value)) - 3)
    return f"{math.ceil(value / step - 1e-9) * step:.4g}"


def _down(value: float) -> str:
    """To four significant digits, never above the value."""
    step = 10.0 ** (math.floor(math.log10(value)) - 3)
    return f"{math.floor(value / step + 1e-9) * step:.4g}"


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
