"""The hand-set schedules, solved to a budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.geometries import (
    DEEP,
    DEIT_B,
    DEIT_S,
    DEIT_T,
    DIGITS,
    DISTILLED,
    POOLED,
    budget_of,
    counts_by_hand,
    macs_by_hand,
    size_of,
    unpruned,
    vit,
)

from ztp_search.pruning.budget import Budget
from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.schedules import BASELINES, SHAPES, paper_schedule, tome_schedule
from ztp_search.pruning.tokens import token_counts

GOLDEN = json.loads((Path(__file__).parents[1] / "facts" / "flops_golden.json").read_text())
TABLE_1 = next(c for c in GOLDEN["table1"]["cases"] if c["name"] == "I-stage + S-stage")
BIG = [DEIT_T, DEIT_S, DEIT_B, POOLED, DISTILLED, DEEP]


def macs(geometry: Geometry, config: PruningConfig, counts: str) -> int:
    backbone, overhead = macs_by_hand(geometry, config)
    return backbone + overhead if counts == "total" else backbone


def test_the_schedule_is_the_papers_at_the_papers_budget() -> None:
    columns = ("after_block", "rates", "s_tokens", "wpr_iterations")
    rows = zip(*(TABLE_1[column] for column in columns), strict=True)
    published = PruningConfig(tuple(PruningLayer(*row) for row in rows))
    exact = macs(DEIT_S, published, "backbone")
    assert round(exact / 1e9, 4) == TABLE_1["gflops"]  # 3.0826, and 40,640 more
    config = paper_schedule(DEIT_S, Budget(exact, counts="backbone"), "declining")
    assert config is not None
    assert counts_by_hand(DEIT_S, config) == counts_by_hand(DEIT_S, published)
    layers = config.layers
    assert [layer.after_block for layer in layers] == TABLE_1["after_block"]
    assert [layer.s_tokens for layer in layers] == TABLE_1["s_tokens"]
    assert [layer.wpr_iterations for layer in layers] == TABLE_1["wpr_iterations"]
    for layer, rate in zip(layers, TABLE_1["rates"], strict=True):
        assert layer.retention == pytest.approx(rate, abs=0.002)


def test_the_scoring_is_the_methods_default() -> None:
    config = paper_schedule(DEIT_S, Budget(3_080_000_000), "declining")
    assert config is not None
    assert config == PruningConfig(config.layers)


@pytest.mark.parametrize("counts", ["total", "backbone"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("geometry", BIG, ids=size_of)
def test_the_budget_is_kept_and_used(geometry: Geometry, shape: str, counts: str) -> None:
    for percent in range(45, 96, 2):
        budget = budget_of(geometry, percent / 100, counts)
        config = paper_schedule(geometry, budget, shape)
        assert config is not None
        assert 0.99 * budget.macs <= macs(geometry, config, counts) <= budget.macs, percent


@pytest.mark.parametrize("shape", SHAPES)
def test_the_budget_is_kept_on_a_small_model(shape: str) -> None:
    for percent in range(46, 101, 2):
        budget = budget_of(DIGITS, percent / 100)
        config = paper_schedule(DIGITS, budget, shape)
        assert config is not None
        assert macs(DIGITS, config, "total") <= budget.macs


@pytest.mark.parametrize("geometry", [*BIG, DIGITS], ids=size_of)
def test_rates_have_the_shape_and_only_whole_tokens_break_it(geometry: Geometry) -> None:
    for percent in (50, 60, 70, 80):
        budget = budget_of(geometry, percent / 100)
        for shape in SHAPES:
            config = paper_schedule(geometry, budget, shape)
            assert config is not None
            first, *rates, last = (layer.retention for layer in config.layers)
            assert first == last == 1.0  # no I-stage in the first and the last layer
            step = 1 - rates[0]
            assert step > 0
            if shape == "declining":
                assert 1 - rates[1] == pytest.approx(2 * step, abs=1e-9)
                assert 3 * step + 1e-9 >= 1 - rates[2] > 2 * step
            else:
                assert rates[1] == rates[0]
                assert 0 < 1 - rates[2] <= step + 1e-9


def test_layers_keep_their_relative_depth() -> None:
    for geometry, blocks in (
        (DEEP, [2, 6, 12, 18, 22]),
        (DIGITS, [1, 2, 4, 6, 7]),  # 8 / 12, 24 / 12, 48 / 12, 72 / 12, 88 / 12 = 7.33
    ):
        config = paper_schedule(geometry, budget_of(geometry, 0.7), "declining")
        assert config is not None
        assert [layer.after_block for layer in config.layers] == blocks


def test_s_keeps_its_share_of_the_tokens() -> None:
    # 10 of 196: 5.1 of 100
    config = paper_schedule(DIGITS, budget_of(DIGITS, 0.6), "declining")
    assert config is not None
    assert [layer.s_tokens for layer in config.layers] == [5] * 5


def test_a_generous_budget_lowers_s() -> None:
    # Ten by similarity in each of five layers alone cost less than 95 % of the unpruned model.
    s_tokens = []
    for percent in (70, 92, 95, 97, 99):
        budget = budget_of(DEIT_S, percent / 100)
        config = paper_schedule(DEIT_S, budget, "declining")
        assert config is not None
        assert 0.99 * budget.macs <= macs(DEIT_S, config, "total") <= budget.macs
        values = {layer.s_tokens for layer in config.layers}
        assert len(values) == 1
        s_tokens.append(values.pop())
    assert s_tokens == sorted(s_tokens, reverse=True)
    assert s_tokens[0] == 10 and s_tokens[-1] < 5


def test_a_budget_of_the_whole_model_prunes_nothing() -> None:
    for budget in (Budget(unpruned(DEIT_S)), Budget(2 * unpruned(DEIT_S))):
        config = paper_schedule(DEIT_S, budget, "constant")
        assert config is not None
        assert token_counts(DEIT_S, config) == (197,) * 13


def test_a_larger_budget_prunes_no_more() -> None:
    left = []
    for percent in range(45, 90, 3):
        config = paper_schedule(DEIT_S, budget_of(DEIT_S, percent / 100), "declining")
        assert config is not None
        left.append(config.layers[1].retention)
    assert left == sorted(left)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_schedule_for_what_cannot_be_met(shape: str) -> None:
    assert paper_schedule(DEIT_S, budget_of(DEIT_S, 0.05), shape) is None
    for depth in (1, 2, 3, 4, 5):  # five layers need five places before the last block
        shallow = vit(depth, 3, 192, 196)
        assert paper_schedule(shallow, budget_of(shallow, 0.8), shape) is None


@pytest.mark.parametrize("shape", SHAPES)
def test_few_tokens_are_no_obstacle(shape: str) -> None:
    tiny = vit(12, 3, 192, 9)
    for percent in range(30, 101, 5):
        budget = budget_of(tiny, percent / 100)
        config = paper_schedule(tiny, budget, shape)
        if config is not None:
            assert macs(tiny, config, "total") <= budget.macs
            assert counts_by_hand(tiny, config)[-1][1] >= 1


# --- ToMe's -----------------------------------------------------------------------------------


def merged_behind(config: PruningConfig, geometry: Geometry) -> list[int]:
    """Tokens merged behind every block but the last."""
    by_block = {layer.after_block: layer.s_tokens for layer in config.layers}
    return [by_block.get(block, 0) for block in range(1, geometry.depth)]


@pytest.mark.parametrize("shape", BASELINES["tome"].shapes)
def test_tome_merges_by_position_and_nothing_else(shape: str) -> None:
    config = tome_schedule(DEIT_S, budget_of(DEIT_S, 0.7), shape)
    assert config is not None
    assert (config.similar, config.sizes) == ("merge", "track")
    assert (config.partition, config.features) == ("position", "key")
    for layer in config.layers:
        assert (layer.retention, layer.merge_share) == (1.0, 0.0) and layer.s_tokens > 0


@pytest.mark.parametrize("counts", ["total", "backbone"])
@pytest.mark.parametrize("shape", BASELINES["tome"].shapes)
@pytest.mark.parametrize("geometry", [*BIG, DIGITS], ids=size_of)
def test_tome_keeps_the_budget_and_uses_it(
    geometry: Geometry, shape: str, counts: str
) -> None:
    for percent in range(40, 98, 3):
        budget = budget_of(geometry, percent / 100, counts)
        config = tome_schedule(geometry, budget, shape)
        assert config is not None
        assert macs(geometry, config, counts) <= budget.macs
        assert macs(geometry, config, counts) >= 0.985 * budget.macs


@pytest.mark.parametrize("geometry", [DEIT_S, DIGITS, DEEP], ids=size_of)
def test_tomes_r_is_constant_or_falls_from_twice_its_mean_to_none(geometry: Geometry) -> None:
    budget = budget_of(geometry, 0.7)
    constant = tome_schedule(geometry, budget, "constant")
    declining = tome_schedule(geometry, budget, "declining")
    assert constant is not None and declining is not None
    merged = merged_behind(constant, geometry)
    assert max(merged) - min(merged) <= 1
    merged = merged_behind(declining, geometry)
    mean, last = sum(merged) / len(merged), len(merged) - 1
    for index, count in enumerate(merged):
        assert abs(count - 2 * mean * (1 - index / last)) <= 1.5


def test_tome_takes_at_most_half_of_the_tokens_of_a_block() -> None:
    config = tome_schedule(DIGITS, budget_of(DIGITS, 0.3), "constant")
    assert config is not None
    for layer, (n, kept) in zip(config.layers, counts_by_hand(DIGITS, config), strict=True):
        assert kept == n - layer.s_tokens and layer.s_tokens <= n // 2


def test_tome_is_none_where_half_of_the_tokens_are_too_few() -> None:
    for shape in BASELINES["tome"].shapes:
        assert tome_schedule(DIGITS, budget_of(DIGITS, 0.05), shape) is None


def test_tome_merges_nothing_where_the_budget_asks_for_nothing() -> None:
    config = tome_schedule(DEIT_S, budget_of(DEIT_S, 1.0), "constant")
    assert config is not None and config.layers == ()
