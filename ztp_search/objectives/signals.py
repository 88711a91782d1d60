"""What racing tells trials apart by: how far a trial's outputs are from what they should be.

Right or wrong is one bit per image. The total-variation distance between a trial's output
distribution and a target distribution says on every image how much pruning has done, and so ranks
trials on far fewer images (`benchmarks/signals.py`). It is called the loss of an image, and is kept
in 16 bits: of whole numbers every sum is exact, whatever the order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from ztp_search.racing.results import LOSS_UNITS

if TYPE_CHECKING:  # names of signals are known before torch is imported
    from torch import Tensor

Distributions: TypeAlias = npt.NDArray[np.float32]
"""Per image: the probability of each class, (images, classes)."""


class Signal(ABC):
    """What the outputs of a trial are compared with.

    Attributes:
        name: what `racing_signal` takes.
        soft: whether trials have losses; else they are told apart by right and wrong alone.
        needs_labels: whether every image must have a label.
    """

    name: ClassVar[str]
    soft: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False

    @abstractmethod
    def targets(
        self, unpruned: Distributions, labels: npt.NDArray[np.int64]
    ) -> Distributions | None:
        """The distribution that each image's output should have.

        Args:
            unpruned: that of the unpruned model, (images, classes).
            labels: the images' labels, (images,); -1 where unknown.

        Returns:
            (images, classes), or None where the signal is not soft.
        """

    def measured(self, loss: float) -> dict[str, float]:
        """What a mean loss says, under the name that studies and documents have for it."""
        return {self.name.replace("-", "_"): loss}


class TotalVariation(Signal):
    """Total variation from the unpruned model's output, in [0, 1]; needs no labels.

    It measures fidelity, not accuracy: an image that pruning mends counts like one that it spoils.
    """

    name = "total-variation"

    def targets(
        self, unpruned: Distributions, labels: npt.NDArray[np.int64]
    ) -> Distributions | None:
        return unpruned


class LabelProbability(Signal):
    """One minus the probability of the label, which is the total variation from certainty."""

    name = "label-probability"
    needs_labels = True

    def targets(
        self, unpruned: Distributions, labels: npt.NDArray[np.int64]
    ) -> Distributions | None:
        certain = np.zeros_like(unpruned)
        certain[np.arange(len(labels)), labels] = 1.0
        return certain

    def measured(self, loss: float) -> dict[str, float]:
        return {"label_probability": 1.0 - loss}


class Correct(Signal):
    """Right or wrong, as the objective has it, and nothing else."""

    name = "correct"
    soft = False

    def targets(
        self, unpruned: Distributions, labels: npt.NDArray[np.int64]
    ) -> Distributions | None:
        return None


SIGNALS: Mapping[str, Signal] = {
    signal.name: signal for signal in (TotalVariation(), LabelProbability(), Correct())
}
"""Instances by name, the default first."""


def distribution(logits: Tensor) -> Tensor:
    """The probability of each class in float32, (images, classes)."""
    return logits.float().softmax(-1)


def losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of each image: half the sum of absolute differences of probabilities.

    Args:
        logits: (images, classes), of any floating type.
        targets: float32 (images, classes), on the same device.

    Returns:
        int32 (images,), in units of 1 / LOSS_UNITS; an image whose logits are not all finite has
        the highest loss.
    """
    variation = (distribution(logits) - targets).abs().sum(-1) / 2  # (images,)
    variation = variation.where(logits.isfinite().all(-1), 1.0).clamp(max=1.0)
    return (variation * LOSS_UNITS).round().int()
