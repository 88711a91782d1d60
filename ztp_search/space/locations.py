"""Which sets of locations can meet the budget, and what is said where none can."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from ztp_search.errors import BudgetError, SpaceError
from ztp_search.pruning.budget import Budget
from ztp_search.pruning.config import RETENTION_UNIT
from ztp_search.pruning.geometry import Geometry
from ztp_search.space.draft import Pricing, retention_units
from ztp_search.space.space import BlockSpace, SearchSpace

MAX_SETS = 200_000

Locations = tuple[BlockSpace, ...]
"""The pruning layers of a configuration, by what each may be."""


def feasible_locations(
    space: SearchSpace, blocks: Sequence[BlockSpace], pricing: Pricing, budget: Budget
) -> list[Locations]:
    """Find the sets of locations whose cheapest and dearest configurations enclose the budget.

    Args:
        space: says how many layers a configuration has.
        blocks: the candidate locations, ascending.
        pricing: of the space on the model.
        budget: to be met.

    Raises:
        SpaceError: there are too many sets.
        BudgetError: none is feasible; names the interval that can be asked for.
    """
    least, most = space.layers[0], min(space.layers[1], len(blocks))
    count = sum(math.comb(len(blocks), k) for k in range(least, most + 1))
    if count > MAX_SETS:
        raise SpaceError(
            f"{space.name}: pruning.layers {list(space.layers)} of {len(blocks)} blocks makes "
            f"{count:,} sets of locations, at most {MAX_SETS:,} can be handled; name fewer blocks "
            "or fewer layers"
        )
    feasible = []
    intervals = []
    for k in range(least, most + 1):
        for locations in itertools.combinations(blocks, k):
            draft = pricing.draft(locations)
            low, high = pricing.cheapest(draft), pricing.dearest(draft)
            intervals.append((low, high))
            if low <= budget.macs and high >= budget.least:
                feasible.append(locations)
    if not feasible:
        raise BudgetError(_refusal(space, pricing, budget, intervals))
    return feasible


def check_blocks(space: SearchSpace, blocks: Sequence[BlockSpace], geometry: Geometry) -> None:
    """Refuse ranges that hold no value on this model.

    Raises:
        SpaceError: names the field and the block.
    """
    half = geometry.patch_tokens // 2
    for block in blocks:
        low, high = retention_units(block)
        if low > high:
            raise SpaceError(
                f"{space.name}: pruning.retention of block {block.block} must hold a multiple of "
                f"{1 / RETENTION_UNIT}, but got {list(block.retention)}; round its ends"
            )
        if block.s_tokens[0] > half:
            raise SpaceError(
                f"{space.name}: pruning.s_tokens of block {block.block} must start at {half} or "
                f"below, half of the model's {geometry.patch_tokens} patch tokens, but got "
                f"{list(block.s_tokens)}; lower it"
            )


def _refusal(
    space: SearchSpace, pricing: Pricing, budget: Budget, intervals: Sequence[tuple[int, int]]
) -> str:
    """Say what is feasible, rounded inwards: the ends it names can be asked for."""
    model = pricing.cost_model
    unit, steps, unpruned = model.unit, model.per_unit, model.unpruned()
    cheapest, dearest = min(low for low, _ in intervals), max(high for _, high in intervals)
    asked, share = budget.macs / steps, 100.0 * budget.macs / unpruned
    interval = (
        f"feasible is {_up(cheapest / steps)} to {_down(dearest / steps)} {unit}, "
        f"{_up(100 * cheapest / unpruned)}% to {_down(100 * dearest / unpruned)}%"
    )
    if budget.macs < cheapest:
        return (
            f"budget {asked:.4g} {unit} ({share:.1f}% of the unpruned model) is below the "
            f"cheapest configuration of space {space.name} ({interval}); "
            "raise `budget`, or allow more pruning layers or lower retention"
        )
    if budget.least <= dearest:
        below = max(high for _, high in intervals if high < budget.least)
        above = min(low for low, _ in intervals if low > budget.macs)
        return (
            f"budget {asked:.4g} {unit} ({share:.1f}% of the unpruned model) lies in a gap of "
            f"space {space.name}, whose configurations cost at most {_down(below / steps)} "
            f"or at least {_up(above / steps)} {unit}; change `budget`, or allow a wider "
            "retention or s_tokens"
        )
    return (
        f"budget {asked:.4g} {unit} ({share:.1f}% of the unpruned model's "
        f"{unpruned / steps:.4g}) is not met by space {space.name}: {interval}; "
        "change `budget`, or allow fewer pruning layers or higher retention"
    )


def _up(value: float) -> str:
    """To four significant digits, never below the value."""
    step = 10.0 ** (math.floor(math.log10(value)) - 3)
    return f"{math.ceil(value / step - 1e-9) * step:.4g}"


def _down(value: float) -> str:
    """To four significant digits, never above the value."""
    step = 10.0 ** (math.floor(math.log10(value)) - 3)
    return f"{math.floor(value / step + 1e-9) * step:.4g}"
