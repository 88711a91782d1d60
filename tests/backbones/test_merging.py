"""Merged tokens and their sizes against a forward pass written out by hand, and what must hold."""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers import merging_reference, reference
from helpers.random_configs import random_config
from helpers.small_vits import MODELS, TWO_LAYERS, images_for, make
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import ztp_search
from ztp_search.backbones import geometry_of
from ztp_search.pruning import scoring
from ztp_search.pruning.config import CHOICES, PruningConfig, PruningLayer

NO_TIE = 1e-9  # relative; float64 sums in another order differ by about 1e-15
RECORDED = ("s", "i", "layer", "merged", "into")
ORDERS = CHOICES["order"]
MODES = [("drop", "ignore"), ("drop", "track"), ("merge", "ignore"), ("merge", "track")]
SHARES = (0.0, 0.3, 0.5, 1.0)

BOTH_STAGES = (
    PruningLayer(1, 0.8, 3, 4, merge_share=0.5),
    PruningLayer(2, 0.75, 2, 2, merge_share=1.0),
    PruningLayer(3, 0.6, 1, 1, merge_share=0.3),
)
ALL_MERGED = PruningConfig(
    tuple(replace(layer, merge_share=1.0) for layer in BOTH_STAGES),
    similar="merge", sizes="track",
)  # fmt: skip


def merging_config(
    layers: tuple[PruningLayer, ...], mode: tuple[str, str], **fields: Any
) -> PruningConfig:
    return PruningConfig(layers, similar=mode[0], sizes=mode[1], **fields)


# --- the twin --------------------------------------------------------------------------------


def assert_equals_twin(model: VisionTransformer, config: PruningConfig, images: int = 2) -> None:
    x = images_for(model, images)
    stock = copy.deepcopy(model)
    logits = ztp_search.apply(model, config, record_tokens=True)(x)
    for image in range(images):
        expected = merging_reference.forward(
            stock, x[image], config, lambda n: scoring.random_permutation(n).tolist()
        )
        assert expected.gap > NO_TIE
        for mine, slow in zip(model.ztp_tokens, expected.layers, strict=True):
            assert mine["after_block"] == slow["after_block"]
            for name in RECORDED:
                assert mine[name][image].tolist() == slow[name], (mine["after_block"], name)
        torch.testing.assert_close(logits[image], expected.logits, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("mode", MODES, ids="-".join)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", MODELS)
def test_every_model_merges_as_by_hand(name: str, order: str, mode: tuple[str, str]) -> None:
    config = merging_config(BOTH_STAGES, mode, order=order, v_min=0.0, v_max=1e6)
    assert_equals_twin(make(name, torch.float64), config, images=1)


@pytest.mark.parametrize("mode", MODES, ids="-".join)
@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field in CHOICES for value in CHOICES[field][1:]]
)
def test_every_variant_merges_as_by_hand(field: str, value: str, mode: tuple[str, str]) -> None:
    similar, sizes = mode
    fields: dict[str, Any] = {"similar": similar, "sizes": sizes, field: value}
    config = PruningConfig(BOTH_STAGES, v_min=0.05, v_max=5.0, **fields)
    assert_equals_twin(make("qk norm", torch.float64), config)


@pytest.mark.parametrize("mode", MODES, ids="-".join)
@pytest.mark.parametrize("order", ORDERS)
def test_layers_that_do_little_or_nearly_everything_merge_as_by_hand(
    order: str, mode: tuple[str, str]
) -> None:
    layers = (
        PruningLayer(1, 1.0, 5, 1, merge_share=1.0),  # S alone
        PruningLayer(2, 0.75, 0, 3, merge_share=0.5),  # I alone
        PruningLayer(3, 1.0, 0, 3, merge_share=1.0),  # neither
        PruningLayer(4, 0.7, 2, 30, merge_share=0.3),
        PruningLayer(5, 0.01, 0, 1, merge_share=1.0),  # all into one patch token
    )
    assert_equals_twin(
        make("odd grid, more blocks", torch.float64), merging_config(layers, mode, order=order)
    )


@pytest.mark.parametrize("seed", range(3 * len(MODELS)))
def test_random_configurations_merge_as_by_hand(seed: int) -> None:
    rng = random.Random(seed)
    model = make(list(MODELS)[seed % len(MODELS)], torch.float64)
    config = random_config(rng, geometry_of(model))
    layers = tuple(replace(layer, merge_share=rng.choice(SHARES)) for layer in config.layers)
    similar, sizes = rng.choice(MODES)
    assert_equals_twin(model, replace(config, layers=layers, similar=similar, sizes=sizes))


@pytest.mark.parametrize("seed", range(6 * len(MODELS)))
def test_random_layers_behind_every_block_but_the_last_merge_as_by_hand(seed: int) -> None:
    rng = random.Random(seed)
    model = make(list(MODELS)[seed % len(MODELS)], torch.float64)
    fields: dict[str, Any] = {name: rng.choice(choices) for name, choices in CHOICES.items()}
    layers, patches = [], model.patch_embed.num_patches
    for block in range(1, len(model.blocks)):
        retention = rng.choice([1.0, 0.93, 0.85, 0.7])
        left = reference.round_half_up(retention, patches)
        ranked = patches if fields["order"] == "i'-s-i" else left
        s_tokens = rng.randint(0, min(3, ranked // 2))
        share = rng.choice(SHARES)
        layers.append(PruningLayer(block, retention, s_tokens, rng.randint(1, 10), share))
        patches = reference.patch_tokens_kept(patches, retention, s_tokens)
    assert_equals_twin(model, PruningConfig(tuple(layers), v_max=1.5, **fields), images=1)


# --- where tokens go -------------------------------------------------------------------------


@contextmanager
def sequences_into(model: VisionTransformer, block: int) -> Iterator[list[Tensor]]:
    """What `block` (counted from 1) is given, one entry per forward."""
    seen: list[Tensor] = []
    handle = model.blocks[block - 1].norm1.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].clone())
    )
    yield seen
    handle.remove()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["class token", "distilled", "registers", "no embed class"])
def test_prefix_tokens_take_nothing_in_and_never_move(name: str, order: str) -> None:
    model = make(name, torch.float64)
    x, prefix = images_for(model), model.num_prefix_tokens
    config = replace(ALL_MERGED, order=order)
    with sequences_into(model, 2) as seen:
        model(x)
        ztp_search.apply(model, config, record_tokens=True)(x)
    stock, merged = seen
    torch.testing.assert_close(merged[:, :prefix], stock[:, :prefix], rtol=1e-12, atol=1e-12)
    for entry in model.ztp_tokens:
        assert entry["layer"][:, :prefix].tolist() == [list(range(prefix))] * len(x)
        assert entry["merged"].min() >= prefix
        assert entry["into"].min() >= prefix


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("partition", CHOICES["partition"])
def test_a_merged_token_changes_only_the_one_it_ends_in(order: str, partition: str) -> None:
    model = make("class token", torch.float64)
    x = images_for(model)
    config = PruningConfig(
        (PruningLayer(1, 0.7, 3, 2, merge_share=0.5),),
        similar="merge", order=order, partition=partition,
    )  # fmt: skip
    with sequences_into(model, 2) as seen:
        model(x)
        ztp_search.apply(model, config, record_tokens=True)(x)
    stock, reduced = seen
    (entry,) = model.ztp_tokens
    for image in range(len(x)):
        kept, ends = entry["layer"][image].tolist(), entry["into"][image].tolist()
        merged = entry["merged"][image].tolist()
        assert len(merged) == len(set(merged)) == 3 + 3  # of 16, I prunes 5 and merges half
        assert merged == sorted(merged) and not set(merged) & set(kept)
        assert set(ends) <= {*kept, -1}
        for place, token in enumerate(kept):
            taken = [j for j, end in zip(merged, ends, strict=True) if end == token]
            mean = stock[image, [token, *taken]].mean(dim=0)
            torch.testing.assert_close(reduced[image, place], mean, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("order", "similar", "merge_share", "dropped"),
    [
        ("i'-s-i", "merge", 0.0, True),  # S merges into a token that I drops
        ("i'-s-i", "merge", 1.0, False),
        ("i-s", "drop", 1.0, True),  # I merges into a token that S drops
        ("i-s", "merge", 1.0, False),
        ("i-s", "merge", 0.0, False),
    ],
)
def test_what_a_dropped_token_had_taken_in_is_dropped_with_it(
    order: str, similar: str, merge_share: float, dropped: bool
) -> None:
    layer = PruningLayer(1, 0.625, 5, 2, merge_share)  # of 16, I prunes 6
    config = PruningConfig((layer,), similar=similar, order=order)
    model = ztp_search.apply(make("class token"), config, record_tokens=True)
    model(images_for(model, 8))
    (entry,) = model.ztp_tokens
    assert entry["merged"].shape[1] == (5 if similar == "merge" else 0) + 6 * merge_share
    assert entry["into"].eq(-1).any() == dropped


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["class token", "no class token", "registers", "distilled"])
def test_every_patch_is_in_a_kept_token_where_all_is_merged(name: str, order: str) -> None:
    model = ztp_search.apply(make(name), replace(ALL_MERGED, order=order), record_tokens=True)
    x, prefix = images_for(model), model.num_prefix_tokens
    model(x)
    for image in range(len(x)):
        sizes = dict.fromkeys(range(prefix, prefix + model.patch_embed.num_patches), 1)
        for entry in model.ztp_tokens:
            merged, into = entry["merged"][image].tolist(), entry["into"][image].tolist()
            for token, end in zip(merged, into, strict=True):
                sizes[end] += sizes.pop(token)
            assert sorted(sizes) == entry["layer"][image, prefix:].tolist()
        assert sum(sizes.values()) == model.patch_embed.num_patches


@pytest.mark.parametrize("order", ORDERS)
def test_the_sum_of_patch_tokens_by_size_stays_where_all_is_merged(order: str) -> None:
    model = make("registers, no class token", torch.float64)
    x, prefix = images_for(model), model.num_prefix_tokens
    config = replace(ALL_MERGED, layers=ALL_MERGED.layers[:1], order=order)
    with sequences_into(model, 2) as seen:
        model(x)
        ztp_search.apply(model, config, record_tokens=True)(x)
    stock, merged = seen
    (entry,) = model.ztp_tokens
    sizes = 1 + entry["layer"][:, :, None].eq(entry["into"][:, None]).sum(dim=-1)
    total = (merged * sizes[:, :, None])[:, prefix:].sum(dim=1)
    torch.testing.assert_close(total, stock[:, prefix:].sum(dim=1), rtol=1e-11, atol=1e-11)


def test_with_nothing_merged_none_is_recorded() -> None:
    model = ztp_search.apply(make("class token"), TWO_LAYERS, record_tokens=True)
    model(images_for(model))
    for entry in model.ztp_tokens:
        assert entry["merged"].shape == entry["into"].shape == (3, 0)
        assert entry["merged"].dtype == entry["into"].dtype == entry["layer"].dtype


@pytest.mark.parametrize("order", ORDERS)
def test_as_many_tokens_are_kept_whether_they_are_merged_or_dropped(order: str) -> None:
    model = make("class token")
    counts = []
    for mode, share in itertools.product(MODES, SHARES):
        layers = tuple(replace(layer, merge_share=share) for layer in BOTH_STAGES)
        config = merging_config(layers, mode, order=order)
        ztp_search.apply(model, config, record_tokens=True)(images_for(model))
        counts.append([entry["layer"].shape[1] for entry in model.ztp_tokens])
    assert counts == [counts[0]] * len(counts)


# --- merging off -----------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["class token", "registers", "norm after attention"])
def test_merging_is_off_unless_stated(name: str, order: str) -> None:
    model = make(name)
    x = images_for(model)
    left_out = PruningConfig((PruningLayer(1, 0.9, 3, 4), PruningLayer(3, 0.6, 2, 2)), order=order)
    stated = PruningConfig(
        (PruningLayer(1, 0.9, 3, 4, 0.0), PruningLayer(3, 0.6, 2, 2, merge_share=0.0)),
        order=order, similar="drop", sizes="ignore",
    )  # fmt: skip
    assert left_out == stated and left_out.digest() == stated.digest()
    expected = ztp_search.apply(model, left_out)(x)
    assert torch.equal(ztp_search.apply(model, stated)(x), expected)
    tracked = replace(left_out, sizes="track")  # every size is 1
    torch.testing.assert_close(ztp_search.apply(model, tracked)(x), expected)


@pytest.mark.parametrize("mode", MODES, ids="-".join)
@pytest.mark.parametrize("name", MODELS)
def test_merging_where_nothing_is_pruned_equals_stock_timm(
    name: str, mode: tuple[str, str]
) -> None:
    model = make(name, torch.float64)
    x = images_for(model)
    stock = model(x)
    blocks = range(1, len(model.blocks))
    layers = tuple(PruningLayer(block, 1.0, 0, 3, merge_share=1.0) for block in blocks)
    ztp_search.apply(model, merging_config(layers, mode))
    torch.testing.assert_close(model(x), stock, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", ["class token", "distilled", "norm after attention"])
def test_a_model_that_merged_is_stock_again_to_the_bit(name: str) -> None:
    model = make(name)
    x = images_for(model)
    stock, fused = model(x), [block.attn.fused_attn for block in model.blocks]
    ztp_search.apply(model, ALL_MERGED)
    assert not torch.equal(model(x), stock)
    ztp_search.apply(model, None)
    assert torch.equal(model(x), stock)
    assert [block.attn.fused_attn for block in model.blocks] == fused


def test_a_forward_knows_nothing_of_the_sizes_of_the_one_before() -> None:
    model, fresh = make("class token"), make("class token")
    x = images_for(model)
    ztp_search.apply(model, ALL_MERGED)
    first = model(x)
    model(x[:1])
    assert torch.equal(model(x), first)
    late = PruningConfig(ALL_MERGED.layers[2:], similar="merge", sizes="track")
    assert torch.equal(ztp_search.apply(model, late)(x), ztp_search.apply(fresh, late)(x))


# --- patches that are the same ---------------------------------------------------------------


def without_places(name: str) -> VisionTransformer:
    """A model to which patches of the same look are the same token."""
    model = make(name, torch.float64)
    model.pos_embed.zero_()
    return model


def image_of(model: VisionTransformer, kinds: list[int]) -> Tensor:
    """One image whose patches are random pictures, those of one kind the same."""
    (height, width), (rows, columns) = model.patch_embed.patch_size, model.patch_embed.grid_size
    generator = torch.Generator().manual_seed(2)
    pictures = torch.randn(
        (max(kinds) + 1, 3, height, width), generator=generator, dtype=torch.float64
    )
    grid = pictures[kinds].reshape(rows, columns, 3, height, width)
    return grid.permute(2, 0, 3, 1, 4).reshape(1, 3, rows * height, columns * width)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", MODELS)
def test_identical_patches_merged_by_size_give_the_logits_of_the_whole_image(
    name: str, order: str
) -> None:
    model = without_places(name)
    x = image_of(model, [0] * model.patch_embed.num_patches)
    stock = model(x)
    for partition in CHOICES["partition"]:
        config = replace(ALL_MERGED, order=order, partition=partition)
        merged = ztp_search.apply(model, config)(x)
        torch.testing.assert_close(merged, stock, rtol=1e-10, atol=1e-11)
    ztp_search.apply(model, replace(config, sizes="ignore"))
    sizes_matter = model.num_prefix_tokens > 0  # else all attention is between equals
    assert torch.allclose(model(x), stock, rtol=1e-4, atol=1e-5) != sizes_matter


ONE_PER_KIND = PruningConfig(
    (PruningLayer(1, 1.0, 8), PruningLayer(2, 1.0, 3), PruningLayer(3, 1.0, 1)),
    partition="position", similar="merge", sizes="track",
)  # fmt: skip
EIGHT_FOUR_TWO_TWO = [0] * 8 + [1] * 4 + [2] * 2 + [3] * 2


@pytest.mark.parametrize("features", CHOICES["features"])
@pytest.mark.parametrize("metric", CHOICES["metric"])
@pytest.mark.parametrize(
    "name", ["class token", "registers", "distilled", "qk norm", "norm after attention"]
)
def test_one_token_per_kind_of_patch_gives_the_logits_of_the_whole_image(
    name: str, metric: str, features: str
) -> None:
    model = without_places(name)
    x = image_of(model, EIGHT_FOUR_TWO_TWO)
    stock = model(x)
    config = replace(ONE_PER_KIND, metric=metric, features=features)
    merged = ztp_search.apply(model, config, record_tokens=True)(x)
    prefix = model.num_prefix_tokens
    assert [EIGHT_FOUR_TWO_TWO[token - prefix] for token in (
        model.ztp_tokens[-1]["layer"][0, prefix:].tolist()
    )] == [0, 1, 2, 3]  # fmt: skip
    torch.testing.assert_close(merged, stock, rtol=1e-9, atol=1e-10)
    ztp_search.apply(model, replace(config, sizes="ignore"))
    assert not torch.allclose(model(x), stock, rtol=1e-4, atol=1e-5)


# --- use -------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("mode", MODES, ids="-".join)
@pytest.mark.parametrize("name", ["class token", "no class token", "distilled"])
def test_an_image_merges_alone_as_in_a_batch(name: str, mode: tuple[str, str], order: str) -> None:
    model = make(name, torch.float64)
    config = merging_config(BOTH_STAGES, mode, order=order)
    ztp_search.apply(model, config, record_tokens=True)
    x = images_for(model)
    logits, together = model(x), model.ztp_tokens
    for image in range(len(x)):
        alone = model(x[image : image + 1])
        torch.testing.assert_close(alone[0], logits[image], rtol=1e-9, atol=1e-10)
        for one, all_ in zip(model.ztp_tokens, together, strict=True):
            for stage in RECORDED:
                assert torch.equal(one[stage][0], all_[stage][image])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("mode", MODES, ids="-".join)
def test_merging_runs_under_bfloat16_autocast(mode: tuple[str, str], order: str) -> None:
    model = make("class token")
    config = merging_config(BOTH_STAGES, mode, order=order)
    ztp_search.apply(model, config, record_tokens=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images_for(model))
    assert logits.isfinite().all()
    # 16 patch tokens: 13 - 3; 10: 8 - 2; 6: 4 - 1
    assert [entry["layer"].shape[1] - 1 for entry in model.ztp_tokens] == [10, 6, 3]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", MODES, ids="-".join)
def test_half_precision_models_merge(mode: tuple[str, str], dtype: torch.dtype) -> None:
    model = make("class token", dtype)
    logits = ztp_search.apply(model, merging_config(BOTH_STAGES, mode))(images_for(model))
    assert logits.dtype == dtype
    assert logits.isfinite().all()


def test_sums_of_large_tokens_do_not_overflow_half_precision() -> None:
    model = make("class token", torch.float16)
    model.patch_embed.proj.bias[0] = 30000.0  # two of these are beyond float16
    with sequences_into(model, 4) as seen:
        ztp_search.apply(model, ALL_MERGED)(images_for(model))
    assert seen[0].max() == 30000.0
    assert seen[0].isfinite().all()


def test_gradients_reach_what_is_merged_and_not_what_is_dropped() -> None:
    model = make("class token", torch.float64).requires_grad_(True)
    config = PruningConfig(
        (PruningLayer(3, 0.625, 5, 2, merge_share=0.5),), similar="merge", sizes="track"
    )
    ztp_search.apply(model, config, record_tokens=True)
    outputs: list[Tensor] = []

    def keep(_: Any, args: Any, output: Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    handle = model.blocks[2].mlp.register_forward_hook(keep)
    model(images_for(model)).square().sum().backward()
    handle.remove()
    assert outputs[0].grad is not None
    reached = outputs[0].grad.abs().sum(dim=-1).gt(0)  # (B, N)
    (entry,) = model.ztp_tokens
    for image in range(len(reached)):
        merged = entry["merged"][image][entry["into"][image] >= 0]
        expected = sorted([*entry["layer"][image].tolist(), *merged.tolist()])
        assert 0 < len(merged) and len(expected) < 17
        assert reached[image].nonzero().flatten().tolist() == expected
