"""What each family of `BACKBONES` brings to the contract suite: small models, and near misses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from helpers.small_vits import MODELS, TWO_LAYERS, make, vit
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import ParallelScalingBlock
from torch import nn

from ztp_search.pruning.config import PruningConfig, PruningLayer

Make = Callable[[], nn.Module]


class Refused(NamedTuple):
    """A model that a family does not support, and what its refusal must name."""

    make: Make
    names: tuple[str, ...]


EXAMPLES: Mapping[str, Mapping[str, Make]] = {
    "vision_transformer": {name: partial(make, name) for name in MODELS},
}
"""Per family, models of every make that it supports: in evaluation mode, float32, of four blocks or
more, the same at each call, with weights that keep their attention from being flat."""

REFUSED: Mapping[str, Sequence[Refused]] = {
    "vision_transformer": [
        Refused(
            lambda: Eva(img_size=28, patch_size=14, embed_dim=48, depth=2, num_heads=3), ("Eva",)
        ),
        Refused(
            lambda: SwinTransformer(
                img_size=32, patch_size=4, window_size=4, embed_dim=24, depths=(1, 1),
                num_heads=(2, 2),
            ),
            ("SwinTransformer",),
        ),
        Refused(partial(vit, block_fn=ParallelScalingBlock), ("block", "ParallelScalingBlock")),
        Refused(partial(vit, attn_layer="diff"), ("attention", "DiffAttention")),
        Refused(partial(vit, class_token=False, global_pool="map"), ("map",)),
        Refused(partial(vit, dynamic_img_size=True), ("image size",)),
        Refused(lambda: nn.Linear(3, 3), ("Linear",)),
    ],
}  # fmt: skip

MERGED = replace(
    TWO_LAYERS, similar="merge", sizes="track",
    layers=tuple(replace(layer, merge_share=0.5) for layer in TWO_LAYERS.layers),
)  # fmt: skip
"""`TWO_LAYERS`, with most tokens merged into others."""

UNSEEN = PruningConfig(
    (PruningLayer(2, 1.0, 4), PruningLayer(3, 1.0, 3)),
    partition="position", similar="merge", sizes="track",
)  # fmt: skip
"""Ranks no tokens: no block has to show its attention."""
