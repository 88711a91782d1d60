"""What every objective is: what a worker keeps of the logits, and a score per image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # names of objectives are known before torch is imported
    from torch import Tensor

Predictions: TypeAlias = npt.NDArray[np.int32]
"""Per image: the class of the highest logit, -1 where a logit was not finite, (images,)."""

Scores: TypeAlias = npt.NDArray[Any]
"""Per image: how good the result is, 0 to 1, (images,); booleans where it is right or wrong."""


class Objective(ABC):
    """What a search maximises: the mean over images of a score in [0, 1].

    A worker calls `read` on the logits and sends back what that returns; the driver calls `score`
    on it. So only what an objective needs travels and is stored.

    Attributes:
        name: what `objective` takes, and the key under which results are reported.
        needs_labels: whether every image must have a label.
        binary: whether scores are booleans (right or wrong). The evidence test of racing and the
            paired intervals are those for booleans.
    """

    name: ClassVar[str]
    needs_labels: ClassVar[bool]
    binary: ClassVar[bool] = True

    def read(self, logits: Tensor) -> Tensor:
        """Reduce logits to what `score` needs, on the device that computed them.

        Args:
            logits: (images, classes), of any floating type.

        Returns:
            One row per image, (images, ...). By default it is the predicted class, -1 where a
            logit is not finite.
        """
        import torch

        finite = torch.isfinite(logits).all(-1)  # (images,)
        return torch.where(finite, logits.argmax(-1), -1)

    @abstractmethod
    def score(
        self, readings: Predictions, labels: npt.NDArray[np.int64], unpruned: Predictions
    ) -> Scores:
        """Score each image.

        Args:
            readings: what `read` returned for a configuration, (images, ...).
            labels: the images' labels, (images,); -1 where unknown.
            unpruned: what `read` returned for the unpruned model on the same images.

        Returns:
            A score per image, (images,), from 0 to 1.
        """
