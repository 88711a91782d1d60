"""Families of models that can be pruned, one file each, and what is done with any of them."""

from ztp_search.backbones.activation_cache import ActivationCache
from ztp_search.backbones.base import Backbone, BlockObservation
from ztp_search.backbones.counting import fvcore_macs
from ztp_search.backbones.families import BACKBONES, backbone_of, geometry_of
from ztp_search.backbones.pruner import Pruner, apply, pruner_of

__all__ = [
    "BACKBONES",
    "ActivationCache",
    "Backbone",
    "BlockObservation",
    "Pruner",
    "apply",
    "backbone_of",
    "fvcore_macs",
    "geometry_of",
    "pruner_of",
]
