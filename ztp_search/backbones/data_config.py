"""How images are prepared for a model: timm's evaluation config, with the user's changes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import timm.data
from torch import nn

from ztp_search.backbones.families import backbone_of
from ztp_search.errors import ModelError
from ztp_search.pruning.config import check_keys

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")
_KEYS = {"input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode"}


def data_config(model: nn.Module, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """How images are prepared for `model`, as JSON has it.

    Args:
        model: a supported model, which has timm's `pretrained_cfg` of its weights.
        overrides: entries that take the place of the model's own; one number for `mean` or `std`
            stands for every channel.

    Returns:
        input_size (C, H, W), mean and std (a number per channel), interpolation, crop_pct and
        crop_mode.

    Raises:
        ModelError: an override is malformed or does not fit the model, or the model is not
            supported.
    """
    check_keys(overrides, "data config", set(), _KEYS, ModelError)
    for key, choices in (("interpolation", INTERPOLATIONS), ("crop_mode", CROP_MODES)):
        if overrides.get(key) not in (None, *choices):
            raise ModelError(f"{key} must be one of {', '.join(choices)}, "
                             f"but got {overrides[key]!r}")
    crop_pct = overrides.get("crop_pct")
    if crop_pct is not None and not (isinstance(crop_pct, int | float) and 0 < crop_pct <= 1):
        raise ModelError(f"0 < crop_pct <= 1 must hold, but got {crop_pct!r}")
    for key, length in (("mean", None), ("std", None), ("input_size", 3)):
        _check_numbers(key, overrides.get(key), length)
    size = list(backbone_of(model).input_size)
    channels = size[0]
    if list(overrides.get("input_size") or size) != size:
        raise ModelError(f"input_size must be {size}, which is what the model takes, but got "
                         f"{overrides['input_size']}; set img_size or in_chans in `model_kwargs`")
    config = timm.data.resolve_data_config(
        {key: overrides.get(key) for key in ("interpolation", "crop_pct", "crop_mode")},
        pretrained_cfg=getattr(model, "pretrained_cfg", {}),
    )
    return {
        "input_size": [int(length) for length in size],
        "mean": _per_channel("mean", overrides.get("mean"), config["mean"], channels),
        "std": _per_channel("std", overrides.get("std"), config["std"], channels),
        "interpolation": config["interpolation"],
        "crop_pct": float(config["crop_pct"]),
        "crop_mode": config["crop_mode"],
    }


def _per_channel(key: str, given: Any, trained: Sequence[float], channels: int) -> list[float]:
    """One value per channel, from the user's or the model's own."""
    if given is None:
        # As timm does for a model whose first layer was adapted to other channels.
        same = len(trained) == channels
        return [float(v) for v in trained] if same else [sum(trained) / len(trained)] * channels
    if len(given) not in (1, channels):
        count = "1 value" if channels == 1 else f"1 value, or one for each of {channels} channels,"
        raise ModelError(f"{key} must have {count} but got {given!r}")
    return [float(value) for value in given] * (channels if len(given) == 1 else 1)


def _check_numbers(key: str, values: Any, length: int | None) -> None:
    if values is None:
        return
    numbers = isinstance(values, list | tuple) and values and all(
        isinstance(value, int | float) and math.isfinite(value) for value in values
    )
    if not numbers or length not in (None, len(values)):
        what = f"{length} numbers" if length else "a list of numbers, one or one per channel"
        raise ModelError(f"{key} must be {what}, but got {values!r}")
    if key != "mean" and min(values) <= 0:
        raise ModelError(f"{key} must be above 0, but got {values!r}")
