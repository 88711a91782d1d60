"""A timm model with its weights, from the hub, from the package or from a file of the user's."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
from torch import nn

from ztp_search.backbones.data_config import data_config
from ztp_search.backbones.weights import fit, read_state_dict, state_dict_sha256
from ztp_search.data.hub import OFFLINE_COMMAND, hub, one_line
from ztp_search.errors import ModelError
from ztp_search.settings import ModelSpec


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
        fit(model, read_state_dict(spec.weights), spec.weights)
    model = model.eval().requires_grad_(False)
    config = data_config(model, data_overrides or {})
    return LoadedModel(model, config, state_dict_sha256(model.state_dict()))


def build_model(spec: ModelSpec) -> nn.Module:
    """The model without its weights, in evaluation mode: enough to count what it costs."""
    _check_name(spec.name)
    return _create(spec, pretrained=False).eval().requires_grad_(False)


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
                             f"num_classes={kwargs['num_classes']} in --model-kwargs or the space")
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
