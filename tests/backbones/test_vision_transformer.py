"""timm's VisionTransformer where someone has replaced a forward of it, and hooks do not run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.small_vits import TWO_LAYERS, images_for, make
from torch import Tensor

from ztp_search.backbones import ActivationCache, apply, backbone_of, pruner_of
from ztp_search.errors import ModelError


def test_a_forward_without_blocks_is_refused_where_it_is_run_in_parts() -> None:
    model = make("class token")
    model.forward = lambda images: images.mean((1, 2, 3))
    with pytest.raises(ModelError, match="VisionTransformer must run its blocks") as error:
        ActivationCache(pruner_of(model), images_for(model)).logits(TWO_LAYERS)
    assert "\n" not in str(error.value)


class OwnForward:
    """An attention's forward as libraries of fast kernels put one in its place."""

    def __init__(self, attn: Any, calls: tuple[str, ...]) -> None:
        self.attn = attn
        self.calls = calls

    def __call__(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        n = x.shape[1]
        if "attn_drop" in self.calls:
            self.attn.attn_drop(torch.full((len(x), self.attn.num_heads, n, n), 1 / n))
        return x


@pytest.mark.parametrize(
    ("calls", "unseen"), [((), "attn_drop"), (("attn_drop",), "the module that gives key")]
)
def test_an_attention_with_a_forward_of_its_own_is_refused(
    calls: tuple[str, ...], unseen: str
) -> None:
    model = make("class token")
    x = images_for(model)
    tokens = backbone_of(model).stem(x)
    for block in model.blocks:
        block.attn.forward = OwnForward(block.attn, calls)
    stock = model(x)
    with pytest.raises(ModelError, match=f"must run timm's own forward, but .*{unseen}"):
        backbone_of(model).observe(1, tokens, "key")
    apply(model, TWO_LAYERS)
    with pytest.raises(ModelError, match=f"must run timm's own forward, but .*{unseen}"):
        model(x)
    assert torch.equal(apply(model, None)(x), stock)
