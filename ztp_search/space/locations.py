"""Which sets of locations can meet the budget, and what is said where none can."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence

from ztp_search.errors import BudgetError, SpaceError
from ztp_search.pruning.budget import Budget
from ztp_search.pruning.config import RETENTION_UNIT
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.methods.zero_tprune import MERGE_UNIT
from ztp_search.pruning.rounding import units_within
from ztp_search.space.draft import Pricing
from ztp_search.space.space import BlockSpace, SearchSpace

MAX_SETS = 1_000
"""Sets with the same number of layers; of more, so many evenly spread ones stand for all."""

Locations = tuple[BlockSpace, ...]
"""The pruning layers of a configuration, by what each may be."""


def feasible_locations(
    space: SearchSpace, blocks: Sequence[BlockSpace], pricing: Pricing, budget: Budget
) -> list[list[Locations]]:
    """Find the sets of locations whose cheapest and dearest configurations enclose the budget.

    Args:
        space: says how many layers a configuration has.
        blocks: the candidate locations, ascending.
        pricing: of the space on the model.
        budget: to be met.

    Returns:
        For every number of layers with which the budget can be met, its sets.

    Raises:
        BudgetError: none is feasible; names the interval that can be asked for.
    """
    feasible = []
    intervals = []
    for count in range(space.layers[0], min(space.layers[1], len(blocks)) + 1):
        sets = []
        for locations in sets_of(blocks, count):
            draft = pricing.draft(locations)
            low, high = pricing.cheapest(draft), pricing.dearest(draft)
            intervals.append((low, high))
            if low <= budget.macs and high >= budget.least:
                sets.append(locations)
        if sets:
            feasible.append(sets)
    if not feasible:
        raise BudgetError(_refusal(space, pricing, budget, intervals))
    return feasible


def sets_of(blocks: Sequence[BlockSpace], count: int) -> Iterator[Locations]:
    """Sets of `count` of these blocks in lexicographic order, the first and the last included.

    All of them up to MAX_SETS; of more, that many at even distances.
    """
    total = math.comb(len(blocks), count)
    if total <= MAX_SETS:
        yield from itertools.combinations(blocks, count)
        return
    for i in range(MAX_SETS):
        yield _set_at(blocks, count, i * (total - 1) // (MAX_SETS - 1))


def _set_at(blocks: Sequence[BlockSpace], count: int, rank: int) -> Locations:
    """The set of that rank in lexicographic order."""
    chosen: list[BlockSpace] = []
    for position, block in enumerate(blocks):
        with_it = math.comb(len(blocks) - position - 1, count - len(chosen) - 1)
        if rank < with_it:
            chosen.append(block)
            if len(chosen) == count:
                break
        else:
            rank -= with_it
    return tuple(chosen)


def check_blocks(
    space: SearchSpace, blocks: Sequence[BlockSpace], pricing: Pricing, geometry: Geometry
) -> None:
    """Refuse ranges that hold no value on this model.

    Raises:
        SpaceError: names the field and the block.
    """
    half = geometry.patch_tokens // 2
    for block in blocks:
        where = f"of block {block.block} must"
        for name, unit in (
            ("retention", RETENTION_UNIT), ("kept", RETENTION_UNIT), ("merge_share", MERGE_UNIT),
        ):  # fmt: skip
            least, most = units_within(getattr(block, name), unit)
            if least > most:
                raise SpaceError(
                    f"{space.name}: pruning.{name} {where} hold a multiple of {1 / unit}, but got "
                    f"{list(getattr(block, name))}; round its ends"
                )
        if block.s_tokens[0] > half:
            raise SpaceError(
                f"{space.name}: pruning.s_tokens {where} start at {half} or below, half of the "
                f"model's {geometry.patch_tokens} patch tokens, but got {list(block.s_tokens)}; "
                "lower it"
            )
        low, high = pricing.method.shares(block, geometry.patch_tokens)
        if low > high:
            raise SpaceError(
                f"{space.name}: pruning.kept {where} leave what retention and s_tokens do, at "
                f"least {low:.4g} of the tokens, but got {list(block.kept)}; raise it"
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
