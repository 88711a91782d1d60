"""timm's VisionTransformer where someone has replaced a forward of it, and hooks do not run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.small_vits import TWO_LAYERS, images_for, make
from torch import Tensor

from ztp_search.backbones import ActivationCache, apply, backbone_of, pruner_of
from ztp_search.errors import ModelError
from ztp_search.pruning.methods import Sight


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
        backbone_of(model).observe(1, tokens, Sight(True, "key"))
    apply(model, TWO_LAYERS)
    with pytest.raises(ModelError, match=f"must run timm's own forward, but .*{unseen}"):
        model(x)
    assert torch.equal(apply(model, None)(x), stock)


@pytest.mark.parametrize("features", ["key", "query", "value"])
def test_where_no_attention_is_needed_a_forward_without_features_is_refused(
    features: str,
) -> None:
    model = make("class token")
    tokens = backbone_of(model).stem(images_for(model))
    model.blocks[0].attn.forward = OwnForward(model.blocks[0].attn, ())
    with pytest.raises(ModelError, match=f"did not call the module that gives {features}"):
        backbone_of(model).observe(1, tokens, Sight(False, features))
    for features_there in (None, "x"):
        seen = backbone_of(model).observe(1, tokens, Sight(False, features_there))
        assert seen.attention is None


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", ["class token", "qk norm", "scale norms"])
def test_a_biased_attention_equals_the_one_by_hand(name: str, fused: bool) -> None:
    model = make(name, torch.float64)
    backbone = backbone_of(model)
    attn = model.blocks[0].attn
    x = torch.randn(2, 17, 48, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    row = torch.linspace(-2.0, 2.0, 34, dtype=torch.float64).reshape(2, 1, 1, 17)
    outputs: list[Tensor] = []
    for image in range(2):
        query, key, value = attn.qkv(x[image]).split(48, dim=-1)
        heads = []
        for own in (slice(0, 16), slice(16, 32), slice(32, 48)):
            logits = attn.q_norm(query[:, own]) @ attn.k_norm(key[:, own]).T / 4.0  # sqrt(16)
            heads.append((logits + row[image, 0, 0]).softmax(-1) @ value[:, own])
        outputs.append(attn.proj(attn.norm(torch.cat(heads, dim=-1))))
    handle = backbone.bias_attention(1, lambda: row)
    attn.fused_attn = fused
    biased = attn(x)
    handle.remove()
    torch.testing.assert_close(biased, torch.stack(outputs), rtol=1e-10, atol=1e-12)
    assert not torch.allclose(attn(x), biased)
