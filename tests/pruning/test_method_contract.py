"""What every method must keep to; a new one joins by its line in `METHODS`."""

from __future__ import annotations

import json
import random

import pytest
import torch
from helpers.geometries import DIGITS, GEOMETRIES, size_of

from ztp_search.errors import ConfigError
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.methods import DEFAULT_METHOD, METHODS, Method, method_of, parse_config
from ztp_search.pruning.tokens import token_counts

ALL = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
MODELS = pytest.mark.parametrize("geometry", GEOMETRIES, ids=size_of)
SCALES = {"low": 0.01, "high": 10.0}


def template(method: Method) -> PruningConfig:
    values = dict(zip(method.scales, sorted(SCALES.values()), strict=False))
    return method.config((), values, {})


def drawn(method: Method, geometry: Geometry, seed: int) -> PruningConfig:
    """A configuration with a layer behind every other block, its knobs as the tokens allow."""
    rng = random.Random(seed)
    layers, n = [], geometry.patch_tokens
    for block in range(1, geometry.depth, 2):
        retention = rng.randint(5_000, 10_000) / 10_000
        asked = tuple(rng.randint(knob.neutral, 12) for knob in method.knobs)
        n, _, knobs = method.layer_tokens(template(method), n, retention, asked)
        layers.append(method.layer(block, retention, knobs))
    values = dict(zip(method.scales, sorted(SCALES.values()), strict=False))
    return method.config(layers, values, {})


@ALL
def test_it_has_the_name_that_it_is_found_by(method: Method) -> None:
    assert METHODS[method.name] is method
    assert method_of(template(method)) is method


@ALL
@MODELS
def test_the_json_form_is_read_back_as_it_was(method: Method, geometry: Geometry) -> None:
    config = drawn(method, geometry, 1)
    data = json.loads(json.dumps(config.to_dict()))
    assert method.parse(data, "config") == config
    assert parse_config({**data, "method": method.name}) == config
    if method.name == DEFAULT_METHOD:
        assert parse_config(data) == config


@ALL
def test_unknown_keys_are_refused_by_name(method: Method) -> None:
    data = drawn(method, DIGITS, 2).to_dict()
    with pytest.raises(ConfigError, match="best.json.*'retain'"):
        method.parse({**data, "retain": 1}, "best.json")


def test_an_unknown_method_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="config.method must be one of .*'magic'"):
        parse_config({"method": "magic", "layers": []})


@ALL
@MODELS
def test_neutral_values_prune_nothing_and_cost_nothing(
    method: Method, geometry: Geometry
) -> None:
    neutral = tuple(knob.neutral for knob in method.knobs)
    for n in range(1, geometry.patch_tokens + 1):
        counts = method.layer_tokens(template(method), n, 1.0, neutral)
        assert counts == (n, n, neutral)
        assert method.layer_macs(geometry, template(method), n, n, neutral) == 0
    assert method.neutral["retention"] == 1.0
    assert all(method.neutral[knob.name] == knob.neutral for knob in method.knobs)


@ALL
@MODELS
@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_its_layers_one_after_another(
    method: Method, geometry: Geometry, seed: int
) -> None:
    config = drawn(method, geometry, seed)
    tokens = token_counts(geometry, config)
    n = geometry.patch_tokens
    for layer in config.layers:
        assert tokens[layer.after_block - 1] == n + geometry.prefix_tokens
        knobs = method.knob_values(layer)
        kept, kept_by_rate, _ = method.layer_tokens(config, n, layer.retention, knobs)
        assert 1 <= kept <= kept_by_rate <= n
        n = kept
        assert tokens[layer.after_block] == n + geometry.prefix_tokens


@ALL
def test_more_retention_or_more_tokens_never_leave_fewer(method: Method) -> None:
    knobs = tuple(min(knob.neutral + 3, 5) for knob in method.knobs)
    for n in range(1, 60):
        kept = [
            method.layer_tokens(template(method), n, rate / 50, knobs)[0]
            for rate in range(1, 51)
        ]
        assert kept == sorted(kept)
    for rate in (0.3, 0.77, 1.0):
        kept = [method.layer_tokens(template(method), n, rate, knobs)[0] for n in range(1, 200)]
        assert kept == sorted(kept)


@ALL
@MODELS
def test_a_knob_moves_the_cost_the_way_it_says(method: Method, geometry: Geometry) -> None:
    """Of the layer and the blocks behind it together, as the decoder relies on it."""
    n, retention = geometry.patch_tokens, 0.7
    for k, knob in enumerate(method.knobs):
        costs = []
        for value in range(knob.neutral, 13):
            asked = [other.neutral for other in method.knobs]
            asked[k] = value
            kept, _, knobs = method.layer_tokens(template(method), n, retention, asked)
            behind = sum(
                (kept + geometry.prefix_tokens) * geometry.block_macs_per_token
                for _ in range(geometry.depth - 1)
            )
            costs.append(method.layer_macs(geometry, template(method), n, kept, knobs) + behind)
        # the first step of a knob that lowers the cost may switch a stage on, which costs
        moved = costs if knob.raises_cost else costs[1:]
        assert moved == sorted(moved, reverse=not knob.raises_cost)


@ALL
def test_more_than_the_tokens_allow_is_lowered_here_and_refused_there(method: Method) -> None:
    for knob in method.knobs:
        if knob.raises_cost:
            continue
        values = tuple(10_000 if each is knob else each.neutral for each in method.knobs)
        kept, _, knobs = method.layer_tokens(template(method), 50, 0.8, values)
        assert max(knobs) < 10_000 and kept >= 1
        with pytest.raises(ConfigError, match=f"{knob.name} must be .*10000"):
            method.check_layer(template(method), method.layer(1, 0.8, values), 50)


@ALL
def test_what_decides_nothing_is_not_part_of_the_identity(method: Method) -> None:
    config = drawn(method, DIGITS, 3)
    tokens = token_counts(DIGITS, config)
    assert method.identity(config, tokens) == method.identity(drawn(method, DIGITS, 3), tokens)
    other = drawn(method, DIGITS, 4)
    assert method.identity(other, token_counts(DIGITS, other)) != method.identity(config, tokens)
    idle = method.layer(2, 1.0, [knob.neutral for knob in method.knobs])
    layers = sorted([*config.layers, idle], key=lambda layer: layer.after_block)
    values = {name: getattr(config, name) for name in method.scales}
    longer = method.config(layers, values, {})
    assert method.identity(longer, token_counts(DIGITS, longer)) == method.identity(config, tokens)


@ALL
def test_the_tokens_that_are_left_are_as_many_as_asked_for(method: Method) -> None:
    generator = torch.Generator().manual_seed(0)
    n = DIGITS.tokens
    attention = torch.rand(2, DIGITS.heads, n, n, generator=generator).softmax(-1)
    features = torch.randn(2, n, 24, generator=generator)
    config = drawn(method, DIGITS, 5)
    layer = config.layers[0]
    left, _, _ = method.layer_tokens(
        config, DIGITS.patch_tokens, layer.retention, method.knob_values(layer)
    )
    kept = method.reduce(attention, features, config, layer, geometry=DIGITS, kept=left).layer
    assert kept.shape == (2, left + DIGITS.prefix_tokens)
    assert (kept.diff(dim=-1) > 0).all()  # in sequence order, none twice
    prefix = torch.arange(DIGITS.prefix_tokens)
    assert (kept[:, : DIGITS.prefix_tokens] == prefix).all()


@ALL
def test_a_table_has_a_cell_for_every_column(method: Method) -> None:
    data = drawn(method, DIGITS, 6).to_dict()
    for layer in data["layers"]:
        cells = method.cells(layer)
        assert len(cells) == len(method.columns) and all(isinstance(each, str) for each in cells)
    assert all(name in method.heading(data) for name in method.scales)
