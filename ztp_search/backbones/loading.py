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


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A classifier in evaluation mode: float32, on the CPU, no gradients.

    Attributes:
        model: of timm.
        data_config: input_size (C, H, W), mean, std, interpolation, crop_pct, crop_mode, as JSON
            has them; mean and std have one value per channel.
        weights_sha256: of the tensors, whichever file format they came in.
    """

    model: nn.Module
    data_config: dict[str, Any]
    weights_sha256: str


def load_model(
    spec: ModelSpec, *, data_overrides: Mapping[str, Any] | None = None
) -> LoadedModel:
    """Build a model, load its weights strictly, and settle how images are prepared for it.

    Args:
        spec: which model, with which weights. It must have a classifier, as all that is measured
            of it are its class predictions.
        data_overrides: entries of the data config that take the place of the model's own.

    Raises:
        ModelError: an unknown name or argument, no classifier, weights that are missing or do not
            fit, a part of the model that no weights were trained for, a data override that does
            not fit, or a model that is not supported.

    Example:
        >>> spec = resolve_search(SearchSettings(space="digits", budget="50%")).sources.model
        >>> load_model(spec).data_config["input_size"]
        [1, 40, 40]
    """
    _check_name(spec.name)
    _check_classes_before_loading(spec)
    if spec.weights is None:
        model = _pretrained(spec)
    else:
        model = _create(spec, pretrained=False)
        _check_classes(spec, None, _classes(model))
        fit(model, read_state_dict(spec.weights), spec.weights)
    model = model.eval().requires_grad_(False)
    config = data_config(model, data_overrides or {})
    return LoadedModel(model, config, state_dict_sha256(model.state_dict()))


def build_model(spec: ModelSpec) -> nn.Module:
    """The model without its weights, in evaluation mode: enough to count what it costs.

    It needs no classifier: what a model costs that gives features can be counted too.

    Raises:
        ModelError: an unknown name or argument.
    """
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
    raise ModelError(f"`model` must be a timm model, but got {name!r}; {hint}")


def _check_classes_before_loading(spec: ModelSpec) -> None:
    """Check the classes of a model in timm's registry before its weights are downloaded."""
    config = None if ":" in spec.name else timm.get_pretrained_cfg(spec.name)
    if config is not None:
        asked = spec.num_classes if spec.num_classes is not None else config.num_classes
        trained = config.num_classes if spec.weights is None else None
        _check_classes(spec, trained, spec.kwargs.get("num_classes", asked))


def _check_classes(spec: ModelSpec, trained: int | None, classes: int | None) -> None:
    """Refuse a model without a classifier, or with one that would stay untrained.

    trained: classes of timm's own weights; None where others are loaded, or nobody knows.
    """
    if not classes:
        raise ModelError(
            f"a model must have a classifier to be searched or evaluated, but {spec.name} has "
            f"none; give `num_classes` with the `weights` of a trained one, or another `model`"
        )
    if trained is not None and classes != trained:
        has = f"{trained} classes" if trained else "no classifier"
        raise ModelError(
            f"the pretrained weights of {spec.name} have {has}, but `num_classes` is {classes}, "
            f"which would leave the classifier untrained; give a file of trained `weights`"
        )


def _classes(model: nn.Module) -> int | None:
    """Classes that a timm model tells apart; 0 or None where it has no classifier."""
    classes: int | None = getattr(model, "num_classes", None)
    return classes


def _create(spec: ModelSpec, pretrained: bool) -> nn.Module:
    kwargs = dict(spec.kwargs)
    for key in ("pretrained", "checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"):
        if key in kwargs:
            raise ModelError(f"`model_kwargs` must not hold {key}; give a file as `weights`")
    if spec.num_classes is not None:
        if kwargs.setdefault("num_classes", spec.num_classes) != spec.num_classes:
            raise ModelError(f"`num_classes` {spec.num_classes} contradicts num_classes="
                             f"{kwargs['num_classes']} in `model_kwargs` or the space; "
                             f"leave one of them out")
    try:
        model: nn.Module = timm.create_model(spec.name, pretrained=pretrained, **kwargs)
    except OSError:  # the network's and the disk's are the caller's to explain
        raise
    except Exception as error:  # constructors check their arguments in their own ways
        given = ", ".join(f"{key}={value!r}" for key, value in kwargs.items()) or "no arguments"
        raise ModelError(f"model {spec.name} cannot be built with {given}: "
                         f"{one_line(error)}; correct `model_kwargs` or `weights`") from error
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
                f"as `weights` and a folder of images as `data`, or run offline: "
                f"{OFFLINE_COMMAND}"
            ) from error
    trained = getattr(model, "pretrained_cfg", {}).get("num_classes")
    _check_classes(spec, trained, _classes(model))
    return model


def _hub_file(name: str) -> str:
    """The file that a download begins with, as "repository/file"."""
    source, _, rest = name.rpartition(":")
    if source:
        return f"{rest}/config.json"
    config = timm.get_pretrained_cfg(name)
    return f"{config.hf_hub_id}/model.safetensors" if config.hf_hub_id else str(config.url)
