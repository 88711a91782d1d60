"""A timm model with its weights, from the hub, from the package or from a file of the user's.

Weights are safetensors, or a state dict that loads with `weights_only=True`; nothing else is ever
unpickled.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import math
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import timm
import timm.data
import torch
from torch import nn

from ztp_search.config import check_keys
from ztp_search.data.source import OFFLINE_COMMAND, hub, one_line
from ztp_search.errors import ModelError

EMBEDDED_WEIGHTS = {"digits": "digits.safetensors"}
"""Weights that come with the package: name -> file in `ztp_search.data`."""

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")
_DATA_KEYS = {"input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode"}

# Where training scripts keep the state dict; averaged weights first, as timm does.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which model.

    name: a timm name, with or without a tag, or "hf-hub:owner/name".
    kwargs: passed on to timm's constructor.
    weights: None is timm's pretrained file from the hub or its cache, "digits" the embedded file;
        anything else is a path.
    num_classes: None is as many as timm's configuration of the model says.
    """

    name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    num_classes: int | None = None


@dataclass
class LoadedModel:
    """A model in evaluation mode: float32, on the CPU, no gradients.

    data_config: input_size (C, H, W), mean, std, interpolation, crop_pct, crop_mode, as JSON has
        them; mean and std have one value per channel.
    weights_sha256: of the tensors, whichever file format they came in.
    """

    model: nn.Module
    data_config: dict[str, Any]
    weights_sha256: str


def load_model(
    spec: ModelSpec, *, data_overrides: Mapping[str, Any] | None = None
) -> LoadedModel:
    """Build `spec`, load its weights strictly, and settle how images are prepared for it.

    data_overrides: entries of the data config that win over the model's own.
    Raises ModelError: an unknown name or argument, weights that are missing or do not fit.
    """
    _check_name(spec.name)
    if spec.weights is None:
        model = _pretrained(spec)
    else:
        model = _create(spec, pretrained=False)
        _fit(model, read_state_dict(spec.weights), spec.weights)
    model = model.eval().requires_grad_(False)
    config = _data_config(model, data_overrides or {})
    return LoadedModel(model, config, state_dict_sha256(model.state_dict()))


def build_model(spec: ModelSpec) -> nn.Module:
    """The model without its weights, in evaluation mode: enough to count what it costs."""
    _check_name(spec.name)
    return _create(spec, pretrained=False).eval().requires_grad_(False)


def parse_model_kwargs(items: Sequence[str]) -> dict[str, Any]:
    """`["img_size=40", "qk_norm=true"]` -> `{"img_size": 40, "qk_norm": True}`.

    Values are Python literals (and true, false, none in any case), otherwise strings.
    """
    kwargs: dict[str, Any] = {}
    for item in items:
        key, separator, value = item.partition("=")
        if not separator or not key.isidentifier():
            raise ModelError(f"--model-kwargs must be name=value, but got {item!r}")
        if key in kwargs:
            raise ModelError(f"--model-kwargs must name each argument once, but got {key} twice")
        literal = value.title() if value.lower() in ("true", "false", "none") else value
        try:
            kwargs[key] = ast.literal_eval(literal)
        except (ValueError, SyntaxError):
            kwargs[key] = value
    return kwargs


def _check_name(name: str) -> None:
    if ":" in name:  # a source other than timm's registry; timm checks it
        return
    architecture, _, tag = name.partition(".")
    if timm.is_model(architecture):
        pool = timm.list_models(f"{architecture}.*", pretrained=True)
        if not tag or name in pool:
            return
    else:
        pool = timm.list_models()
    close = difflib.get_close_matches(name, pool, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else "timm.list_models() names them"
    raise ModelError(f"--model must be a timm model, but got {name!r}; {hint}")


def _create(spec: ModelSpec, pretrained: bool) -> nn.Module:
    kwargs = dict(spec.kwargs)
    for key in ("pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"):
        if key in kwargs:
            raise ModelError(f"--model-kwargs must not hold {key}; use --weights FILE")
    if spec.num_classes is not None:
        if kwargs.setdefault("num_classes", spec.num_classes) != spec.num_classes:
            raise ModelError(f"--num-classes {spec.num_classes} contradicts "
                             f"num_classes={kwargs['num_classes']} in --model-kwargs")
    try:
        model: nn.Module = timm.create_model(spec.name, pretrained=pretrained, **kwargs)
    except OSError:  # the network's and the disk's are the caller's to explain
        raise
    except Exception as error:  # constructors check their arguments in their own ways
        given = ", ".join(f"{key}={value!r}" for key, value in kwargs.items()) or "no arguments"
        raise ModelError(f"model {spec.name} cannot be built with {given}: "
                         f"{one_line(error)}; correct --model-kwargs or --weights") from error
    return model


def _pretrained(spec: ModelSpec) -> nn.Module:
    """timm's own weights; refused where a part of the model would stay untrained."""
    with hub() as answers:
        try:
            model = _create(spec, pretrained=True)
        except OSError as error:  # all of the hub's, of the HTTP libraries' and of urllib's
            why = one_line(error) if answers else "the Hugging Face hub cannot be reached"
            raise ModelError(
                f"{_hub_file(spec.name)} is not in the cache and cannot be had ({why}); give it "
                f"with --weights FILE and images with --data FOLDER, or run offline: "
                f"{OFFLINE_COMMAND}"
            ) from error
    trained = getattr(model, "pretrained_cfg", {}).get("num_classes")
    classes = getattr(model, "num_classes", None)
    if trained and classes != trained:
        raise ModelError(
            f"the pretrained weights of {spec.name} have {trained} classes, but --num-classes is "
            f"{classes}, which would leave the classifier untrained; give --weights FILE"
        )
    return model


def _hub_file(name: str) -> str:
    """The file that a download begins with, as "repository/file"."""
    source, _, rest = name.rpartition(":")
    if source:
        return f"{rest}/config.json"
    config = timm.get_pretrained_cfg(name)
    return f"{config.hf_hub_id}/model.safetensors" if config.hf_hub_id else str(config.url)


def read_state_dict(weights: str) -> dict[str, torch.Tensor]:
    """Tensors by name from an embedded file, safetensors, or a checkpoint of `torch.save`.

    Wrappers ({"model": …}, {"state_dict": …} and their EMA twins) and the prefixes of
    DistributedDataParallel and torch.compile are taken off.
    """
    embedded = EMBEDDED_WEIGHTS.get(weights)
    path = Path(str(files("ztp_search.data") / embedded)) if embedded else Path(weights)
    if not path.is_file():
        raise ModelError(f"--weights must be a file or one of {', '.join(EMBEDDED_WEIGHTS)}, "
                         f"but there is no file {path}")
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = safetensors.torch.load_file(path)
        else:
            # timm's training script keeps its options beside the weights; a Namespace runs nothing.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(
            f"weights must be safetensors or a plain state dict, but {path} needs more of pickle "
            f"than is safe, so it was not loaded; convert it where you trust it: "
            f"safetensors.torch.save_file(model.state_dict(), 'model.safetensors')"
        ) from error
    except (safetensors.SafetensorError, OSError, RuntimeError, ValueError, EOFError,
            KeyError) as error:
        raise ModelError(f"weights {path} cannot be read ({one_line(error)}); they must be "
                         f"safetensors or a state dict saved by torch.save") from error
    while isinstance(content, Mapping):
        wrapper = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            break
        content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"weights {path} must hold tensors by name, but hold a "
                         f"{type(content).__name__}; save model.state_dict()")
    tensors: dict[str, torch.Tensor] = {}
    for key, value in content.items():
        if not isinstance(value, torch.Tensor):
            raise ModelError(f"weights {path} must hold tensors by name, but {key!r} is a "
                             f"{type(value).__name__}; save model.state_dict()")
        name = str(key)
        while name.startswith(_PREFIXES):
            name = name.partition(".")[2]
        tensors[name] = value
    return tensors


def _fit(model: nn.Module, tensors: Mapping[str, torch.Tensor], weights: str) -> None:
    """Load `tensors` into `model`; raises ModelError naming what is missing, too much, or of
    another shape."""
    expected = model.state_dict()
    missing = [key for key in expected if key not in tensors]
    unexpected = [key for key in tensors if key not in expected]
    misshapen = [
        f"{key} {tuple(tensors[key].shape)} for {tuple(value.shape)}"
        for key, value in expected.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    wrong = [
        f"{len(keys)} {what} ({', '.join(keys[:3])}{', …' if len(keys) > 3 else ''})"
        for what, keys in (("missing", missing), ("unexpected", unexpected),
                           ("of another shape", misshapen))
        if keys
    ]  # fmt: skip
    if wrong:
        raise ModelError(f"weights {weights} must fit the model, but have tensors "
                         f"{', '.join(wrong)}; correct --model, --model-kwargs or --num-classes")
    model.load_state_dict(tensors)


def _data_config(model: nn.Module, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """timm's evaluation config of the model with `overrides`, as JSON has it."""
    check_keys(overrides, "data config", set(), _DATA_KEYS, ModelError)
    for key, choices in (("interpolation", INTERPOLATIONS), ("crop_mode", CROP_MODES)):
        if overrides.get(key) not in (None, *choices):
            raise ModelError(f"{key} must be one of {', '.join(choices)}, "
                             f"but got {overrides[key]!r}")
    crop_pct = overrides.get("crop_pct")
    if crop_pct is not None and not (isinstance(crop_pct, int | float) and 0 < crop_pct <= 1):
        raise ModelError(f"0 < crop_pct <= 1 must hold, but got {crop_pct!r}")
    for key, length in (("mean", None), ("std", None), ("input_size", 3)):
        _check_numbers(key, overrides.get(key), length)
    trained = getattr(model, "pretrained_cfg", {})
    embed = getattr(model, "patch_embed", None)
    channels = getattr(getattr(embed, "proj", None), "in_channels", trained["input_size"][0])
    size = [channels, *(getattr(embed, "img_size", None) or trained["input_size"][1:])]
    if list(overrides.get("input_size") or size) != size:
        raise ModelError(f"input_size must be {size}, which is what the model takes, but got "
                         f"{overrides['input_size']}; set img_size or in_chans with --model-kwargs")
    config = timm.data.resolve_data_config(
        {key: overrides.get(key) for key in ("interpolation", "crop_pct", "crop_mode")},
        pretrained_cfg=trained,
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
        raise ModelError(f"{key} must have 1 or {channels} values, but got {given!r}")
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


def state_dict_sha256(state_dict: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, dtypes, shapes and bytes, sorted by name; no file format enters."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name}\0{dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
