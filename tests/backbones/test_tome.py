"""A configuration that is ToMe, against ToMe written out from its paper."""

from __future__ import annotations

import copy

import pytest
import torch
from helpers import tome_reference
from helpers.small_vits import images_for, make
from timm.models.vision_transformer import VisionTransformer

import ztp_search
from ztp_search.pruning.config import PruningConfig, PruningLayer

CLASS_TOKEN_MODELS = [
    "class token",
    "class token, average pool",
    "qk norm",
    "scale norms",
    "layer scale",
    "norm before the blocks",
    "pooled norm",
    "odd grid, more blocks",
]


def tome_config(model: VisionTransformer, r: int) -> PruningConfig:
    """`r` tokens merged behind every block but the last, or half of the patch tokens left."""
    layers, patches = [], model.patch_embed.num_patches
    for block in range(1, len(model.blocks)):
        s_tokens = min(r, patches // 2)
        layers.append(PruningLayer(block, retention=1.0, s_tokens=s_tokens))
        patches -= s_tokens
    return PruningConfig(
        tuple(layers), partition="position", similar="merge", sizes="track", features="key"
    )


@pytest.mark.parametrize("r", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("name", CLASS_TOKEN_MODELS)
def test_position_merge_track_behind_every_block_is_tome_after_the_block(name: str, r: int) -> None:
    model = make(name, torch.float64)
    x = images_for(model)
    stock = copy.deepcopy(model)
    logits = ztp_search.apply(model, tome_config(model, r), record_tokens=True)(x)
    for image in range(len(x)):
        expected, history = tome_reference.forward(stock, x[image], r)
        stands_for = {token: [token] for token in range(1 + model.patch_embed.num_patches)}
        for entry, slow in zip(model.ztp_tokens, history, strict=True):
            merged, into = entry["merged"][image].tolist(), entry["into"][image].tolist()
            for token, end in zip(merged, into, strict=True):
                stands_for[end] = stands_for[end] + stands_for.pop(token)
            assert entry["layer"][image].tolist() == list(slow)
            assert {token: sorted(stands_for[token]) for token in stands_for} == {
                token: sorted(slow[token]) for token in slow
            }
        torch.testing.assert_close(logits[image], expected, rtol=1e-9, atol=1e-10)


def test_tome_depends_on_none_of_the_fields_that_rank_by_importance() -> None:
    model = make("class token", torch.float64)
    x = images_for(model)
    tome = tome_config(model, 3)
    expected = ztp_search.apply(model, tome)(x)
    for config in (
        PruningConfig(tome.layers, v_min=0.0, v_max=0.1, variant="zero-tprune-uni",
                      aggregation="max", order="i-s",
                      partition="position", similar="merge", sizes="track"),
        PruningConfig(tuple(PruningLayer(layer.after_block, 1.0, 3, 30, merge_share=1.0)
                            for layer in tome.layers),
                      partition="position", similar="merge", sizes="track"),
    ):  # fmt: skip
        torch.testing.assert_close(
            ztp_search.apply(model, config)(x), expected, rtol=1e-9, atol=1e-10
        )
