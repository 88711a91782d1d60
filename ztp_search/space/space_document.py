"""What a space file may hold: its keys, their values, and what they are turned into.

`SpaceDocument` is a whole space as YAML has it, validated by pydantic; a rule that pydantic has no
words for is written out in a validator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from ztp_search.pruning.config import CHOICES, MOST_BLOCKS, MOST_ITERATIONS, MOST_TOKENS
from ztp_search.space.space import BlockRange, Interval, PerBlock, Scale
from ztp_search.validation import Section, broken_rule

MOST_CLASSES = 1_000_000


class _Section(Section):
    """A section of a space file; defaults of fields only say that they may be missing."""

    def stated(self) -> dict[str, Any]:
        """What the file states, without the rest."""
        return self.model_dump(exclude_unset=True)


def _interval(
    low: float, high: float, kind: type = float, named: Mapping[str, int] | None = None
) -> Callable[[Any], Interval]:
    """Reads `[least, most]` or one number for both, within [low, high], of integers or numbers.

    named: words that stand for a number.
    """

    def read(value: Any) -> Interval:
        words = "integers" if kind is int else "numbers"
        pair = value if isinstance(value, list) else [value, value]
        pair = [(named or {}).get(end, end) if isinstance(end, str) else end for end in pair]
        types = (int,) if kind is int else (int, float)
        if len(pair) != 2 or not all(type(end) in types for end in pair):
            raise broken_rule(f"must be [low, high] of {words}, but got {value!r}")
        if not low <= pair[0] <= pair[1] <= high:
            raise broken_rule(f"{low} <= low <= high <= {high} must hold, but got {value!r}")
        return pair[0], pair[1]

    return read


def _per_block(
    low: float, high: float, kind: type = float, named: Mapping[str, int] | None = None
) -> PlainValidator:
    """Reads an interval for all blocks, or a mapping from blocks to intervals."""
    interval = _interval(low, high, kind, named)

    def read(value: Any) -> PerBlock:
        if not isinstance(value, dict):
            return PerBlock(other=interval(value))
        stated, other = [], None
        for selector, item in value.items():
            try:
                found = interval(item)
            except PydanticCustomError as error:
                raise broken_rule(f"of {selector!r}: {error.message()}") from None
            if selector == "other":
                other = found
            else:
                stated.append((_block_range(str(selector)), found))
        return PerBlock(tuple(stated), other)

    return PlainValidator(read)


def _block_range(selector: str) -> BlockRange:
    """The blocks that `4`, `4-9`, `first 3` or `last 3` name."""
    word, _, count = selector.partition(" ")
    first, dash, last = selector.partition("-")
    if word in ("first", "last") and count.isdecimal():
        n = int(count)
        return BlockRange(1, n) if word == "first" or n == 0 else BlockRange(-n, -1)
    if first.strip().isdecimal() and (last.strip().isdecimal() or not dash):
        low, high = int(first), int(last or first)
        if 1 <= low <= high:
            return BlockRange(low, high)
    raise broken_rule(f"blocks must read as 4, 4-9, first 3, last 3 or other, but got {selector!r}")


def _locations(value: Any) -> tuple[int, ...] | None:
    if value == "all":
        return None
    if not isinstance(value, list) or not value or not all(type(block) is int for block in value):
        raise broken_rule(f"must be 'all' or a list of blocks, but got {value!r}")
    if max(value) > MOST_BLOCKS:
        raise broken_rule(f"must hold blocks up to {MOST_BLOCKS}, but got {max(value)}")
    if value != sorted(set(value)):
        raise broken_rule(f"must ascend, each block once, but got {value!r}")
    return tuple(value)


def _exactly(expected: object) -> BeforeValidator:
    def check(value: Any) -> Any:
        if type(value) is not type(expected) or value != expected:  # True == 1
            raise broken_rule(f"must be {expected!r}, but got {value!r}")
        return value

    return BeforeValidator(check)


def _choice(name: str) -> BeforeValidator:
    def check(value: Any) -> Any:
        values = value if isinstance(value, list) else [value]
        for each in values:
            if each not in CHOICES[name]:
                raise broken_rule(f"must be one of {', '.join(CHOICES[name])}, but got {each!r}")
        if not values or len(set(values)) != len(values):
            raise broken_rule(f"must be a value or a list of some, each once, but got {value!r}")
        return tuple(values)

    return BeforeValidator(check)


_bounds = _interval(0.0, 1e12)
_layers = _interval(1, MOST_BLOCKS, int, {"all": MOST_BLOCKS})


class _Scale(_Section):
    """`{low, high, log}`, `[low, high]` or one number."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="before")
    @classmethod
    def _from_interval(cls, data: Any) -> Any:
        if isinstance(data, dict):
            return data
        low, high = _bounds(data)
        return {"low": low, "high": high}

    @model_validator(mode="after")
    def _check(self) -> _Scale:
        _bounds([self.low, self.high])
        if self.log and self.low <= 0:
            raise broken_rule(f"low must be above 0 where log is true, but got {self.low}")
        return self

    def scale(self) -> Scale:
        return Scale(self.low, self.high, self.log)


class _Pruning(_Section):
    after_block: Annotated[tuple[int, ...] | None, PlainValidator(_locations)]
    layers: Annotated[tuple[int, int], PlainValidator(_layers)]
    retention: Annotated[PerBlock, _per_block(0.0001, 1.0)]
    s_tokens: Annotated[PerBlock, _per_block(0, MOST_TOKENS, int, {"half": MOST_TOKENS})]
    wpr_iterations: Annotated[PerBlock, _per_block(1, MOST_ITERATIONS, int)]
    v_min: _Scale
    v_max: _Scale
    kept: Annotated[PerBlock, _per_block(0.0001, 1.0)] = PerBlock(other=(0.0, 1.0))
    merge_share: Annotated[PerBlock, _per_block(0.0, 1.0)] = PerBlock(other=(0.0, 0.0))
    variant: Annotated[tuple[str, ...], _choice("variant")] = ()
    partition: Annotated[tuple[str, ...], _choice("partition")] = ()
    features: Annotated[tuple[str, ...], _choice("features")] = ()
    metric: Annotated[tuple[str, ...], _choice("metric")] = ()
    order: Annotated[tuple[str, ...], _choice("order")] = ()
    aggregation: Annotated[tuple[str, ...], _choice("aggregation")] = ()
    similar: Annotated[tuple[str, ...], _choice("similar")] = ()
    sizes: Annotated[tuple[str, ...], _choice("sizes")] = ()

    @model_validator(mode="after")
    def _check(self) -> _Pruning:
        if self.v_min.high >= self.v_max.low:
            raise broken_rule(
                f"v_min must stay below v_max, but v_min reaches {self.v_min.high} and v_max "
                f"starts at {self.v_max.low}"
            )
        return self


class _Model(_Section):
    """Empty, or with a name."""

    name: str = ""
    kwargs: dict[str, Any] = {}
    weights: str = ""
    num_classes: Annotated[int, Field(ge=0, le=MOST_CLASSES)] = 0
    preprocessing: dict[str, Any] = {}

    @model_validator(mode="after")
    def _check(self) -> _Model:
        _need(self, "name")
        return self


class _Data(_Section):
    """Empty, or with a source."""

    source: str = ""
    split: str = ""
    holdout_split: str = ""
    class_map: str = ""

    @model_validator(mode="after")
    def _check(self) -> _Data:
        _need(self, "source")
        return self


def _need(section: _Section, key: str) -> None:
    if section.model_fields_set and key not in section.model_fields_set:
        raise broken_rule(f"key {key!r} is missing; add it")


_Count = Annotated[int, Field(ge=1)]


class _Defaults(_Section):
    trials: _Count = 1
    images: _Count = 1
    holdout: _Count = 1
    batch_size: _Count = 1


class SpaceDocument(_Section):
    """A whole space, with what its bases state filled in."""

    format: Annotated[str, _exactly("ztp-search/space")]
    version: Annotated[int, _exactly(1)]
    base: str = ""
    about: str = ""
    model: _Model = _Model()
    data: _Data = _Data()
    defaults: _Defaults = _Defaults()
    pruning: _Pruning
