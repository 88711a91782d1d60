"""A search space: which pruning layers, rates, counts, iterations and thresholds may be tried.

A space file is YAML (safe-loaded); `search_spaces/` ships some, and a user's own has the same
form. Block numbers count from 1. A value per block is one `[low, high]` for all, or a mapping
from blocks to `[low, high]`: `4`, `4-9`, `first 3`, `last 3`, `other`. One number means both
ends. Sampling under a budget is in `decoder.py`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ztp_search.errors import SpaceError
from ztp_search.pruning.config import CHOICES, check_keys

FORMAT, VERSION = "ztp-search/space", 1
PRUNING_KEYS = {"after_block", "layers", "retention", "s_tokens", "wpr_iterations"}
DEFAULT_KEYS = {"trials", "images", "holdout", "batch_size"}
MODEL_KEYS = {"name", "kwargs", "weights", "num_classes", "preprocessing"}
DATA_KEYS = {"source", "split", "holdout_split", "class_map"}
KINDS = {"kwargs": dict, "preprocessing": dict, "num_classes": int}
"""What a key of `model` or `data` holds where it is no text."""

Interval = tuple[float, float]


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
class BlockSpace:
    """What a pruning layer after `block` may be: inclusive ranges."""

    block: int
    retention: tuple[float, float]
    s_tokens: tuple[int, int]
    wpr_iterations: tuple[int, int]


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """A space as its file states it; `blocks(depth)` binds it to a model.

    layers: least and most pruning layers of one configuration.
    variants: named design variants that stand for all configurations.
    model, data, defaults: what `--space` alone means; empty in a space for any model.
    sha256: digest of what decides sampling, for the study's contract.
    """

    name: str
    about: str
    layers: tuple[int, int]
    v_min: Scale
    v_max: Scale
    variants: Mapping[str, str] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, int] = field(default_factory=dict)
    sha256: str = ""
    _pruning: Mapping[str, Any] = field(default_factory=dict)

    def blocks(self, depth: int) -> tuple[BlockSpace, ...]:
        """The candidate locations in a model of `depth` blocks, ascending."""
        where = f"{self.name}: pruning.after_block"
        value = self._pruning["after_block"]
        if value == "all":
            numbers = list(range(1, depth))
        elif isinstance(value, list) and value and all(type(b) is int for b in value):
            numbers = value
        else:
            raise SpaceError(f"{where} must be 'all' or a list of blocks, but got {value!r}")
        if numbers != sorted(set(numbers)):
            raise SpaceError(f"{where} must ascend, each block once, but got {value!r}")
        if numbers and not (1 <= numbers[0] and numbers[-1] < depth):
            raise SpaceError(
                f"{where}: 1 <= block < depth must hold, but got {value!r} for a model of "
                f"{depth} blocks; use blocks 1 to {depth - 1}, 'all', or another --space"
            )
        if self.layers[0] > len(numbers):
            raise SpaceError(
                f"{self.name}: pruning.layers asks for at least {self.layers[0]} layers, but "
                f"after_block offers {len(numbers)}; lower the one or extend the other"
            )
        rates = self._per_block("retention", depth)
        counts = self._per_block("s_tokens", depth)
        iterations = self._per_block("wpr_iterations", depth)
        return tuple(
            BlockSpace(
                block=b,
                retention=rates[b],
                s_tokens=(int(counts[b][0]), int(counts[b][1])),
                wpr_iterations=(int(iterations[b][0]), int(iterations[b][1])),
            )
            for b in numbers
        )

    def _per_block(self, key: str, depth: int) -> dict[int, Interval]:
        where = f"{self.name}: pruning.{key}"
        value = self._pruning[key]
        if not isinstance(value, Mapping):
            interval = _interval(value, where, *LIMITS[key])
            return dict.fromkeys(range(1, depth), interval)
        out: dict[int, Interval] = {}
        other: Interval | None = None
        for selector, item in value.items():
            interval = _interval(item, f"{where}[{selector!r}]", *LIMITS[key])
            if selector == "other":
                other = interval
                continue
            for block in _selected(str(selector), depth, where):
                out.setdefault(block, interval)
        missing = [b for b in range(1, depth) if b not in out]
        if missing and other is None:
            raise SpaceError(
                f"{where} says nothing for block {missing[0]} of a model of {depth} blocks; "
                "add the block or a line 'other: [low, high]'"
            )
        assert other is not None or not missing
        return out | {b: other for b in missing if other is not None}


LIMITS: Mapping[str, tuple[float, float, bool]] = {
    "retention": (0.0001, 1.0, False),
    "s_tokens": (0, 1_000_000, True),
    "wpr_iterations": (1, 10_000, True),
}
"""Least and most that a key may hold, and whether it counts (integers)."""


def shipped_spaces() -> dict[str, str]:
    """Name -> YAML text of the spaces in the wheel (or beside the package in a checkout)."""
    folder = resources.files("ztp_search") / "search_spaces"
    if not folder.is_dir():
        folder = Path(__file__).resolve().parent.parent.parent / "search_spaces"
    files = {item.name: item for item in folder.iterdir() if item.name.endswith(".yaml")}
    return {name.removesuffix(".yaml"): files[name].read_text("utf-8") for name in sorted(files)}


def load_space(name_or_path: str) -> SearchSpace:
    """A shipped space by name, or a file by path; SpaceError with file, field, value and fix."""
    shipped = shipped_spaces()
    if name_or_path in shipped:
        return parse_space(shipped[name_or_path], name_or_path)
    path = Path(name_or_path)
    if not path.is_file():
        raise SpaceError(
            f"search space {name_or_path!r} is neither a file nor a shipped space; "
            f"shipped are {', '.join(shipped)}"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpaceError(f"search space {name_or_path} cannot be read: {error}") from None
    return parse_space(text, name_or_path)


def parse_space(text: str, name: str) -> SearchSpace:
    """Read the YAML form."""
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: 2026-99-99
        line = " ".join(str(error).split())
        raise SpaceError(f"{name}: this is no valid YAML: {line}") from None
    check_keys(
        data, name, {"format", "version", "pruning"}, {"about", "model", "data", "defaults"},
        SpaceError,
    )  # fmt: skip
    for key, value in (("format", FORMAT), ("version", VERSION)):
        if type(data[key]) is not type(value) or data[key] != value:
            raise SpaceError(f"{name}: {key} must be {value!r}, but got {data[key]!r}")
    pruning = data["pruning"]
    check_keys(
        pruning, f"{name}: pruning", PRUNING_KEYS | {"v_min", "v_max"}, set(CHOICES), SpaceError
    )
    for section, keys, needed in (("model", MODEL_KEYS, "name"), ("data", DATA_KEYS, "source")):
        stated = data.get(section, {})
        check_keys(stated, f"{name}: {section}", {needed} if stated else set(), keys, SpaceError)
        for key, value in stated.items():
            kind = KINDS.get(key, str)
            if type(value) is not kind:
                words = {str: "text", int: "an integer", dict: "a mapping"}
                raise SpaceError(f"{name}: {section}.{key} must be {words[kind]}, got {value!r}")
    check_keys(data.get("defaults", {}), f"{name}: defaults", set(), DEFAULT_KEYS, SpaceError)
    variants = {key: pruning[key] for key in CHOICES if key in pruning}
    for key, value in variants.items():
        if value not in CHOICES[key]:
            raise SpaceError(
                f"{name}: pruning.{key} must be one of {', '.join(CHOICES[key])}, but got {value!r}"
            )
    for key, value in data.get("defaults", {}).items():
        if type(value) is not int or value < 1:
            raise SpaceError(f"{name}: defaults.{key} must be an integer above 0, got {value!r}")
    layers = _interval(pruning["layers"], f"{name}: pruning.layers", 1, 1000, True)
    v_min, v_max = (_scale(pruning[key], f"{name}: pruning.{key}") for key in ("v_min", "v_max"))
    if v_min.high >= v_max.low:
        raise SpaceError(
            f"{name}: v_min must stay below v_max, but v_min reaches {v_min.high} and v_max "
            f"starts at {v_max.low}"
        )
    digest = hashlib.sha256(yaml.safe_dump(pruning, sort_keys=True).encode()).hexdigest()
    space = SearchSpace(
        name=name,
        about=" ".join(str(data.get("about", "")).split()),
        layers=(int(layers[0]), int(layers[1])),
        v_min=v_min,
        v_max=v_max,
        variants=variants,
        model=data.get("model", {}),
        data=data.get("data", {}),
        defaults=data.get("defaults", {}),
        sha256=digest,
        _pruning=pruning,
    )
    for key in LIMITS:  # a wrong value is refused now, a block that is not there at blocks()
        if not isinstance(pruning[key], Mapping):
            _interval(pruning[key], f"{name}: pruning.{key}", *LIMITS[key])
    return space


def _interval(value: Any, where: str, low: float, high: float, integers: bool) -> Interval:
    kind = "integers" if integers else "numbers"
    pair = value if isinstance(value, list) else [value, value]
    types = (int,) if integers else (int, float)
    if len(pair) != 2 or not all(type(end) in types for end in pair):
        raise SpaceError(f"{where} must be [low, high] of {kind}, but got {value!r}")
    if not low <= pair[0] <= pair[1] <= high:
        raise SpaceError(f"{where}: {low} <= low <= high <= {high} must hold, but got {value!r}")
    return pair[0], pair[1]


def _scale(value: Any, where: str) -> Scale:
    if isinstance(value, Mapping):
        check_keys(value, where, {"low", "high"}, {"log"}, SpaceError)
        low, high = _interval([value["low"], value["high"]], where, 0.0, 1e12, False)
        log = value.get("log", False)
        if type(log) is not bool or (log and low <= 0):
            raise SpaceError(
                f"{where}: log must be true (with low above 0) or false, but got {value!r}"
            )
        return Scale(float(low), float(high), log)
    low, high = _interval(value, where, 0.0, 1e12, False)
    return Scale(float(low), float(high))


def _selected(selector: str, depth: int, where: str) -> range:
    """Blocks that `4`, `4-9`, `first 3` or `last 3` name, of 1 … depth - 1."""
    word, _, count = selector.partition(" ")
    first, dash, last = selector.partition("-")
    if word in ("first", "last") and count.isdecimal():
        n = min(int(count), depth - 1)
        return range(1, n + 1) if word == "first" else range(depth - n, depth)
    if first.strip().isdecimal() and (last.strip().isdecimal() or not dash):
        low, high = int(first), int(last or first)
        if 1 <= low <= high:
            return range(low, min(high, depth - 1) + 1)
    raise SpaceError(
        f"{where}: blocks must read as 4, 4-9, first 3, last 3 or other, but got {selector!r}"
    )
