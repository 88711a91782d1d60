"""The unpruned model's predictions, kept beside the decoded images.

They are computed once per model and images, whatever studies need them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch

from ztp_search.backbones.loading import LoadedModel
from ztp_search.data import ImageStore
from ztp_search.evaluation.runtime import Runtime
from ztp_search.objectives import Predictions
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
    """The file of the predictions: its name is a digest of all that can change a bit of them."""
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


def read_unpruned(path: Path, images: int) -> Predictions | None:
    """The predictions of so many images; None where there are none, or the file is damaged."""
    try:
        predictions: Predictions = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = predictions.dtype == np.int32 and predictions.shape == (images,)
    return predictions if whole else None


def write_unpruned(path: Path, predictions: Predictions) -> None:
    """Write under a temporary name and rename, so that the file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.save(file, predictions)
    temporary.replace(path)
