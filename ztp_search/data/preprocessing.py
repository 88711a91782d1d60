"""From an encoded image to the pixels that a model sees, before they are normalised."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ztp_search.data.hub import one_line
from ztp_search.errors import DataError

Picture: TypeAlias = NDArray[np.uint8]  # (C, H, W)


def canonical(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a data config that decides about pixels, as JSON has it."""
    return {
        "input_size": [int(size) for size in config["input_size"]],
        "interpolation": str(config["interpolation"]),
        "crop_pct": float(config["crop_pct"]),
        "crop_mode": str(config["crop_mode"]),
        "mean": [float(value) for value in config["mean"]],
        "std": [float(value) for value in config["std"]],
    }


def mode_of(config: Mapping[str, Any]) -> str:
    """Pillow's mode for the number of channels; DataError where there is none."""
    channels = config["input_size"][0]
    if channels not in (1, 3):
        raise DataError(f"images must have 1 or 3 channels, but the model takes {channels}")
    return "L" if channels == 1 else "RGB"


def preprocessor(config: Mapping[str, Any]) -> Callable[[bytes | Image.Image], Picture]:
    """A function that decodes an image and puts timm's evaluation transform to it.

    The function raises whatever Pillow's decoders do on damaged data.

    Args:
        config: A canonical data config.
    """
    from timm.data import create_transform

    mode = mode_of(config)
    transform = create_transform(**config, is_training=False, normalize=False)

    def picture(image: bytes | Image.Image) -> Picture:
        if isinstance(image, bytes):
            image = Image.open(io.BytesIO(image))
        out: Picture = transform(image.convert(mode)).numpy()
        return out

    return picture


def read_pictures(paths: Sequence[Path], data_config: Mapping[str, Any]) -> Picture:
    """Image files as a model sees them, before normalisation, (images, C, H, W).

    Args:
        paths: The files, one or more.
        data_config: timm's data config of the model.

    Raises:
        DataError: One cannot be read, or is no image.
    """
    picture = preprocessor(canonical(data_config))
    out = []
    for path in paths:
        try:
            out.append(picture(path.read_bytes()))
        except Exception as error:  # as they like, and the file system's
            why = error.strerror if isinstance(error, OSError) else None
            raise DataError(
                f"`image` {path} cannot be read as an image: {why or one_line(error)}; give a "
                "picture file"
            ) from error
    return np.stack(out)
