"""Schedules of other token reduction tools, read as configurations.

They say how many tokens leave which block, and no more: what ToMe and DiffRate do within a block,
between attention and MLP, is done behind it here, and so costs a little more. What they do in the
last block saves nothing behind it and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ztp_search.errors import ConfigError
from ztp_search.pruning.config import (
    MOST_BLOCKS,
    MOST_TOKENS,
    PruningConfig,
    PruningLayer,
    check_keys,
)
from ztp_search.pruning.schedules import TOME

R = "r"
PRUNES, MERGES = "kept_after_prune", "kept_after_merge"


def is_schedule(data: Any) -> bool:
    """Whether a document is one of these, rather than a configuration file."""
    return isinstance(data, Mapping) and (R in data or PRUNES in data or MERGES in data)


def read_schedule(data: Mapping[str, Any], name: str) -> PruningConfig:
    """The configuration that a schedule stands for.

    Args:
        data: {"r": […]} of ToMe, tokens merged in each block; or {"kept_after_prune": […],
            "kept_after_merge": […]} of DiffRate, tokens kept in each block, prefix tokens
            included; "tokens" says how many come in (else the first block prunes none), and
            "prefix_tokens" how many of them are no patches (else 1).
        name: the file, for messages.

    Raises:
        ConfigError: names the first thing that is wrong.
    """
    return _of_r(data, name) if R in data else _of_counts(data, name)


def _of_r(data: Mapping[str, Any], name: str) -> PruningConfig:
    """ToMe: every other token may go, into the most similar of the others, by keys."""
    check_keys(data, name, {R}, set())
    r = _counts(data[R], f"{name}: {R}", least=0)
    layers = [PruningLayer(block, s_tokens=s) for block, s in enumerate(r[:-1], 1) if s]
    return _with(TOME, layers)


def _of_counts(data: Mapping[str, Any], name: str) -> PruningConfig:
    """DiffRate: the least important are dropped, then those that are most alike merged."""
    check_keys(data, name, {PRUNES, MERGES}, {"tokens", "prefix_tokens"})
    prunes = _counts(data[PRUNES], f"{name}: {PRUNES}", least=1)
    merges = _counts(data[MERGES], f"{name}: {MERGES}", least=1)
    if len(prunes) != len(merges):
        raise ConfigError(
            f"{name}: {PRUNES} and {MERGES} must have an entry per block each, but have "
            f"{len(prunes)} and {len(merges)}"
        )
    (tokens,) = _counts([data.get("tokens", prunes[0])], f"{name}: tokens", least=1)
    (prefix,) = _counts([data.get("prefix_tokens", 1)], f"{name}: prefix_tokens", least=0)
    layers, before = [], tokens
    for block, (pruned, merged) in enumerate(zip(prunes, merges, strict=True), 1):
        if not prefix < merged <= pruned <= before:
            raise ConfigError(
                f"{name}: {prefix} < kept after merging <= kept after pruning <= tokens that come "
                f"in must hold, but got {merged}, {pruned} and {before} in block {block}"
            )
        if merged < before and block < len(prunes):
            retention = (pruned - prefix) / (before - prefix)
            layers.append(PruningLayer(block, retention, pruned - merged))
            before = merged
    return _with(PruningConfig(order="i-s", similar="merge", sizes="track"), layers)


def _with(variant: PruningConfig, layers: Sequence[PruningLayer]) -> PruningConfig:
    return PruningConfig.from_dict(
        {**variant.to_dict(), "layers": [layer.to_dict() for layer in layers]}
    )


def _counts(values: Any, where: str, least: int) -> list[int]:
    """A list of whole numbers; ConfigError by name where it is none."""
    if not isinstance(values, list) or not 0 < len(values) <= MOST_BLOCKS:
        raise ConfigError(f"{where} must be a list with a number per block, but got {values!r:.80}")
    for value in values:
        if type(value) is not int or not least <= value <= MOST_TOKENS:
            raise ConfigError(
                f"{where} must hold whole numbers from {least} on, but got {value!r:.80}"
            )
    return values
