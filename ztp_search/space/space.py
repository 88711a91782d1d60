"""A search space: which pruning layers, rates, counts, iterations and thresholds may be tried.

The classes here say what a space is, and `SearchSpace.blocks` what it means for a model of so many
blocks. Its YAML form is read by `space_file.py`; sampling under a budget is in `decoder.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ztp_search.errors import SpaceError
from ztp_search.pruning.methods import DEFAULT_METHOD

Interval = tuple[float, float]
"""Least and most, both included."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A closed interval, walked evenly (or evenly in the logarithm) by u in [0, 1]."""

    low: float
    high: float
    log: bool = False

    def at(self, u: float) -> float:
        """The value at u, to six significant digits so that it reads well everywhere."""
        if self.log:
            value = self.low * (self.high / self.low) ** u
        else:
            value = self.low + (self.high - self.low) * u
        return min(max(float(f"{value:.6g}"), self.low), self.high)


@dataclass(frozen=True, slots=True)
class BlockRange:
    """Blocks `first` to `last` of a model of any depth; negative numbers count from its end.

    Block -1 is the last after which pruning saves anything: block depth - 1 of a model whose
    blocks count from 1.
    """

    first: int
    last: int

    def of(self, depth: int) -> range:
        """Those of them that a model of `depth` blocks has, of 1 … depth - 1."""
        first, last = (end + depth if end < 0 else end for end in (self.first, self.last))
        return range(max(1, first), min(last, depth - 1) + 1)


@dataclass(frozen=True, slots=True)
class PerBlock:
    """An interval for each block.

    stated: intervals of some blocks; where two of them hold a block, the first one counts.
    other: the interval of all other blocks; None where there must be none.
    """

    stated: tuple[tuple[BlockRange, Interval], ...] = ()
    other: Interval | None = None

    def intervals(self, depth: int) -> dict[int, Interval | None]:
        """The interval of each block 1 … depth - 1; None where nothing is said of it."""
        intervals: dict[int, Interval | None] = {}
        for blocks, interval in self.stated:
            for block in blocks.of(depth):
                intervals.setdefault(block, interval)
        return {block: intervals.get(block, self.other) for block in range(1, depth)}


@dataclass(frozen=True, slots=True)
class BlockSpace:
    """What a pruning layer after `block` may be: inclusive ranges."""

    block: int
    retention: tuple[float, float]
    s_tokens: tuple[int, int]
    wpr_iterations: tuple[int, int]


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """A space as its file states it; `blocks(depth)` binds it to a model.

    name: of a shipped space, or the path of its file.
    after_block: the blocks that a pruning layer may follow; None: all but the last.
    layers: least and most pruning layers of one configuration.
    variants: named design variants that stand for all configurations.
    model, data, defaults: what is searched where nothing but the space is named; empty in a space
        for any model.
    sha256: digest of what decides sampling, for the study's contract.
    method: a name of `METHODS`.
    """

    name: str
    about: str
    after_block: tuple[int, ...] | None
    layers: tuple[int, int]
    retention: PerBlock
    s_tokens: PerBlock
    wpr_iterations: PerBlock
    v_min: Scale
    v_max: Scale
    variants: Mapping[str, str] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, int] = field(default_factory=dict)
    sha256: str = ""
    method: str = DEFAULT_METHOD

    def blocks(self, depth: int) -> tuple[BlockSpace, ...]:
        """The candidate locations in a model of `depth` blocks, ascending.

        Raises:
            SpaceError: The space names a block that the model has not, says nothing about one
                that it has, or asks for more layers than there are locations.

        Example:
            >>> load_space("deit_small").blocks(12)[0]
            BlockSpace(block=1, retention=(0.5, 1.0), s_tokens=(0, 20), wpr_iterations=(30, 50))
        """
        numbers = self._locations(depth)
        rates = self._intervals("retention", self.retention, depth)
        counts = self._intervals("s_tokens", self.s_tokens, depth)
        iterations = self._intervals("wpr_iterations", self.wpr_iterations, depth)
        return tuple(
            BlockSpace(
                block=block,
                retention=rates[block],
                s_tokens=_integers(counts[block]),
                wpr_iterations=_integers(iterations[block]),
            )
            for block in numbers
        )

    def _locations(self, depth: int) -> tuple[int, ...]:
        numbers = tuple(range(1, depth)) if self.after_block is None else self.after_block
        if numbers and not (1 <= numbers[0] and numbers[-1] < depth):
            raise SpaceError(
                f"{self.name}: pruning.after_block: 1 <= block < depth must hold, but got "
                f"{list(numbers)} for a model of {depth} blocks; use blocks 1 to {depth - 1}, "
                "'all', or another `space`"
            )
        if self.layers[0] > len(numbers):
            raise SpaceError(
                f"{self.name}: pruning.layers asks for at least {self.layers[0]} layers, but "
                f"after_block offers {len(numbers)}; lower the one or extend the other"
            )
        return numbers

    def _intervals(self, key: str, stated: PerBlock, depth: int) -> dict[int, Interval]:
        intervals = {}
        for block, interval in stated.intervals(depth).items():
            if interval is None:
                raise SpaceError(
                    f"{self.name}: pruning.{key} says nothing for block {block} of a model of "
                    f"{depth} blocks; add the block or a line 'other: [low, high]'"
                )
            intervals[block] = interval
        return intervals


def _integers(interval: Interval) -> tuple[int, int]:
    return int(interval[0]), int(interval[1])
