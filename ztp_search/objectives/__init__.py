"""What a search maximises, by the name that `objective` takes; a new one is a file and a line."""

from collections.abc import Mapping

from ztp_search.objectives.agreement import Agreement
from ztp_search.objectives.base import Objective, Predictions, Scores
from ztp_search.objectives.top1 import Top1

OBJECTIVES: Mapping[str, Objective] = {
    "top1": Top1(),
    "agreement": Agreement(),
}

__all__ = ["OBJECTIVES", "Agreement", "Objective", "Predictions", "Scores", "Top1"]
