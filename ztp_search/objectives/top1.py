"""Top-1 accuracy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ztp_search.objectives.base import Objective, Predictions, Scores


class Top1(Objective):
    """Whether the predicted class is the label."""

    name = "top1"
    needs_labels = True

    def score(
        self, readings: Predictions, labels: npt.NDArray[np.int64], unpruned: Predictions
    ) -> Scores:
        correct: Scores = (readings == labels) & (readings >= 0)
        return correct
