"""Model families that can be pruned: one file each, with `geometry_of` and `pruner_of`."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

from ztp_search.backbones.counting import fvcore_macs
from ztp_search.backbones.trunk import Trunk
from ztp_search.backbones.vision_transformer import Pruner, geometry_of, pruner_of
from ztp_search.pruning.config import PruningConfig

__all__ = ["Pruner", "Trunk", "apply", "fvcore_macs", "geometry_of", "pruner_of"]

ModelT = TypeVar("ModelT", bound=nn.Module)


def apply(
    model: ModelT, config: PruningConfig | None, *, record_tokens: bool = False
) -> ModelT:
    """Prune `model` as `config` says from its next forward on; None makes it stock again.

    The model is patched in place and returned; `model(x)` is called as before. With
    `record_tokens`, `model.ztp_tokens` lists after each forward, per pruning layer,
    {"after_block": l, "s": …, "i": …, "layer": …}: indices into the unpruned sequence, prefix
    included, (images, kept) of what is left after the S-stage, the I-stage and the whole layer.

    Raises ModelError for a model that is not supported, ConfigError where the configuration
    does not fit it.
    """
    pruner_of(model).set(config, record_tokens)
    return model
