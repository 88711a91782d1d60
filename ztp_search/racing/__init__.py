"""Racing: paired statistics on per-image results, the evidence test, rungs and their survivors."""

from ztp_search.racing.rules import (
    RACING,
    Racing,
    promotion_quota,
    remaining_evaluations,
    survivors,
)
from ztp_search.racing.sequential_test import log_evidence, shown_worse
from ztp_search.racing.statistics import (
    Correct,
    Estimate,
    PairedDifference,
    accuracy,
    estimate,
    paired_difference,
    standard_error,
)

__all__ = [
    "RACING",
    "Correct",
    "Estimate",
    "PairedDifference",
    "Racing",
    "accuracy",
    "estimate",
    "log_evidence",
    "paired_difference",
    "promotion_quota",
    "remaining_evaluations",
    "shown_worse",
    "standard_error",
    "survivors",
]
