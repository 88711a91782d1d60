"""The unpruned model's predictions and output distributions, kept beside the decoded images.

They are computed once per model and images, whatever studies need them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ztp_search.backbones.loading import LoadedModel
from ztp_search.data import ImageStore
from ztp_search.evaluation.runtime import Runtime
from ztp_search.pruning.geometry import Geometry
from ztp_search.settings import ModelSpec


def unpruned_path(
    folder: Path,
    model: ModelSpec,
    loaded: LoadedModel,
    geometry: Geometry,
    images: ImageStore,
    runtime: Runtime,
) -> Path:
    """The file of the predictions: its name is a digest of all that can change a bit of them.

    Beside it, at `distributions_path`, lies the file of the distributions.
    """
    device = "cpu" if runtime.device == "cpu" else torch.cuda.get_device_name()
    key = {
        "model": dataclasses.asdict(model),
        "weights_sha256": loaded.weights_sha256,
        "geometry": dataclasses.asdict(geometry),
        "images": images.digest,
        "runtime": dataclasses.asdict(runtime),
        "versions": [torch.__version__, device, torch.backends.cpu.get_cpu_capability()],
    }
    name = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
    return folder / "unpruned" / f"{name[:32]}.npy"


def distributions_path(path: Path) -> Path:
    """The file of the output distributions that belong to a file of predictions."""
    return path.with_name(f"{path.stem}-distributions.npy")


def read_array(path: Path, dtype: npt.DTypeLike, images: int) -> npt.NDArray[Any] | None:
    """An array of so many images; None where there is none, or the file is damaged."""
    try:
        array: npt.NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array if array.dtype == dtype and len(array) == images else None


def write_array(path: Path, array: npt.NDArray[Any]) -> None:
    """Write under a temporary name and rename, so that the file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.save(file, array)
    temporary.replace(path)
