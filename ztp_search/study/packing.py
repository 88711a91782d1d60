"""Per-image results as text for the database."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from ztp_search.racing import Correct, Losses


def pack(array: npt.NDArray[Any]) -> str:
    """Compress an array of booleans, int32 or uint16 into text."""
    data = np.packbits(array).tobytes() if array.dtype == np.bool_ else array.tobytes()
    return base64.b64encode(zlib.compress(data, 9)).decode()


def unpack_bits(text: str, images: int) -> Correct:
    """Return the booleans that `pack` wrote, (images,)."""
    return np.unpackbits(_unpack(text, np.uint8), count=images).astype(np.bool_)


def unpack_predictions(text: str) -> npt.NDArray[np.int32]:
    """Return the int32 that `pack` wrote, (images,)."""
    return _unpack(text, np.int32)


def unpack_losses(text: str) -> Losses:
    """Return the uint16 that `pack` wrote, (images,)."""
    return _unpack(text, np.uint16)


def _unpack(text: str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype)
