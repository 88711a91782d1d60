"""fvcore's count of a model as it is configured, to set beside the cost model's."""

from __future__ import annotations

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

from ztp_search.backbones.families import backbone_of


def fvcore_macs(model: nn.Module) -> int:
    """Multiply-adds of one image through `model`, pruning included.

    fvcore counts nothing for the fused attention call, so all attention runs unfused meanwhile.

    Raises:
        ModelError: the model is not supported.

    Example:
        >>> fvcore_macs(timm.create_model("deit_small_patch16_224"))
        4608338304
    """
    backbone = backbone_of(model)
    training = model.training
    model.eval()
    try:
        with backbone.unfused_attention(), torch.no_grad():
            count = FlopCountAnalysis(model, backbone.example_input())
            count.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
            count.tracer_warnings("none")
            return int(count.total())
    finally:
        model.train(training)
