"""Racing: paired statistics on per-image results, the evidence test, rungs and who goes on."""

from ztp_search.racing.rules import (
    RACING,
    Racing,
    cost_to_come,
    go_on,
    quota_after,
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
    "cost_to_come",
    "estimate",
    "go_on",
    "log_evidence",
    "paired_difference",
    "quota_after",
    "shown_worse",
    "standard_error",
]
