"""What a search maximises, and what racing tells trials apart by, by name; a new one is a line."""

from collections.abc import Mapping

from ztp_search.objectives.agreement import Agreement
from ztp_search.objectives.base import Objective, Predictions, Scores
from ztp_search.objectives.signals import SIGNALS, Distributions, Signal
from ztp_search.objectives.top1 import Top1

OBJECTIVES: Mapping[str, Objective] = {
    "top1": Top1(),
    "agreement": Agreement(),
}
"""Instances by name, the default first."""

__all__ = [
    "OBJECTIVES", "SIGNALS", "Agreement", "Distributions", "Objective", "Predictions", "Scores",
    "Signal", "Top1",
]  # fmt: skip
