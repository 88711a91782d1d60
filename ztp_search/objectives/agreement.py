"""Agreement with the unpruned model, which needs no labels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ztp_search.objectives.base import Objective, Predictions, Scores


class Agreement(Objective):
    """Whether the predicted class is the one that the unpruned model predicts."""

    name = "agreement"
    needs_labels = False

    def score(
        self, readings: Predictions, labels: npt.NDArray[np.int64], unpruned: Predictions
    ) -> Scores:
        same: Scores = (readings == unpruned) & (readings >= 0)
        return same
