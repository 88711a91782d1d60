"""What every method must keep to; a new one joins by its line in `METHODS`."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
from typing import Any

import pytest
import torch
from helpers import reference
from helpers.geometries import DIGITS, GEOMETRIES, size_of

from ztp_search.errors import ConfigError
from ztp_search.pruning.config import CHOICES, PruningConfig, PruningLayer
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.methods import (
    DEFAULT_METHOD,
    METHODS,
    Method,
    Sight,
    method_of,
    parse_config,
)
from ztp_search.pruning.tokens import token_counts
from ztp_search.space import BlockSpace

ALL = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
MODELS = pytest.mark.parametrize("geometry", GEOMETRIES, ids=size_of)
SCALES = {"low": 0.01, "high": 10.0}


def template(method: Method, variants: dict[str, str] | None = None) -> PruningConfig:
    values = dict(zip(method.scales, sorted(SCALES.values()), strict=False))
    return method.config((), values, variants or {})


def any_variant(method: Method, rng: random.Random) -> PruningConfig:
    return template(method, {name: rng.choice(values) for name, values in method.choices.items()})


def ranges(block: int = 1, **stated: Any) -> BlockSpace:
    """A little of everything that a layer may be, and what is stated."""
    every: dict[str, Any] = {
        "retention": (0.5, 1.0), "s_tokens": (0, 12), "wpr_iterations": (1, 12),
        "merge_share": (0.0, 1.0),
    }  # fmt: skip
    return BlockSpace(block, **{**every, **stated})


def any_ranges(rng: random.Random, patch_tokens: int) -> BlockSpace:
    """Ranges that a model of so many patch tokens can have: wide, narrow and single values."""

    def between(low: int, high: int) -> tuple[int, int]:
        first, second = sorted(rng.choice([low, high, rng.randint(low, high)]) for _ in range(2))
        return first, second

    def share(low: int, high: int, unit: int) -> tuple[float, float]:
        first, second = between(low, high)
        return first / unit, second / unit

    most = rng.choice([patch_tokens // 4, patch_tokens // 2, 10**6])
    least, _ = between(0, patch_tokens // 2)
    return ranges(
        rng.randint(1, 11),
        retention=share(3_000, 10_000, 10_000),
        s_tokens=(min(least, most), most),
        wpr_iterations=between(1, 30),
        merge_share=share(0, 100, 100),
        kept=share(500, 10_000, 10_000),
    )


def any_coordinates(method: Method, space: BlockSpace, rng: random.Random) -> tuple[int, ...]:
    return tuple(rng.randint(*method.range(space, each.name)) for each in method.coordinates)


def drawn(method: Method, geometry: Geometry, seed: int) -> PruningConfig:
    """A configuration of any variant with layers behind every other block, as the tokens allow."""
    rng = random.Random(seed)
    config = any_variant(method, rng)
    layers, n = [], geometry.patch_tokens
    for block in range(1, geometry.depth, 2):
        space = ranges(block)
        share = rng.uniform(*method.shares(space, geometry.patch_tokens))
        kept, values = method.plan(config, space, n, share, any_coordinates(method, space, rng))
        layer = method.layer(space, n, kept, values)
        if layer is not None:
            layers.append(layer)
            n = kept
    assert len(layers) > 2
    return with_layers(method, config, layers)


def with_layers(
    method: Method, config: PruningConfig, layers: list[PruningLayer], **variants: str
) -> PruningConfig:
    """Its other layers, and what else is stated."""
    scales = {name: getattr(config, name) for name in method.scales}
    names = {name: getattr(config, name) for name in method.choices}
    return method.config(layers, scales, {**names, **variants})


def neutral_layer(method: Method, block: int) -> PruningLayer:
    return PruningLayer(block, **method.neutral)


# --- what a configuration is -----------------------------------------------------------------


@ALL
def test_it_has_the_name_that_it_is_found_by(method: Method) -> None:
    assert METHODS[method.name] is method
    assert method_of(template(method)) is method


@ALL
def test_the_first_of_its_choices_are_the_default(method: Method) -> None:
    for name, values in method.choices.items():
        assert getattr(template(method), name) == values[0]
        for value in values:
            assert getattr(template(method, {name: value}), name) == value
    for name in method.scales:
        assert getattr(template(method), name) in SCALES.values()


@ALL
@MODELS
def test_the_json_form_is_read_back_as_it_was(method: Method, geometry: Geometry) -> None:
    for seed in range(10):
        config = drawn(method, geometry, seed)
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
def test_what_decides_nothing_is_not_part_of_the_identity(method: Method) -> None:
    config = drawn(method, DIGITS, 3)
    tokens = token_counts(DIGITS, config)
    assert method.identity(config, tokens) == method.identity(drawn(method, DIGITS, 3), tokens)
    other = drawn(method, DIGITS, 4)
    assert method.identity(other, token_counts(DIGITS, other)) != method.identity(config, tokens)
    layers = sorted([*config.layers, neutral_layer(method, 2)], key=lambda layer: layer.after_block)
    longer = with_layers(method, config, layers)
    assert method.identity(longer, token_counts(DIGITS, longer)) == method.identity(config, tokens)


@ALL
def test_what_decides_a_result_is_part_of_the_identity(method: Method) -> None:
    configs = {drawn(method, DIGITS, seed) for seed in range(40)}
    assert len(configs) == 40
    assert len({method.identity(each, token_counts(DIGITS, each)) for each in configs}) == 40


# --- how many tokens, at what cost -----------------------------------------------------------


@ALL
@MODELS
def test_neutral_values_prune_nothing_cost_nothing_and_look_at_nothing(
    method: Method, geometry: Geometry
) -> None:
    layer = neutral_layer(method, 1)
    assert method.neutral == {"retention": 1.0, **method.fields}
    assert method.values(layer) == tuple(method.fields.values())
    rng = random.Random(0)
    for n in range(1, geometry.patch_tokens + 1):
        config = any_variant(method, rng)
        assert method.kept(config, layer, n) == n
        assert method.layer_macs(geometry, config, n, n, method.values(layer)) == 0
        assert method.looks_at(config, layer, n, n) == Sight(False, None)


@ALL
@MODELS
def test_a_cost_is_a_whole_number_that_is_never_negative(
    method: Method, geometry: Geometry
) -> None:
    for seed in range(20):
        config = drawn(method, geometry, seed)
        n = geometry.patch_tokens
        for layer in config.layers:
            kept = method.kept(config, layer, n)
            macs = method.layer_macs(geometry, config, n, kept, method.values(layer))
            assert type(macs) is int and macs >= 0
            n = kept


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
        kept = method.kept(config, layer, n)
        assert 1 <= kept <= n
        n = kept
        assert tokens[layer.after_block] == n + geometry.prefix_tokens


@ALL
@pytest.mark.parametrize("seed", range(20))
def test_every_token_that_a_layer_takes_out_meets_one_fate(method: Method, seed: int) -> None:
    config = drawn(method, DIGITS, seed)
    tokens = token_counts(DIGITS, config)
    for layer in config.layers:
        arriving, left = (tokens[layer.after_block - 1 + i] - DIGITS.prefix_tokens for i in (0, 1))
        fates = method.taken_out(config, layer, arriving, left)
        assert len(fates) == len(method.fates) and min(fates) >= 0
        assert sum(fates) == arriving - left


def test_the_fates_of_tokens_by_hand() -> None:
    layer = PruningLayer(3, retention=0.7, s_tokens=10, merge_share=0.25)  # of 100: 60 are left
    zero_tprune = METHODS["zero-tprune"]
    assert zero_tprune.taken_out(PruningConfig((layer,)), layer, 100, 60) == (10, 0, 22, 8)
    merging = PruningConfig((layer,), similar="merge")
    assert zero_tprune.taken_out(merging, layer, 100, 60) == (0, 10, 22, 8)


@ALL
def test_more_retention_or_more_tokens_never_leave_fewer(method: Method) -> None:
    values = {name: min(value + 3, 5) if isinstance(value, int) else value
              for name, value in method.fields.items()}  # fmt: skip
    for n in range(24, 60):
        kept = [
            method.kept(template(method), PruningLayer(1, rate / 50, **values), n)
            for rate in range(1, 51)
        ]
        assert kept == sorted(kept)
    for rate in (0.3, 0.77, 1.0):
        layer = PruningLayer(1, rate, **values)
        kept = [method.kept(template(method), layer, n) for n in range(24, 200)]
        assert kept == sorted(kept)


# --- what a search draws ---------------------------------------------------------------------


@ALL
def test_a_coordinate_is_a_range_of_whole_numbers(method: Method) -> None:
    names = [each.name for each in method.coordinates]
    assert len(set(names)) == len(names) and "kept" not in names
    rng = random.Random(1)
    for _ in range(200):
        space = any_ranges(rng, 100)
        for name in names:
            low, high = method.range(space, name)
            assert type(low) is int and type(high) is int and low <= high


@ALL
def test_a_larger_share_never_keeps_fewer(method: Method) -> None:
    rng = random.Random(2)
    for _ in range(300):
        space, config = any_ranges(rng, 100), any_variant(method, rng)
        n, coordinates = rng.randint(1, 100), any_coordinates(method, space, rng)
        kept = [
            method.plan(config, space, n, share / 100, coordinates)[0] for share in range(1, 101)
        ]
        assert kept == sorted(kept), (space, config, n, coordinates)
        assert 1 <= kept[0] and kept[-1] <= n


@ALL
def test_the_most_and_least_that_a_layer_keeps_are_kept_at_the_ends(method: Method) -> None:
    """To within the token that rounding moves, in the default variant."""
    rng, config = random.Random(3), template(method)
    tried = 0
    while tried < 500:
        n = rng.choice([16, 49, 100, 196])
        space = any_ranges(rng, n)
        low, high = method.shares(space, n)
        if low > high:  # such ranges hold no layer, and their space is refused
            continue
        tried += 1
        for share in (low, (low + high) / 2, high):
            kept, _ = method.plan(config, space, n, share, any_coordinates(method, space, rng))
            assert abs(kept - max(1.0, share * n)) <= 1.0, (space, n, share, kept)
            assert space.kept[0] * n - 1 <= kept <= max(1, space.kept[1] * n + 1)


@ALL
def test_a_planned_layer_lies_in_its_ranges_and_keeps_what_was_planned(method: Method) -> None:
    rng = random.Random(4)
    made = 0
    for _ in range(3_000):
        patch_tokens = rng.choice([16, 49, 100, 196])
        n = rng.choice([patch_tokens, rng.randint(1, patch_tokens)])
        space, config = any_ranges(rng, patch_tokens), any_variant(method, rng)
        kept, values = method.plan(
            config, space, n, rng.uniform(0.01, 1.0), any_coordinates(method, space, rng)
        )
        assert len(values) == len(method.fields)
        layer = method.layer(space, n, kept, values)
        if layer is None:
            continue
        made += 1
        assert layer.after_block == space.block
        assert method.values(layer) == values
        for name in ("retention", *method.fields):
            low, high = getattr(space, name)
            assert low - 1e-9 <= getattr(layer, name) <= high + 1e-9, (name, space, n, layer)
        assert method.kept(config, layer, n) == kept, (space, config, n, layer)
    assert made > 1_200


# --- the tokens ------------------------------------------------------------------------------


def activations(geometry: Geometry, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    n = geometry.tokens
    logits = 2.0 * torch.randn(2, geometry.heads, n, n, generator=generator)
    return logits.softmax(-1), torch.randn(2, n, 24, generator=generator)


@ALL
def test_the_tokens_that_are_left_are_as_many_as_asked_for(method: Method) -> None:
    attention, features = activations(DIGITS, 0)
    for seed in range(20):
        config = drawn(method, DIGITS, seed)
        layer = config.layers[0]
        left = method.kept(config, layer, DIGITS.patch_tokens)
        kept = method.reduce(attention, features, config, layer, geometry=DIGITS, kept=left).layer
        assert kept.shape == (2, left + DIGITS.prefix_tokens)
        assert (kept.diff(dim=-1) > 0).all()  # in sequence order, none twice
        prefix = torch.arange(DIGITS.prefix_tokens)
        assert (kept[:, : DIGITS.prefix_tokens] == prefix).all()


@ALL
def test_what_a_layer_does_not_ask_to_see_it_does_not_need(method: Method) -> None:
    attention, features = activations(DIGITS, 1)
    rng = random.Random(5)
    seen = set()
    for _ in range(200):
        config, space = any_variant(method, rng), ranges(1, retention=(0.9, 1.0))
        coordinates = any_coordinates(method, space, rng)
        share = rng.choice([0.85, 0.9, 0.95, 0.99])
        n = DIGITS.patch_tokens
        kept, values = method.plan(config, space, n, share, coordinates)
        layer = method.layer(space, n, kept, values)
        assert layer is not None
        sight = method.looks_at(config, layer, n, kept)
        seen.add((sight.attention, sight.features is not None))
        everything = method.reduce(attention, features, config, layer, geometry=DIGITS, kept=kept)
        asked_for = method.reduce(
            attention if sight.attention else None,
            None if sight.features is None else features,
            config, layer, geometry=DIGITS, kept=kept,
        )  # fmt: skip
        for name in ("layer", "after_s", "after_i", "fallback"):
            assert torch.equal(getattr(asked_for, name), getattr(everything, name))
        assert (asked_for.merged is None) == (everything.merged is None)
        if asked_for.merged is not None and everything.merged is not None:
            assert torch.equal(asked_for.merged.tokens, everything.merged.tokens)
            assert torch.equal(asked_for.merged.into, everything.merged.into)
    assert len(seen) > 1


# --- what people see -------------------------------------------------------------------------


@ALL
def test_a_table_has_a_cell_for_every_column(method: Method) -> None:
    for seed in range(10):
        data = drawn(method, DIGITS, seed).to_dict()
        for layer in data["layers"]:
            cells = method.cells(layer)
            assert len(cells) == len(method.columns)
            assert all(isinstance(each, str) for each in cells)
        assert all(name in method.heading(data) for name in method.scales)


# --- Zero-TPrune -----------------------------------------------------------------------------

ZTP = METHODS[DEFAULT_METHOD]


def s_tokens_by_kept(space: BlockSpace, order: str, n: int) -> dict[int, list[int]]:
    """Every number of tokens that a layer within `space` may keep of n, and by which s."""
    low, high = (reference.round_half_up(rate, n) for rate in space.retention)
    found: dict[int, list[int]] = {}
    for by_rate in range(low, high + 1):
        half = (n if order == "i'-s-i" else by_rate) // 2
        for s in range(space.s_tokens[0], min(space.s_tokens[1], half) + 1):
            if s < by_rate:
                found.setdefault(by_rate - s, []).append(s)
    return found


@pytest.mark.parametrize("order", CHOICES["order"])
def test_the_s_stage_takes_from_the_least_to_the_most_that_its_ranges_allow(order: str) -> None:
    rng, config = random.Random(6), template(ZTP, {"order": order})
    possible = 0
    for _ in range(2_000):
        n, share = rng.randint(1, 60), rng.uniform(0.01, 1.0)
        space = any_ranges(rng, n)
        allowed = s_tokens_by_kept(space, order, n)
        plans = [ZTP.plan(config, space, n, share, (s_share, 5, 0)) for s_share in (0, 500, 1000)]
        where = (space, n, share, plans)
        if not allowed:
            assert all(ZTP.layer(space, n, *plan) is None for plan in plans), where
            continue
        possible += 1
        nearest = min(allowed, key=lambda kept: abs(kept - reference.round_half_up(share, n)))
        assert [kept for kept, _ in plans] == [nearest] * 3, where
        least, between, most = (values[0] for _, values in plans)
        assert (least, most) == (min(allowed[nearest]), max(allowed[nearest])), where
        assert between == (least + most + 1) // 2
        bounds = [max(1, reference.round_half_up(end, n)) for end in space.kept]
        inside = bounds[0] <= nearest <= bounds[1]
        assert all((ZTP.layer(space, n, *plan) is not None) == inside for plan in plans), where
    assert possible > 1_000


def test_a_plan_by_hand() -> None:
    # 0.62 of 50 tokens is 31: 19 go. At least 0.7 * 50 = 35 stay for the rate, so 4 or more of
    # them go by similarity, and at most the 15 that are stated; 36 % of the way is 7.96.
    space = ranges(retention=(0.7, 1.0), s_tokens=(2, 15))
    plan = ZTP.plan(template(ZTP), space, 50, 0.62, (360, 7, 35))
    assert plan == (31, (8, 7, 0.35))
    assert ZTP.layer(space, 50, *plan) == PruningLayer(1, 0.78, 8, 7, 0.35)  # 39 of 50 by rate
    # 0.3 of 50, 15, is out of reach: 35 - 15 = 20 is the least, all 15 of it by similarity
    plan = ZTP.plan(template(ZTP), space, 50, 0.3, (0, 7, 35))
    assert plan == (20, (15, 7, 0.35))
    # and no more than 50 - 2 stay
    assert ZTP.plan(template(ZTP), space, 50, 1.0, (1000, 1, 0)) == (48, (2, 1, 0.0))


def test_more_than_the_tokens_allow_is_lowered_here_and_refused_there() -> None:
    # of 50, I'-S-I ranks all; 0.8 leave 40 for the S-stage of I-S
    for order, half in (("i'-s-i", 25), ("i-s", 20)):
        config = template(ZTP, {"order": order})
        space = ranges(retention=(0.8, 0.8), s_tokens=(0, 10_000))
        kept, (s_tokens, *_) = ZTP.plan(config, space, 50, 0.01, (1000, 1, 0))
        assert (kept, s_tokens) == (40 - half, half)
        for asked in (half + 1, 10_000):
            with pytest.raises(ConfigError, match=f"s_tokens must be .*{asked}.*{half}"):
                ZTP.kept(config, PruningLayer(1, 0.8, asked), 50)


def test_a_layer_looks_at_attention_where_it_ranks_and_at_features_where_it_compares() -> None:
    n = 100
    for partition, order, features, similar in itertools.product(
        CHOICES["partition"], CHOICES["order"], CHOICES["features"], CHOICES["similar"]
    ):
        config = template(
            ZTP,
            {"partition": partition, "order": order, "features": features, "similar": similar},
        )
        ranked = partition != "position"
        for layer, expected in [
            (PruningLayer(1, 1.0, 0, 5, 1.0), Sight(False, None)),
            (PruningLayer(1, 1.0, 8, 5, 1.0), Sight(ranked, features)),  # S alone
            (PruningLayer(1, 0.9, 8, 5), Sight(True, features)),
            (PruningLayer(1, 0.9, 0, 5), Sight(True, None)),  # I alone, which drops
            (PruningLayer(1, 0.9, 0, 5, 0.04), Sight(True, None)),  # 0.4 of 10: none is merged
            (PruningLayer(1, 0.9, 0, 5, 0.05), Sight(True, features)),  # half a token is one
            (PruningLayer(1, 0.9, 0, 5, 1.0), Sight(True, features)),
        ]:
            kept = ZTP.kept(config, layer, n)
            assert ZTP.looks_at(config, layer, n, kept) == expected, (config, layer)


def test_sizes_are_tracked_where_that_is_said() -> None:
    assert not ZTP.tracks_sizes(template(ZTP))
    assert ZTP.tracks_sizes(template(ZTP, {"sizes": "track"}))


def identity(config: PruningConfig) -> tuple[object, ...]:
    return ZTP.identity(config, token_counts(DIGITS, config))


def test_what_merges_nothing_is_not_part_of_the_identity() -> None:
    rate, similarity = PruningLayer(2, 0.9, 0, 3), PruningLayer(4, 1.0, 5, 3)
    config = PruningConfig((rate, similarity))

    def merging(share: float, by_s: float = 0.0, **variants: str) -> PruningConfig:
        layers = (
            dataclasses.replace(rate, merge_share=share),
            dataclasses.replace(similarity, merge_share=by_s),
        )
        return PruningConfig(layers, **variants)

    same = [
        merging(0.04),  # of 10 tokens: none
        merging(0.0, 1.0),  # of the none that the I-stage prunes there
        merging(0.0, sizes="track"),  # all sizes are 1
    ]
    assert {identity(each) for each in same} == {identity(config)}
    other = [
        merging(0.05), merging(0.5), merging(1.0), merging(1.0, sizes="track"),
        merging(0.0, similar="merge"), merging(0.0, similar="merge", sizes="track"),
    ]  # fmt: skip
    assert len({identity(each) for each in [config, *other]}) == 1 + len(other)
    assert identity(merging(0.46)) == identity(merging(0.5))  # 5 of 10


def test_a_file_from_before_merging_has_a_cell_for_it() -> None:
    layer = {"after_block": 3, "retention": 0.8, "s_tokens": 10, "wpr_iterations": 5}
    assert ZTP.cells(layer) == ("0.8000", "10", "5", "0.00")
    assert ZTP.cells({**layer, "merge_share": 0.5}) == ("0.8000", "10", "5", "0.50")
