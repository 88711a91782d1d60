"""Small vision transformers of every supported make, which the tests of pruned models share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import timm
import torch
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from torch import Tensor

from ztp_search.pruning.config import PruningConfig, PruningLayer

vit = partial(
    VisionTransformer, img_size=32, patch_size=8, embed_dim=48, depth=4, num_heads=3, num_classes=7
)
MODELS: dict[str, Callable[[], VisionTransformer]] = {
    "class token": vit,
    "no class token": partial(vit, class_token=False, global_pool="avg"),
    "class token, average pool": partial(vit, global_pool="avg"),
    "distilled": partial(
        timm.create_model, "deit_tiny_distilled_patch16_224",
        img_size=64, embed_dim=48, depth=4, num_heads=3, num_classes=7,
    ),
    "registers": partial(vit, reg_tokens=4),
    "registers, no class token": partial(vit, reg_tokens=4, class_token=False, global_pool="avg"),
    "qk norm": partial(vit, qk_norm=True),
    "scale norms": partial(vit, scale_attn_norm=True, scale_mlp_norm=True),
    "layer scale": partial(vit, init_values=0.5),
    "no embed class": partial(vit, no_embed_class=True, reg_tokens=1),
    "norm before the blocks": partial(vit, pre_norm=True),
    "pooled norm": partial(vit, fc_norm=True, global_pool="avg"),
    "norm after attention": partial(vit, block_fn=ResPostBlock),
    "odd grid, more blocks": partial(vit, img_size=40, depth=6, embed_dim=64, num_heads=4),
}  # fmt: skip

TWO_LAYERS = PruningConfig(
    (PruningLayer(1, 0.9, 3, 4), PruningLayer(3, 0.6, 2, 2)), v_min=0.0, v_max=1e6
)


def make(name: str, dtype: torch.dtype = torch.float32) -> VisionTransformer:
    """The same model each time, its weights spread enough that attention is not flat."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[name]().eval().requires_grad_(False).to(dtype)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        spread = 1.5 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.3
        parameter.add_((spread * noise).to(dtype))
    return model


def images_for(model: VisionTransformer, images: int = 3) -> Tensor:
    size = model.patch_embed.img_size
    generator = torch.Generator().manual_seed(1)
    like = next(model.parameters())
    pixels = torch.randn((images, 3, *size), generator=generator, dtype=torch.float64)
    return pixels.to(like.dtype)
