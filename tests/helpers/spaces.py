"""Small search spaces, and what a decoded configuration must be."""

from __future__ import annotations

from typing import Any

import numpy as np
import yaml
from helpers.geometries import DIGITS, budget_of, counts_by_hand, macs_by_hand

from ztp_search.pruning.config import CHOICES, PruningConfig
from ztp_search.pruning.tokens import token_counts
from ztp_search.space import SearchSpace, load_space, parse_space
from ztp_search.space.decoder import Decoder

PRUNING: dict[str, Any] = {
    "after_block": "all", "layers": [2, 4], "retention": [0.5, 1.0], "s_tokens": [0, 20],
    "wpr_iterations": [1, 10], "v_min": [0.0, 0.5], "v_max": [1.0, 20.0],
}  # fmt: skip
DOCUMENT: dict[str, Any] = {"format": "ztp-search/space", "version": 1, "pruning": PRUNING}


def space_of(name: str = "mine", **pruning: Any) -> SearchSpace:
    """A small space with these keys of `pruning` changed."""
    return parse_space(yaml.safe_dump(DOCUMENT | {"pruning": PRUNING | pruning}), name)


def wide() -> Decoder:
    """A space in which hardly any two points meet."""
    return Decoder(load_space("digits"), DIGITS, budget_of(DIGITS, 0.68))


def assert_right(decoder: Decoder, config: PruningConfig) -> None:
    """The configuration meets the budget, stands in the space, and its counts are the model's."""
    geometry, budget, space = decoder.geometry, decoder.budget, decoder.space
    backbone, overhead = macs_by_hand(geometry, config)
    macs = backbone + overhead if budget.counts == "total" else backbone
    assert (1 - budget.tolerance) * budget.macs <= macs <= budget.macs
    assert space.layers[0] <= len(config.layers) <= space.layers[1]
    ranges = {block.block: block for block in space.blocks(geometry.depth)}
    for layer, (n, kept) in zip(config.layers, counts_by_hand(geometry, config), strict=True):
        block = ranges[layer.after_block]
        assert block.kept[0] - 0.51 / n <= kept / n <= block.kept[1] + 0.51 / n
        assert block.merge_share[0] <= layer.merge_share <= block.merge_share[1]
        assert block.retention[0] <= layer.retention <= block.retention[1]
        assert block.s_tokens[0] <= layer.s_tokens <= block.s_tokens[1]
        assert block.wpr_iterations[0] <= layer.wpr_iterations <= block.wpr_iterations[1]
    assert space.v_min.low <= config.v_min <= space.v_min.high
    assert space.v_max.low <= config.v_max <= space.v_max.high
    assert config.v_min < config.v_max
    for name, choices in CHOICES.items():
        assert getattr(config, name) in space.variants.get(name, choices[:1])
    tokens = token_counts(geometry, config)
    for layer, (n, kept) in zip(config.layers, counts_by_hand(geometry, config), strict=True):
        assert tokens[layer.after_block - 1] == n + geometry.prefix_tokens
        assert tokens[layer.after_block] == kept + geometry.prefix_tokens


def points(decoder: Decoder, count: int, seed: int = 0) -> list[list[float]]:
    generator = np.random.default_rng(seed)
    out: list[list[float]] = generator.random((count, decoder.dimensions)).tolist()
    return out
