"""The families of models that can be pruned, and which of them a model belongs to."""

from __future__ import annotations

from torch import nn

from ztp_search.backbones.base import Backbone
from ztp_search.backbones.vision_transformer import VisionTransformerBackbone
from ztp_search.errors import ModelError
from ztp_search.pruning.geometry import Geometry

BACKBONES: dict[str, type[Backbone]] = {"vision_transformer": VisionTransformerBackbone}
"""Families by name. One that is added here is found by all commands, and tested by its examples
in `tests/helpers/backbone_examples.py`."""


def backbone_of(model: nn.Module) -> Backbone:
    """`model` as a member of the first family that supports it.

    Raises:
        ModelError: no family does; says what about the model is in the way, and what would do.
    """
    reason = name = type(model).__name__
    for family in BACKBONES.values():
        refusal = family.refusal(model)
        if refusal is None:
            return family(model)
        if reason == name:  # the first that says more than that it does not know the class
            reason = refusal
    supported = "; ".join(family.SUPPORTED for family in BACKBONES.values())
    raise ModelError(f"{reason} is not supported; supported is {supported}")


def geometry_of(model: nn.Module) -> Geometry:
    """The sizes of `model` that decide what a configuration costs; weights do not matter.

    Raises:
        ModelError: the model is not supported.

    Example:
        >>> geometry = geometry_of(timm.create_model("deit_small_patch16_224"))
        >>> flops(geometry, PruningConfig()).total
        4608338304
    """
    return backbone_of(model).geometry()
