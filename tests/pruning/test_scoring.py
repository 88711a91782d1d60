"""The fast scoring against the slow reference, and what holds whatever the attention."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from helpers import reference
from helpers.random_attention import EVERY_HEAD, layers, random_case
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ztp_search.pruning import scoring
from ztp_search.pruning.config import CHOICES, PruningConfig

NO_TIE = 1e-9  # relative; float64 sums in another order differ by about 1e-15


def by_reference(
    attention: Tensor, features: Tensor, config: PruningConfig, **layer: Any
) -> list[reference.Kept]:
    return [
        reference.prune_tokens(
            a.double().numpy(), f.double().numpy(), config,
            permutation=lambda n: scoring.random_permutation(n).tolist(), **layer,
        )
        for a, f in zip(attention, features, strict=True)
    ]  # fmt: skip


def assert_same(
    fast: scoring.Kept, slow: Sequence[reference.Kept], no_tie: float = NO_TIE
) -> None:
    for image, expected in enumerate(slow):
        if expected.gap < no_tie:  # a tie to within rounding: either answer is right
            continue
        assert fast.after_s[image].tolist() == expected.after_s
        assert fast.after_i[image].tolist() == expected.after_i
        assert bool(fast.fallback[image]) == expected.fallback


def ends(kept: scoring.Kept, image: int) -> dict[int, int]:
    """Where each merged token of an image went."""
    assert kept.merged is not None
    tokens, into = kept.merged.tokens[image].tolist(), kept.merged.into[image].tolist()
    return dict(zip(tokens, into, strict=True))


# --- weighted PageRank -----------------------------------------------------------------------


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("sharpness", [0.01, 1.0, 6.0])
def test_wpr_equals_the_reference(class_token: bool, sharpness: float) -> None:
    attention, _ = random_case(0, images=3, heads=2, tokens=11, sharpness=sharpness)
    for iterations in (1, 2, 7, 30):
        fast = scoring.wpr(attention, iterations, class_token=class_token)
        for image in range(3):
            slow = reference.wpr(attention[image].numpy(), iterations, class_token=class_token)
            np.testing.assert_allclose(fast[image].numpy(), slow, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("class_token", [False, True])
def test_masking_tokens_equals_cutting_them_out_of_the_graph(class_token: bool) -> None:
    attention, _ = random_case(1, images=2, heads=3, tokens=9, sharpness=2.0)
    left = [[0, 1, 3, 4, 8], [0, 2, 5]]  # another number of tokens in each image
    alive = torch.zeros(2, 9, dtype=torch.bool)
    for image, tokens in enumerate(left):
        alive[image, tokens] = True
    fast = scoring.wpr(attention, 4, class_token=class_token, alive=alive)
    for image, tokens in enumerate(left):
        graph = attention[image][:, tokens][:, :, tokens].numpy()
        slow = reference.wpr(graph, 4, class_token=class_token)
        np.testing.assert_allclose(fast[image][:, tokens].numpy(), slow, rtol=1e-12)
        assert fast[image][:, ~alive[image]].eq(0.0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sharpness", [0.0, 1.0, 20.0])
def test_wpr_keeps_the_total_at_one_over_many_iterations(
    dtype: torch.dtype, sharpness: float
) -> None:
    attention, _ = random_case(2, images=2, heads=2, tokens=50, sharpness=sharpness)
    alive = torch.ones(2, 50, dtype=torch.bool)
    alive[1, 30:] = False
    scores = scoring.wpr(attention.to(dtype), 50, class_token=True, alive=alive)
    torch.testing.assert_close(scores.sum(dim=-1), torch.ones(2, 2).to(dtype), rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_attention_is_scored_in_float32(dtype: torch.dtype) -> None:
    attention, _ = random_case(14, images=2, heads=2, tokens=40, sharpness=2.0)
    attention = attention.to(dtype)
    scores = scoring.wpr(attention, 30, class_token=True)
    assert scores.dtype == torch.float32
    for image in range(2):
        slow = reference.wpr(attention[image].double().numpy(), 30, class_token=True)
        np.testing.assert_allclose(scores[image].numpy(), slow, rtol=0.02, atol=1e-4)


def test_attention_to_pruned_tokens_alone_breaks_nothing() -> None:
    attention, features = random_case(13, images=2, heads=2, tokens=30, sharpness=80.0)
    attention = attention.float()  # most of it underflows to 0
    alive = torch.arange(30).expand(2, 30) % 3 == 0
    scores = scoring.wpr(attention, 10, class_token=True, alive=alive)
    assert scores.isfinite().all()
    kept = scoring.prune_tokens(
        attention, features.float(), PruningConfig(),
        prefix_tokens=1, class_token=True, s_tokens=14, kept=7, wpr_iterations=10,
    )  # fmt: skip
    assert (kept.after_i.diff(dim=1) > 0).all()
    assert set(kept.after_i[0].tolist()) < set(kept.after_s[0].tolist())


def test_tokens_that_nothing_ranks_need_no_attention() -> None:
    attention, features = random_case(15, images=2, heads=3, tokens=17, sharpness=1.0)
    for order, similar in itertools.product(CHOICES["order"], CHOICES["similar"]):
        config = PruningConfig(partition="position", order=order, similar=similar)
        layer: dict[str, Any] = {
            "prefix_tokens": 1, "class_token": True,
            "s_tokens": 5, "kept": 11, "wpr_iterations": 3,
        }  # fmt: skip
        seen = scoring.prune_tokens(attention, features, config, **layer)
        blind = scoring.prune_tokens(None, features, config, **layer)
        assert torch.equal(blind.layer, seen.layer)
        assert blind.fallback.tolist() == seen.fallback.tolist() == [False, False]
        if similar == "merge":
            assert [ends(blind, image) for image in (0, 1)] == [
                ends(seen, image) for image in (0, 1)
            ]


def test_what_is_not_compared_needs_no_features() -> None:
    attention, features = random_case(16, images=2, heads=3, tokens=17, sharpness=1.0)
    layer: dict[str, Any] = {
        "prefix_tokens": 1, "class_token": True, "s_tokens": 0, "kept": 11, "wpr_iterations": 3,
    }  # fmt: skip
    for merge_share in (0.0, 0.09):  # of 5: 0.45, which is none
        seen = scoring.prune_tokens(
            attention, features, PruningConfig(), **layer, merge_share=merge_share
        )
        blind = scoring.prune_tokens(
            attention, None, PruningConfig(), **layer, merge_share=merge_share
        )
        assert torch.equal(blind.layer, seen.layer)
        assert blind.merged is None and seen.merged is None


# --- heads -----------------------------------------------------------------------------------


def test_head_variance_does_not_depend_on_scale_or_on_tokens_that_are_gone() -> None:
    scores = torch.rand(2, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    alive = torch.tensor([[0, 1, 1, 1, 0, 1, 1, 0], [0, 1, 0, 1, 1, 1, 1, 1]]).bool()
    variance = scoring.head_variance(scores, alive)
    for image in range(2):
        patches = alive[image].nonzero().flatten().tolist()
        expected = reference.head_variance(scores[image].numpy(), patches)
        assert variance[image].tolist() == pytest.approx(expected, rel=1e-12)
    elsewhere = torch.where(alive[:, None], scores, scores + 7.0)
    torch.testing.assert_close(scoring.head_variance(3.0 * elsewhere, alive), variance)


@pytest.mark.parametrize("how", CHOICES["aggregation"])
def test_aggregation_equals_the_reference(how: str) -> None:
    generator = torch.Generator().manual_seed(4)
    scores = torch.rand(4, 5, 6, dtype=torch.float64, generator=generator)
    heads = torch.rand(4, 5, generator=generator) < 0.6
    heads[:, 2] = True
    fast = scoring.aggregate(scores, heads, how)
    for image in range(4):
        slow = reference.aggregate(scores[image].numpy(), heads[image].tolist(), how)
        np.testing.assert_allclose(fast[image].numpy(), slow, rtol=1e-12)


# --- the pruning layer against the reference -------------------------------------------------


MERGE_SHARES = st.sampled_from([0.0, 0.3, 0.5, 1.0])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(layers(), MERGE_SHARES)
def test_pruning_layer_equals_the_reference(drawn: dict[str, Any], merge_share: float) -> None:
    """Which knows of no merging: that changes nothing of which tokens are kept."""
    attention, features = drawn["case"]
    fast = scoring.prune_tokens(
        attention, features, drawn["config"], **drawn["layer"], merge_share=merge_share
    )
    slow = by_reference(attention, features, drawn["config"], **drawn["layer"])
    assert_same(fast, slow)


VARIANTS: list[dict[str, Any]] = [
    dict(zip(("partition", "metric", "aggregation", "variant"), values, strict=True))
    for values in itertools.product(
        CHOICES["partition"], CHOICES["metric"], CHOICES["aggregation"], CHOICES["variant"]
    )
]


@pytest.mark.parametrize("order", CHOICES["order"])
@pytest.mark.parametrize(("prefix", "patches"), [(0, 15), (1, 12), (2, 15), (5, 12)])
def test_every_variant_equals_the_reference(order: str, prefix: int, patches: int) -> None:
    layer: dict[str, Any] = {
        "prefix_tokens": prefix, "class_token": prefix > 0,
        "s_tokens": 3, "kept": 6, "wpr_iterations": 3,
    }  # fmt: skip
    ties = 0
    for seed, variant in enumerate(VARIANTS):
        attention, features = random_case(
            seed, images=2, heads=3, tokens=prefix + patches, sharpness=[0.3, 1.5][seed % 2]
        )
        config = PruningConfig(order=order, v_min=0.05, v_max=3.0, **variant)
        fast = scoring.prune_tokens(attention, features, config, **layer)
        slow = by_reference(attention, features, config, **layer)
        assert_same(fast, slow)
        ties += sum(kept.gap < NO_TIE for kept in slow)
        assert fast.after_s.shape[1] - prefix == (patches - 3 if order == "i'-s-i" else 6)
        assert fast.after_i.shape[1] - prefix == (6 if order == "i'-s-i" else 9)
    assert ties == 0


def test_nothing_is_pruned_at_full_retention() -> None:
    attention, features = random_case(9, images=2, heads=2, tokens=9, sharpness=1.0)
    for order in CHOICES["order"]:
        kept = scoring.prune_tokens(
            attention, features, PruningConfig(order=order),
            prefix_tokens=1, class_token=True, s_tokens=0, kept=8, wpr_iterations=5,
        )  # fmt: skip
        assert kept.after_s.tolist() == kept.after_i.tolist() == [list(range(9))] * 2
        assert kept.fallback.tolist() == [False, False]


@pytest.mark.parametrize("order", CHOICES["order"])
def test_float32_and_float64_agree_where_tokens_are_well_apart(order: str) -> None:
    layer: dict[str, Any] = {
        "prefix_tokens": 1, "class_token": True, "s_tokens": 8, "kept": 24, "wpr_iterations": 5,
    }  # fmt: skip
    compared = 0
    for seed in range(20):
        attention, features = random_case(seed, images=2, heads=3, tokens=50, sharpness=1.5)
        config = PruningConfig(order=order, **EVERY_HEAD)
        fast = scoring.prune_tokens(attention.float(), features.float(), config, **layer)
        slow = by_reference(attention, features, config, **layer)
        assert_same(fast, slow, no_tie=1e-4)
        compared += sum(kept.gap >= 1e-4 for kept in slow)
    assert compared > 30


def test_only_the_image_without_a_head_left_falls_back() -> None:
    flat, features = random_case(10, images=1, heads=3, tokens=17, sharpness=0.01)
    peaked, more_features = random_case(11, images=2, heads=3, tokens=17, sharpness=2.0)
    attention = torch.cat([peaked[:1], flat, peaked[1:]])
    features = torch.cat([more_features[:1], features, more_features[1:]])
    config = PruningConfig(v_min=0.05, v_max=50.0)
    for s_tokens, kept in [(0, 9), (3, 13), (3, 9)]:  # I alone, S alone, both
        layer: dict[str, Any] = {
            "prefix_tokens": 1, "class_token": True,
            "s_tokens": s_tokens, "kept": kept, "wpr_iterations": 4,
        }  # fmt: skip
        fast = scoring.prune_tokens(attention, features, config, **layer)
        assert fast.fallback.tolist() == [False, True, False]
        assert_same(fast, by_reference(attention, features, config, **layer))
        # The image that fell back kept what it would keep with all heads counted.
        everything = scoring.prune_tokens(
            attention, features, PruningConfig(**EVERY_HEAD), **layer
        )
        assert fast.after_i[1].tolist() == everything.after_i[1].tolist()


# --- invariants ------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None, derandomize=True)
@given(layers())
def test_prefix_is_never_pruned_and_indices_ascend(drawn: dict[str, Any]) -> None:
    attention, features = drawn["case"]
    prefix = drawn["layer"]["prefix_tokens"]
    attention[..., :prefix] *= 1e-6  # nobody looks at the prefix
    attention /= attention.sum(dim=-1, keepdim=True)
    kept = scoring.prune_tokens(attention, features, drawn["config"], **drawn["layer"])
    for indices in (kept.after_s, kept.after_i):
        assert indices[:, :prefix].tolist() == [list(range(prefix))] * 3
        assert (indices.diff(dim=1) > 0).all()
    smaller = min(kept.after_s.shape[1], kept.after_i.shape[1])
    assert smaller - prefix == drawn["layer"]["kept"]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(layers(), MERGE_SHARES)
def test_what_is_merged_was_pruned_and_is_in_a_kept_patch_token(
    drawn: dict[str, Any], merge_share: float
) -> None:
    attention, features = drawn["case"]
    config, layer = drawn["config"], drawn["layer"]
    kept = scoring.prune_tokens(attention, features, config, **layer, merge_share=merge_share)
    n = attention.shape[-1] - layer["prefix_tokens"]
    by_importance = n - layer["s_tokens"] - layer["kept"]
    count = layer["s_tokens"] if config.similar == "merge" else 0
    count += reference.round_half_up(merge_share, by_importance)
    if count == 0:
        assert kept.merged is None
        return
    assert kept.merged is not None
    assert kept.merged.tokens.shape == kept.merged.into.shape == (3, count)
    for image in range(3):
        tokens, into = kept.merged.tokens[image].tolist(), kept.merged.into[image].tolist()
        pruned = set(range(attention.shape[-1])) - set(kept.layer[image].tolist())
        assert len(set(tokens)) == count and set(tokens) <= pruned
        prefix, left = layer["prefix_tokens"], kept.layer.shape[1]
        assert all(end == -1 or prefix <= end < left for end in into)
        if merge_share == 1.0 and config.similar == "merge":  # nothing is dropped
            assert -1 not in into


@settings(max_examples=100, deadline=None, derandomize=True)
@given(layers(), MERGE_SHARES)
def test_an_image_is_pruned_alike_alone_and_in_a_batch(
    drawn: dict[str, Any], merge_share: float
) -> None:
    attention, features = drawn["case"]
    batch = scoring.prune_tokens(
        attention, features, drawn["config"], **drawn["layer"], merge_share=merge_share
    )
    for image, slow in enumerate(
        by_reference(attention, features, drawn["config"], **drawn["layer"])
    ):
        if slow.gap < NO_TIE:
            continue
        alone = scoring.prune_tokens(
            attention[image : image + 1], features[image : image + 1],
            drawn["config"], **drawn["layer"], merge_share=merge_share,
        )  # fmt: skip
        assert alone.after_s[0].tolist() == batch.after_s[image].tolist()
        assert alone.after_i[0].tolist() == batch.after_i[image].tolist()
        assert bool(alone.fallback[0]) == bool(batch.fallback[image])
        assert (alone.merged is None) == (batch.merged is None)
        if alone.merged is not None and batch.merged is not None:
            assert ends(alone, 0) == ends(batch, image)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(layers().filter(lambda drawn: drawn["config"].partition not in ("random", "position")))
def test_the_order_of_patch_tokens_does_not_matter(drawn: dict[str, Any]) -> None:
    attention, features = drawn["case"]
    prefix, n = drawn["layer"]["prefix_tokens"], attention.shape[-1]
    shuffled = torch.randperm(n - prefix, generator=torch.Generator().manual_seed(n)) + prefix
    places = torch.cat([torch.arange(prefix), shuffled])
    slow = by_reference(attention, features, drawn["config"], **drawn["layer"])
    here = scoring.prune_tokens(attention, features, drawn["config"], **drawn["layer"])
    there = scoring.prune_tokens(
        attention[:, :, places][..., places], features[:, places], drawn["config"], **drawn["layer"]
    )
    for image, expected in enumerate(slow):
        if expected.gap < NO_TIE:
            continue
        for mine, other in [(here.after_s, there.after_s), (here.after_i, there.after_i)]:
            assert mine[image].tolist() == sorted(places[other[image]].tolist())
