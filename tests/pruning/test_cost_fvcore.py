"""The cost model against fvcore on models as they run."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest
import timm
import torch
from fvcore.nn import FlopCountAnalysis
from helpers import reference
from helpers.random_configs import random_config
from timm.layers import SwiGLU
from timm.models.vision_transformer import ResPostBlock, VisionTransformer

import ztp_search
from ztp_search import backbones
from ztp_search.pruning import cost
from ztp_search.pruning.config import PruningConfig, PruningLayer

# --- fvcore ----------------------------------------------------------------------------------

vit = partial(
    VisionTransformer, img_size=32, patch_size=8, embed_dim=24, depth=4, num_heads=3, num_classes=5
)
SMALL: dict[str, Callable[[], VisionTransformer]] = {
    "class token": vit,
    "no class token, average pool": partial(vit, class_token=False, global_pool="avg", depth=3),
    "distilled": partial(
        timm.create_model, "deit_tiny_distilled_patch16_224",
        img_size=80, embed_dim=24, depth=3, num_heads=2, num_classes=5,
    ),
    "registers, qk norm": partial(vit, reg_tokens=4, qk_norm=True),
    "layer scale, norm before, no bias": partial(
        vit, init_values=0.1, pre_norm=True, qkv_bias=False, no_embed_class=True
    ),
    "gated mlp, norm in the stem": partial(vit, mlp_layer=SwiGLU, embed_norm_layer="layernorm"),
    "rms norm": partial(vit, norm_layer="rmsnorm", qk_norm=True, final_norm=False),
    "norm after attention": partial(vit, block_fn=ResPostBlock, mlp_ratio=3, img_size=40),
    "scale norms, no classifier": partial(
        vit, scale_attn_norm=True, scale_mlp_norm=True, num_classes=0, patch_size=(8, 4), depth=3
    ),
    "pooled norm": partial(vit, fc_norm=True, global_pool="avgmax", depth=5, embed_dim=32,
                           num_heads=4),
}  # fmt: skip
CONFIGS_EACH = 21  # 210 in all


@pytest.mark.parametrize("name", SMALL)
def test_cost_equals_fvcore_on_the_model_as_run(name: str) -> None:
    model = SMALL[name]().eval()
    geometry = backbones.geometry_of(model)
    patches = model.patch_embed.num_patches
    rng = random.Random(name)
    assert backbones.fvcore_macs(model) == cost.flops(geometry, PruningConfig()).total
    for _ in range(CONFIGS_EACH):
        config = random_config(rng, geometry, least_layers=0)
        ztp_search.apply(model, config)
        out = cost.flops(geometry, config)
        assert out.total == backbones.fvcore_macs(model), config
        assert out.tokens == reference.token_counts(
            len(model.blocks), patches, model.num_prefix_tokens, config
        )


@pytest.mark.parametrize("name", SMALL)
def test_cost_equals_a_plain_fvcore_analysis(name: str) -> None:
    model = SMALL[name]().eval()
    geometry = backbones.geometry_of(model)
    layers = (PruningLayer(1, 0.8, 3, 4, merge_share=0.5), PruningLayer(2, 0.7, 0, 2, 1.0))
    dropping = PruningConfig(
        (PruningLayer(1, 0.8, 3, 4), PruningLayer(2, 0.7, 0, 2)), features="value"
    )
    merging = PruningConfig(layers, similar="merge", sizes="track", features="x")
    for applied in (None, dropping, merging):
        ztp_search.apply(model, applied)
        for block in model.blocks:
            block.attn.fused_attn = False  # fvcore counts nothing for the fused call
        image = torch.zeros(1, 3, *model.patch_embed.img_size)
        analysis = FlopCountAnalysis(model, image)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.tracer_warnings("none")
        expected = cost.flops(geometry, applied or PruningConfig())
        assert analysis.total() == expected.total
        by_module = analysis.by_module()
        for number, block_cost in enumerate(expected.blocks):
            assert by_module[f"blocks.{number}"] == block_cost.total


def test_counting_with_fvcore_leaves_the_model_as_it_was() -> None:
    model = vit()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    config = PruningConfig((PruningLayer(2, 0.5, 2, 2),))
    for applied in (None, config):
        ztp_search.apply(model, applied)
        before = [block.attn.fused_attn for block in model.blocks]
        expected = model(x)
        backbones.fvcore_macs(model)
        assert model.training
        assert [block.attn.fused_attn for block in model.blocks] == before
        assert torch.equal(model(x), expected)


def test_a_real_deit_costs_what_fvcore_counts() -> None:
    model = timm.create_model("deit_tiny_patch16_224", pretrained=False)
    assert backbones.fvcore_macs(model) == 1_258_411_200
    layers = tuple(PruningLayer(block, 0.8, 6, 5) for block in (3, 6, 9))
    tome = PruningConfig(
        tuple(PruningLayer(block, s_tokens=13) for block in range(1, 12)),
        similar="merge", sizes="track", partition="position",
    )  # fmt: skip
    for config in (PruningConfig(layers), tome):
        ztp_search.apply(model, config)
        expected = cost.flops(backbones.geometry_of(model), config)
        assert backbones.fvcore_macs(model) == expected.total


