"""Pruned timm models against stock timm and against a forward pass written out by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from helpers import reference
from helpers.backbone_examples import MERGED, UNSEEN
from helpers.small_vits import MODELS, TWO_LAYERS, images_for, make
from timm.layers import Attention
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from torch import Tensor

import ztp_search
from ztp_search.pruning import scoring
from ztp_search.pruning.config import CHOICES, PruningConfig, PruningLayer

# --- unpruned --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_full_retention_equals_stock_timm(name: str) -> None:
    model = make(name, torch.float64)
    x = images_for(model)
    stock = model(x)
    layers = tuple(PruningLayer(block, 1.0, 0, 3) for block in range(1, len(model.blocks)))
    for order in CHOICES["order"]:
        ztp_search.apply(model, PruningConfig(layers, order=order))
        torch.testing.assert_close(model(x), stock, rtol=1e-10, atol=1e-12)


def test_blocks_whose_attention_is_not_looked_at_keep_it_fused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = make("class token")
    x = images_for(model)
    calls = []
    fused = torch.nn.functional.scaled_dot_product_attention

    def counted(*args: Any, **kwargs: Any) -> Tensor:
        calls.append((args, kwargs))
        return fused(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    for config, looked_at in [
        (None, set()), (TWO_LAYERS, {1, 3}), (None, set()), (MERGED, {1, 3}), (UNSEEN, set()),
        (None, set()),
    ]:  # fmt: skip
        ztp_search.apply(model, config)
        calls.clear()
        model(x)
        assert len(calls) == 4 - len(looked_at)
        for number, block in enumerate(model.blocks, start=1):
            assert block.attn.fused_attn == (number not in looked_at)


@pytest.mark.parametrize(
    ("config", "rows"),
    [
        (None, [None] * 4),
        (TWO_LAYERS, [None] * 2),
        (MERGED, [12, 6]),  # in blocks 2 and 4, behind blocks that keep 11 and 5 patch tokens
        (UNSEEN, [None, None, 13, 10]),  # blocks 3 and 4: 12 and 9
    ],
)
def test_sizes_are_one_row_for_fused_attention_to_add(
    monkeypatch: pytest.MonkeyPatch, config: PruningConfig | None, rows: list[int | None]
) -> None:
    model = make("class token")
    masks: list[Any] = []
    fused = torch.nn.functional.scaled_dot_product_attention

    def recorded(*args: Any, attn_mask: Tensor | None = None, **kwargs: Any) -> Tensor:
        masks.append(attn_mask)
        return fused(*args, attn_mask=attn_mask, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", recorded)
    ztp_search.apply(model, config)(images_for(model))
    shapes = [None if mask is None else tuple(mask.shape) for mask in masks]
    assert shapes == [None if n is None else (3, 1, 1, n) for n in rows]
    for mask in masks:
        if mask is not None:  # all is merged but what the I-stage drops, and the prefix is 1
            assert mask.untyped_storage().nbytes() == mask.nbytes
            assert not mask[..., 0].any() and mask.min() >= 0 and mask.exp().sum(-1).max() < 17.5


@pytest.mark.parametrize("config", [TWO_LAYERS, MERGED, UNSEEN], ids=["drop", "merge", "unseen"])
def test_unfused_attention_stays_unfused_afterwards(config: PruningConfig) -> None:
    model = make("class token")
    for block in model.blocks:
        block.attn.fused_attn = False
    stock = model(images_for(model))
    ztp_search.apply(model, config)(images_for(model))
    assert not any(block.attn.fused_attn for block in model.blocks)
    ztp_search.apply(model, None)
    assert not any(block.attn.fused_attn for block in model.blocks)
    assert torch.equal(model(images_for(model)), stock)


def test_fused_attention_is_restored_to_what_it_was_before_pruning_began() -> None:
    model = make("class token")
    ztp_search.apply(ztp_search.apply(model, TWO_LAYERS), None)
    model.blocks[0].attn.fused_attn = False  # set by the user between two prunings
    ztp_search.apply(model, None)
    assert not model.blocks[0].attn.fused_attn
    ztp_search.apply(ztp_search.apply(model, TWO_LAYERS), None)
    assert [block.attn.fused_attn for block in model.blocks] == [False, True, True, True]


# --- the twin --------------------------------------------------------------------------------


def forward_by_hand(
    model: VisionTransformer, image: Tensor, config: PruningConfig
) -> tuple[Tensor, list[dict[str, Any]], float]:
    """One image through an unpatched float64 model, tokens dropped as the reference says.

    Returns the logits, per pruning layer what survived S and I as indices into the unpruned
    sequence and the importances, and how far the closest decision was from a tie.
    """
    x = model.norm_pre(model._pos_embed(model.patch_embed(image[None])))
    original = list(range(x.shape[1]))
    recorded, gap = [], float("inf")
    for number, block in enumerate(model.blocks, start=1):
        attention_input = x if isinstance(block, ResPostBlock) else block.norm1(x)
        x = block(x)
        for layer in config.layers:
            if layer.after_block != number:
                continue
            attention, features = attention_by_hand(block.attn, attention_input)
            features["x"] = x[0]
            patches = x.shape[1] - model.num_prefix_tokens
            kept = reference.prune_tokens(
                attention.numpy(), features[config.features].numpy(), config,
                prefix_tokens=model.num_prefix_tokens,
                class_token=model.cls_token is not None,
                s_tokens=layer.s_tokens,
                kept=reference.patch_tokens_kept(patches, layer.retention, layer.s_tokens),
                wpr_iterations=layer.wpr_iterations,
                permutation=lambda n: scoring.random_permutation(n).tolist(),
            )  # fmt: skip
            recorded.append({
                "after_block": number,
                "s": [original[token] for token in kept.after_s],
                "i": [original[token] for token in kept.after_i],
                "importance": [kept.importance.get(token, 0.0) for token in range(len(original))]
                if kept.importance else None,
            })  # fmt: skip
            left = min(kept.after_s, kept.after_i, key=len)
            original = [original[token] for token in left]
            x = x[:, left]
            gap = min(gap, kept.gap)
    return model.forward_head(model.norm(x))[0], recorded, gap


def attention_by_hand(attn: Attention, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """A (H, N, N) and query, key, value (N, H * d) of one image, head by head."""
    heads, width = attn.num_heads, attn.head_dim
    query, key, value = attn.qkv(x[0]).split(heads * width, dim=-1)
    probabilities, queries, keys = [], [], []
    for h in range(heads):
        own = slice(h * width, (h + 1) * width)
        queries.append(attn.q_norm(query[:, own]))
        keys.append(attn.k_norm(key[:, own]))
        probabilities.append((queries[h] @ keys[h].T / width**0.5).softmax(dim=-1))
    return torch.stack(probabilities), {
        "query": torch.cat(queries, dim=-1),
        "key": torch.cat(keys, dim=-1),
        "value": value,
    }


def assert_equals_twin(
    model: VisionTransformer, config: PruningConfig, min_gap: float = 1e-9
) -> None:
    x = images_for(model)
    stock = copy.deepcopy(model)
    logits = ztp_search.apply(model, config, record_tokens=True)(x)
    for image in range(len(x)):
        expected, recorded, gap = forward_by_hand(stock, x[image], config)
        assert gap > min_gap  # no ties in this test
        by_block = {entry["after_block"]: entry for entry in recorded}
        for mine in model.ztp_tokens:
            slow = by_block[mine["after_block"]]
            assert mine["s"][image].tolist() == slow["s"]
            assert mine["i"][image].tolist() == slow["i"]
            if slow["importance"] is None:
                assert mine["importance"] is None
            else:
                expected_scores = torch.tensor(slow["importance"], dtype=torch.float64)
                torch.testing.assert_close(
                    mine["importance"][image], expected_scores, rtol=1e-9, atol=1e-12
                )
        torch.testing.assert_close(logits[image], expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", MODELS)
def test_pruned_model_equals_the_forward_pass_by_hand(name: str) -> None:
    assert_equals_twin(make(name, torch.float64), TWO_LAYERS)


# Those of merging are held to a reference of their own, in test_merging.py.
DROPPING = [name for name in CHOICES if name not in ("similar", "sizes")]


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field in DROPPING for value in CHOICES[field][1:]]
)
@pytest.mark.parametrize("name", ["class token", "qk norm", "distilled"])
def test_every_variant_equals_the_forward_pass_by_hand(name: str, field: str, value: str) -> None:
    config = PruningConfig(TWO_LAYERS.layers, v_min=0.05, v_max=5.0, **{field: value})
    assert_equals_twin(make(name, torch.float64), config)


@pytest.mark.parametrize("partition", ["sequential-u", "position"])
@pytest.mark.parametrize("order", CHOICES["order"])
def test_a_layer_after_every_block_equals_the_forward_pass_by_hand(
    order: str, partition: str
) -> None:
    layers = (
        PruningLayer(1, 1.0, 5, 1),  # S alone
        PruningLayer(2, 0.75, 0, 3),  # I alone
        PruningLayer(3, 1.0, 0, 3),  # neither
        PruningLayer(4, 0.7, 2, 30),
        PruningLayer(5, 0.01, 0, 1),  # down to one patch token
    )
    assert_equals_twin(
        make("odd grid, more blocks", torch.float64),
        PruningConfig(layers, order=order, partition=partition),
    )
