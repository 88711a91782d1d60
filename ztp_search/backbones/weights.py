"""Weights as tensors by name: read from a file, fitted into a model, told apart by a digest.

Files are safetensors, or a state dict that loads with `weights_only=True`; nothing else is ever
unpickled.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from ztp_search.data.hub import one_line
from ztp_search.errors import ModelError
from ztp_search.files import is_file

EMBEDDED_WEIGHTS = {"digits": "digits.safetensors"}
"""Weights that come with the package: name -> file in `ztp_search.data`."""

# Where training scripts keep the state dict; averaged weights first, as timm does.
_WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # DistributedDataParallel, torch.compile


def read_state_dict(weights: str) -> dict[str, torch.Tensor]:
    """Tensors by name from an embedded file, safetensors, or a checkpoint of `torch.save`.

    Wrappers ({"model": …}, {"state_dict": …} and their EMA twins) and the prefixes of
    DistributedDataParallel and torch.compile are taken off.

    Args:
        weights: a name of `EMBEDDED_WEIGHTS`, else a path.

    Raises:
        ModelError: there is no such file, it cannot be read without running what is in it, or it
            holds something other than tensors by name.
    """
    embedded = EMBEDDED_WEIGHTS.get(weights)
    path = Path(str(files("ztp_search.data") / embedded)) if embedded else Path(weights)
    if not is_file(path):
        raise ModelError(f"`weights` must be a file or one of {', '.join(EMBEDDED_WEIGHTS)}, "
                         f"but there is no file {path}")
    content = _load(path)
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


def _load(path: Path) -> Any:
    """What a file of weights holds; nothing in it is run."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        # timm's training script keeps its options beside the weights; a Namespace runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
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


def fit(model: nn.Module, tensors: Mapping[str, torch.Tensor], weights: str) -> None:
    """Load `tensors` into `model`, which must have the same names and shapes.

    Args:
        model: changed in place.
        tensors: by name; converted to the model's types.
        weights: where they come from, for messages.

    Raises:
        ModelError: names what is missing, unexpected, or of another shape.
    """
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
                         f"{', '.join(wrong)}; correct `model`, `model_kwargs` or `num_classes`")
    model.load_state_dict(tensors)


def state_dict_sha256(state_dict: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of names, dtypes, shapes and bytes, sorted by name; no file format enters."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name}\0{dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
