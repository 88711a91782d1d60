"""A search space: which pruning layers, rates, counts, iterations and thresholds may be tried.

The classes here say what a space is, and `SearchSpace.blocks` what it means for a model of so many
blocks. Its YAML form is read by `space_file.py`; sampling under a budget is in `decoder.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ztp_search.errors import SpaceError
from ztp_search.pruning.config import CHOICES
from ztp_search.pruning.methods import DEFAULT_METHOD


@dataclass(frozen=True, slots=True)
class Corner:
    """A part of a space that goes by a name: what it fixes, the rest being the space's.

    merge_share: of every layer.
    variants: design variants.
    """

    merge_share: float
    variants: Mapping[str, str]


CORNERS: Mapping[str, Corner] = {
    "zero-tprune": Corner(0.0, {
        "similar": "drop", "sizes": "ignore", "partition": "sequential-u", "features": "key",
    }),
    "merge": Corner(1.0, {"similar": "merge", "sizes": "track"}),
}  # fmt: skip
"""The paper's method, and what drops nothing."""

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

    Attributes:
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
    kept: tuple[float, float] = (0.0, 1.0)
    merge_share: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """A space as its file states it; `blocks(depth)` binds it to a model.

    Attributes:
        name: of a shipped space, or the path of its file.
        about: what it is for.
        after_block: the blocks that a pruning layer may follow; None: all but the last.
        layers: least and most pruning layers of one configuration.
        retention: share of the tokens that stay by importance.
        s_tokens: tokens taken by similarity.
        wpr_iterations: of the ranking by importance.
        v_min, v_max: thresholds of the head filter.
        kept: least and most share of the tokens that a layer keeps, by both stages.
        merge_share: share of the tokens pruned by importance that are merged.
        variants: named design variants that may be tried; those not named stand at their default.
        model, data, defaults: what is searched where nothing but the space is named; empty in a
            space for any model.
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
    kept: PerBlock = PerBlock(other=(0.0, 1.0))
    merge_share: PerBlock = PerBlock(other=(0.0, 0.0))
    variants: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
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
            >>> block = load_space("deit_small").blocks(12)[0]
            >>> block.block, block.retention, block.wpr_iterations
            (1, (0.5, 1.0), (30, 50))
        """
        numbers = self._locations(depth)
        rates = self._intervals("retention", self.retention, depth)
        counts = self._intervals("s_tokens", self.s_tokens, depth)
        iterations = self._intervals("wpr_iterations", self.wpr_iterations, depth)
        kept = self._intervals("kept", self.kept, depth)
        merged = self._intervals("merge_share", self.merge_share, depth)
        return tuple(
            BlockSpace(
                block=block,
                retention=rates[block],
                s_tokens=_integers(counts[block]),
                wpr_iterations=_integers(iterations[block]),
                kept=kept[block],
                merge_share=merged[block],
            )
            for block in numbers
        )

    def restricted(self, method: str) -> SearchSpace:
        """One of `CORNERS` of this space, or all of it ("any").

        A partition or features that the space does not offer are left as they are there.

        Raises:
            SpaceError: there is no such corner, or the space excludes it.
        """
        if method not in ("any", *CORNERS):
            raise SpaceError(f"`method` must be one of any, {', '.join(CORNERS)}, but got "
                             f"{method!r}")  # fmt: skip
        if method == "any":
            return self
        corner = CORNERS[method]
        offered = {
            name: value for name, value in corner.variants.items() if value in self.offers(name)
        }
        for name in ("similar", "sizes"):
            if name in offered:
                continue
            raise SpaceError(
                f"{self.name}: `method` {method} needs pruning.{name} {corner.variants[name]}, but "
                f"the space has {', '.join(self.offers(name))}; add it, or use another method"
            )
        if not self._merges(corner.merge_share):
            raise SpaceError(
                f"{self.name}: `method` {method} needs pruning.merge_share {corner.merge_share:g}, "
                "but the space excludes it; add it, or use another method"
            )
        return replace(
            self,
            merge_share=PerBlock(other=(corner.merge_share, corner.merge_share)),
            variants={**self.variants, **{name: (value,) for name, value in offered.items()}},
            sha256=hashlib.sha256(f"{method} {self.sha256}".encode()).hexdigest(),
        )  # fmt: skip

    def corners(self) -> list[Corner]:
        """The corners that lie in this space and leave out some of it."""
        return [corner for corner in CORNERS.values() if self._has(corner)]

    def _has(self, corner: Corner) -> bool:
        open_too = any(len(values) > 1 for values in self.variants.values())
        fits = all(value in self.offers(name) for name, value in corner.variants.items())
        return open_too and fits and self._merges(corner.merge_share)

    def offers(self, variant: str) -> tuple[str, ...]:
        """What a design variant may be: the default where the space does not state it."""
        return self.variants.get(variant, CHOICES[variant][:1])

    def _merges(self, share: float) -> bool:
        """Whether every layer may merge this share."""
        intervals = [self.merge_share.other, *(each for _, each in self.merge_share.stated)]
        return all(each[0] <= share <= each[1] for each in intervals if each is not None)

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
