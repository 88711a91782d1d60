"""Counts and costs against published totals and sums done by hand."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers import reference
from helpers.geometries import GEOMETRIES, macs_by_hand, size_of
from helpers.random_configs import random_config
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer

from ztp_search import backbones
from ztp_search.errors import ConfigError
from ztp_search.pruning import cost
from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.pruning.geometry import Geometry, backbone_macs
from ztp_search.pruning.rounding import round_half_up
from ztp_search.pruning.tokens import token_counts

FACTS = Path(__file__).parents[1] / "facts"
GOLDEN = json.loads((FACTS / "flops_golden.json").read_text())
DIFFRATE = json.loads((FACTS / "diffrate_schedules.json").read_text())


@pytest.fixture(scope="module")
def deit() -> Callable[[str], Geometry]:
    """Geometry of a DeiT by name; made without weights, once."""
    made: dict[str, Geometry] = {}

    def geometry(name: str) -> Geometry:
        if name not in made:
            with torch.device("meta"):
                made[name] = backbones.geometry_of(timm.create_model(name, pretrained=False))
        return made[name]

    return geometry


# --- published figures -----------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDEN["unpruned"])
def test_unpruned_totals_are_the_published_ones(
    deit: Callable[[str], Geometry], name: str
) -> None:
    unpruned = cost.flops(deit(name), PruningConfig())
    assert unpruned.total == unpruned.backbone == unpruned.unpruned == GOLDEN["unpruned"][name]
    assert unpruned.overhead == 0
    assert unpruned.tokens == (197,) * 13


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: str(case["flops"]))
def test_published_schedules_cost_the_published_totals(
    deit: Callable[[str], Geometry], case: dict[str, Any]
) -> None:
    # These published counts round down and run WPR on one matrix, the mean over heads.
    rates = dict(zip(case["after_block"], case["rates"], strict=True))
    patches, tokens, wpr = 196, [197], 0
    for block in range(1, 13):
        if block in rates:
            wpr += case["wpr_iterations"] * (patches + 1) ** 2
            patches = math.floor(rates[block] * patches + 1e-9)
        tokens.append(patches + 1)
    assert backbone_macs(deit(case["model"]), tokens) + wpr == case["flops"]


@pytest.mark.parametrize("case", GOLDEN["table1"]["cases"], ids=lambda case: str(case["name"]))
def test_both_published_deit_s_settings_cost_what_the_paper_prints(
    deit: Callable[[str], Geometry], case: dict[str, Any]
) -> None:
    columns = ("after_block", "rates", "s_tokens", "wpr_iterations")
    config = PruningConfig(
        tuple(PruningLayer(*row) for row in zip(*(case[name] for name in columns), strict=True))
    )
    pruned = cost.flops(deit("deit_small_patch16_224"), config)
    assert round(pruned.backbone / 1e9, 4) == case["gflops"]
    assert f"{pruned.backbone / 1e9:.2f}" == str(case["paper_prints"])
    assert pruned.tokens == reference.token_counts(12, 196, 1, config)


def test_token_counts_of_the_published_setting_by_hand() -> None:
    # 196 - 10 = 186; round(167.4) - 10 = 157; round(125.6) - 10 = 116; round(81.2) - 10 = 71;
    # 71 - 10 = 61; one class token more each.
    layers = [(1, 1.0, 10), (3, 0.9, 10), (6, 0.8, 10), (9, 0.7, 10), (11, 1.0, 10)]
    config = PruningConfig(tuple(PruningLayer(*layer) for layer in layers))
    geometry = Geometry(12, 6, 384, 384, 196, 1, True, 1, 1, 0, 0, 0)
    assert token_counts(geometry, config) == (
        197, 187, 187, 158, 158, 158, 117, 117, 117, 72, 72, 62, 62,
    )  # fmt: skip


# --- by hand ---------------------------------------------------------------------------------

# Two blocks of width 8 with two heads of 4, mlp ratio 2, four patches of 8 x 8 and a class token.
#   stem: 4 patches * (3 * 8 * 8) * 8                                   = 6144
#   block, per token: qkv 8 * 24 + proj 8 * 8 + mlp 2 * 8 * 16 + norms 2 * 5 * 8 = 592
#   block, per pair of tokens: 2 * 8 (Q K^T and A V)                     = 16
#   tail: norm 5 * 8 per token; head 8 * 3                               = 40 per token, 24
TINY = Geometry(
    depth=2, heads=2, embed_dim=8, attn_dim=8, patch_tokens=4, prefix_tokens=1, class_token=True,
    block_macs_per_token=592, block_macs_per_pair=16,
    stem_macs=6144, tail_macs_per_token=40, tail_macs=24,
)  # fmt: skip


def tiny() -> VisionTransformer:
    return VisionTransformer(
        img_size=16, patch_size=8, embed_dim=8, depth=2, num_heads=2, mlp_ratio=2, num_classes=3
    )


@pytest.mark.parametrize(
    ("layer", "variant", "tokens", "overhead"),
    [
        # I': 2 heads * 5 * 5 = 50; similarity: 2 * 2 pairs * 8 = 32; no I-stage
        (PruningLayer(1, 1.0, 2, 3), {}, (5, 3, 3), 82),
        # I-stage as well: round(3.0) - 1 = 2 left of 3; 3 iterations on the 5 tokens = 150
        (PruningLayer(1, 0.75, 1, 3), {}, (5, 3, 3), 232),
        # the I-stage alone, 3 left
        (PruningLayer(1, 0.75, 0, 3), {}, (5, 4, 4), 150),
        # I first: 3 iterations; S compares 1 * 2 of the 3 left: 16
        (PruningLayer(1, 0.75, 1, 3), {"order": "i-s"}, (5, 3, 3), 166),
        # absolute differences are no multiply-adds
        (PruningLayer(1, 1.0, 2, 3), {"metric": "manhattan"}, (5, 3, 3), 50),
        (PruningLayer(1, 1.0, 0, 3), {}, (5, 5, 5), 0),
        (PruningLayer(1, 1.0, 0, 3, 1.0), {"similar": "merge"}, (5, 5, 5), 0),
        # by position nothing is ranked for the S-stage: its 2 * 2 pairs alone, 32
        (PruningLayer(1, 1.0, 2, 3), {"partition": "position"}, (5, 3, 3), 32),
        (PruningLayer(1, 1.0, 2, 3), {"partition": "position", "order": "i-s"}, (5, 3, 3), 32),
        # the I-stage's 3 iterations, 150, as well
        (PruningLayer(1, 0.75, 1, 3), {"partition": "position"}, (5, 3, 3), 182),
        (PruningLayer(1, 0.75, 1, 3), {"partition": "position", "order": "i-s"}, (5, 3, 3), 166),
        # 2 merged into 2 patch tokens and a prefix token, all of width 8: 2 * 3 * 8 = 48 more
        (PruningLayer(1, 1.0, 2, 3), {"similar": "merge"}, (5, 3, 3), 130),
        # I merges 1 into one of 3: 1 * 3 pairs are 24, the means 1 * 4 * 8 = 32; WPR 150
        (PruningLayer(1, 0.75, 0, 3, 1.0), {}, (5, 4, 4), 206),
        # and where it is not merged after all, 0.4 of 1: none is compared
        (PruningLayer(1, 0.75, 0, 3, 0.4), {}, (5, 4, 4), 150),
        # of 2, half a token is 1: both are compared with 2, 32, and one is merged, 1 * 3 * 8 = 24
        (PruningLayer(1, 0.5, 0, 3, 0.25), {}, (5, 3, 3), 206),
        # absolute differences are no multiply-adds, means are
        (PruningLayer(1, 0.5, 0, 3, 0.25), {"metric": "manhattan"}, (5, 3, 3), 174),
        # both: I' 50, S 32, I 150 and 1 * 2 pairs with those left, 16; the means of 2, 48
        (PruningLayer(1, 0.75, 1, 3, 1.0), {"similar": "merge"}, (5, 3, 3), 296),
        # I first: 150 and 1 * 3 pairs, as S takes its one of the 3 later, 24; S 16; 48
        (PruningLayer(1, 0.75, 1, 3, 1.0), {"similar": "merge", "order": "i-s"}, (5, 3, 3), 238),
        # S drops what it prunes: only the other is in the means, 24
        (PruningLayer(1, 0.75, 1, 3, 1.0), {"order": "i-s"}, (5, 3, 3), 214),
        # sizes cost nothing: their logarithm is added to logits
        (PruningLayer(1, 1.0, 2, 3), {"similar": "merge", "sizes": "track"}, (5, 3, 3), 130),
    ],
)
def test_a_tiny_model_costs_the_sum_by_hand(
    layer: PruningLayer, variant: dict[str, Any], tokens: tuple[int, ...], overhead: int
) -> None:
    assert backbones.geometry_of(tiny()) == TINY
    out = cost.flops(TINY, PruningConfig((layer,), **variant))
    last = tokens[2]
    # first block on 5 tokens: 592 * 5 + 16 * 25 = 3360
    backbone = 6144 + 3360 + (592 * last + 16 * last * last) + 40 * last + 24
    assert out.tokens == tokens
    assert [block.backbone for block in out.blocks] == [3360, 592 * last + 16 * last * last]
    assert [block.overhead for block in out.blocks] == [overhead, 0]
    assert (out.backbone, out.overhead) == (backbone, overhead)
    assert out.total == backbone + overhead
    assert out.unpruned == 6144 + 2 * 3360 + 200 + 24


@pytest.mark.parametrize(
    ("features", "width"), [("key", 16), ("query", 16), ("value", 16), ("x", 8)]
)
def test_similarity_costs_the_width_of_what_it_compares(features: str, width: int) -> None:
    wide = dataclasses.replace(TINY, attn_dim=16)  # heads wider than the residual stream's share
    out = cost.flops(wide, PruningConfig((PruningLayer(1, 1.0, 2),), features=features))
    assert out.overhead == 50 + 2 * 2 * width
    merging = PruningConfig((PruningLayer(1, 0.5, 0, 1, 1.0),), features=features)
    # one iteration, 2 * 2 pairs, and 2 merged into 2 tokens and the prefix, which are of width 8
    assert cost.flops(wide, merging).overhead == 50 + 2 * 2 * width + 2 * 3 * 8


def test_rounding_honours_the_decimal() -> None:
    # 0.7 * 105 is 73.5 and 0.35 * 10 is 3.5 to a person; binary has 73.49999999999999.
    assert round_half_up(0.7 * 105) == 74
    assert round_half_up(0.35 * 10) == 4
    assert round_half_up(2.4999) == 2
    for n in range(1, 200):
        for percent in range(1, 101):
            expected = reference.round_half_up(percent / 100, n)
            assert round_half_up(percent / 100 * n) == expected


# --- invariants ------------------------------------------------------------------------------

GEOMETRY = Geometry(
    depth=6, heads=4, embed_dim=32, attn_dim=32, patch_tokens=49, prefix_tokens=2,
    class_token=True, block_macs_per_token=12_000, block_macs_per_pair=64, stem_macs=50_000,
    tail_macs_per_token=160, tail_macs=320,
)  # fmt: skip


@st.composite
def configs(draw: st.DrawFn) -> PruningConfig:
    return random_config(random.Random(draw(st.integers(0, 2**32))), GEOMETRY)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(configs())
def test_blocks_sum_up_and_counts_equal_the_reference(config: PruningConfig) -> None:
    out = cost.flops(GEOMETRY, config)
    assert out.tokens == reference.token_counts(6, 49, 2, config)
    assert [block.block for block in out.blocks] == [1, 2, 3, 4, 5, 6]
    assert tuple(block.tokens for block in out.blocks) == out.tokens[:-1]
    in_blocks = sum(block.backbone for block in out.blocks)
    assert out.backbone == 50_000 + in_blocks + 160 * out.tokens[-1] + 320
    assert out.overhead == sum(block.overhead for block in out.blocks)
    assert out.total == out.backbone + out.overhead
    s_tokens = {layer.after_block: layer.s_tokens for layer in config.layers}
    variant = (config.partition, config.metric, config.similar)
    for block, before, left in zip(out.blocks, out.tokens, out.tokens[1:], strict=False):
        # absolute differences of tokens that nothing ranks, and that are dropped, cost nothing
        by_s_alone = before - left == s_tokens.get(block.block)
        free = by_s_alone and variant == ("position", "manhattan", "drop")
        assert (block.overhead > 0) == (left < before and not free)
    assert list(out.tokens) == sorted(out.tokens, reverse=True)
    assert min(out.tokens) >= 3
    gflops = out.gflops()
    assert gflops["total"] == out.total / 1e9
    assert gflops["total"] == pytest.approx(gflops["backbone"] + gflops["overhead"])


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=size_of)
def test_random_configurations_cost_the_sum_by_hand(geometry: Geometry) -> None:
    rng = random.Random(0)
    for _ in range(200):
        config = random_config(rng, geometry, least_layers=0)
        out = cost.flops(geometry, config)
        assert (out.backbone, out.overhead) == macs_by_hand(geometry, config), config


@settings(max_examples=300, deadline=None, derandomize=True)
@given(configs())
def test_merging_costs_no_tokens_and_never_less_than_dropping(config: PruningConfig) -> None:
    out = cost.flops(GEOMETRY, config)
    layers = tuple(dataclasses.replace(layer, merge_share=0.0) for layer in config.layers)
    dropping = dataclasses.replace(config, layers=layers, similar="drop", sizes="ignore")
    dropped = cost.flops(GEOMETRY, dropping)
    assert (dropped.tokens, dropped.backbone) == (out.tokens, out.backbone)
    assert dropped.overhead <= out.overhead
    tracked = dataclasses.replace(config, sizes="track")
    assert cost.flops(GEOMETRY, tracked).overhead == out.overhead


@settings(max_examples=300, deadline=None, derandomize=True)
@given(configs(), st.integers(0, 4), st.floats(0.0, 1.0))
def test_more_retention_never_costs_the_backbone_less(
    config: PruningConfig, which: int, towards_one: float
) -> None:
    layers = list(config.layers)
    place = which % len(layers)
    old = layers[place]
    more = old.retention + towards_one * (1.0 - old.retention)
    layers[place] = PruningLayer(old.after_block, more, old.s_tokens, old.wpr_iterations)
    before = cost.flops(GEOMETRY, config)
    after = cost.flops(GEOMETRY, PruningConfig(tuple(layers), order=config.order))
    assert all(b <= a for b, a in zip(before.tokens, after.tokens, strict=True))
    assert before.backbone <= after.backbone <= after.unpruned


@settings(max_examples=200, deadline=None, derandomize=True)
@given(configs())
def test_one_token_more_to_similarity_saves_backbone(config: PruningConfig) -> None:
    last = config.layers[-1]
    more = PruningLayer(last.after_block, last.retention, last.s_tokens + 1, last.wpr_iterations)
    changed = PruningConfig((*config.layers[:-1], more), order=config.order)
    n = token_counts(GEOMETRY, config)[last.after_block - 1] - 2
    ranked = n if config.order == "i'-s-i" else reference.round_half_up(last.retention, n)
    if last.s_tokens + 1 > ranked // 2:
        with pytest.raises(ConfigError, match="s_tokens"):
            token_counts(GEOMETRY, changed)
    else:
        before, after = cost.flops(GEOMETRY, config), cost.flops(GEOMETRY, changed)
        assert after.tokens[-1] == max(3, before.tokens[-1] - 1)
        assert after.backbone <= before.backbone


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "order", "names"),
    [
        ([PruningLayer(6, 0.5)], "i'-s-i", ["after_block=6", "6 blocks"]),
        ([PruningLayer(2, 0.5), PruningLayer(7, 0.5)], "i'-s-i", ["after_block=7", "6 blocks"]),
        ([PruningLayer(3, 1.0, 25)], "i'-s-i", ["s_tokens", "25", "block 3", "24"]),
        # round(24.5) = 25 tokens are left to rank, half of them is 12
        ([PruningLayer(3, 0.5, 13)], "i-s", ["s_tokens", "13", "block 3", "12"]),
        # 49 -> 5 tokens, half of them is 2
        ([PruningLayer(1, 0.1), PruningLayer(2, 1.0, 3)], "i'-s-i", ["3", "block 2"]),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    layers: list[PruningLayer], order: str, names: list[str]
) -> None:
    config = PruningConfig(tuple(layers), order=order)
    for refused in (token_counts, cost.flops):
        with pytest.raises(ConfigError) as error:
            refused(GEOMETRY, config)
        assert all(name in str(error.value) for name in names)
        assert "\n" not in str(error.value)


def test_half_of_the_tokens_is_the_most_that_similarity_prunes() -> None:
    config = PruningConfig((PruningLayer(3, 1.0, 24),))
    assert token_counts(GEOMETRY, config) == (51, 51, 51, 27, 27, 27, 27)
    both = PruningConfig((PruningLayer(3, 0.1, 24),))  # round(4.9) - 24: one token stays
    assert token_counts(GEOMETRY, both) == (51, 51, 51, 3, 3, 3, 3)
