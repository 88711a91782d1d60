"""fvcore's count of a model as it is configured, to set beside the cost model's."""

from __future__ import annotations

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from ztp_search.backbones.vision_transformer import pruner_of


def fvcore_macs(model: nn.Module) -> int:
    """Multiply-adds of one image through `model`, pruning included.

    fvcore counts nothing for the fused attention call, so all attention runs unfused meanwhile.
    """
    vit = pruner_of(model).model
    weight = vit.patch_embed.proj.weight
    image = weight.new_zeros(1, weight.shape[1], *vit.patch_embed.img_size)
    fused = [block.attn.fused_attn for block in vit.blocks]
    training = vit.training
    vit.eval()
    try:
        for block in vit.blocks:
            block.attn.fused_attn = False
        with torch.no_grad():
            count = FlopCountAnalysis(vit, image)
            count.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            count.tracer_warnings("none")
            return int(count.total())
    finally:
        for block, value in zip(vit.blocks, fused, strict=True):
            block.attn.fused_attn = value
        vit.train(training)
