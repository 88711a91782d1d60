"""What a prediction is judged by, and per-image results as text for the database."""

from __future__ import annotations

import base64
import zlib
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ztp_search.data import ImageSets
from ztp_search.errors import DataError
from ztp_search.racing import Correct

Predictions: TypeAlias = npt.NDArray[np.int32]
"""Per image: the class of the highest logit, -1 where there is none, (images,)."""


def judge(
    objective: str, predictions: Predictions, labels: npt.NDArray[np.int64], unpruned: Predictions
) -> Correct:
    """Per image: is the prediction what the objective asks for?

    top1: the label; agreement: the unpruned model's prediction.
    """
    target = labels if objective == "top1" else unpruned
    correct: Correct = (predictions == target) & (predictions >= 0)  # -1 is no prediction
    return correct


def check_labels(images: ImageSets, objective: str) -> None:
    """top1 needs labels; DataError says why there are none."""
    if objective != "top1":
        return
    unknown = sum(int((store.labels < 0).sum()) for store in (images.search, images.holdout))
    if unknown and not images.unlabelled:
        raise DataError(
            f"--objective top1 needs labels, but {unknown} images have none; use --objective "
            "agreement, or a --split with labels"
        )
    if images.unlabelled:
        raise DataError(
            f"--objective top1 needs labels, but {images.unlabelled}; use --objective agreement "
            "(with the unpruned model, no labels needed) or give --class-map"
        )


def pack(array: npt.NDArray[Any]) -> str:
    """An array of bools or int32 as text for the database."""
    data = np.packbits(array).tobytes() if array.dtype == np.bool_ else array.tobytes()
    return base64.b64encode(zlib.compress(data, 9)).decode()


def unpack_bits(text: str, images: int) -> Correct:
    """The bools that `pack` wrote."""
    data = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return np.unpackbits(data, count=images).astype(np.bool_)


def unpack_predictions(text: str) -> Predictions:
    """The int32 that `pack` wrote."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.int32)
