"""Racing: paired statistics on per-image results, evidence tests, rungs and their survivors."""

from ztp_search.racing.prediction import predicted_differences
from ztp_search.racing.results import LOSS_UNITS, NOTHING, Losses, Results
from ztp_search.racing.rules import (
    FINALISTS,
    RACING,
    Racing,
    first_rung,
    lot,
    shown_equal,
    stopped,
)
from ztp_search.racing.sequential_test import (
    log_evidence,
    log_wealth,
)
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
    "FINALISTS",
    "LOSS_UNITS",
    "NOTHING",
    "RACING",
    "Correct",
    "Estimate",
    "Losses",
    "PairedDifference",
    "Racing",
    "Results",
    "accuracy",
    "estimate",
    "first_rung",
    "log_evidence",
    "log_wealth",
    "lot",
    "paired_difference",
    "predicted_differences",
    "shown_equal",
    "standard_error",
    "stopped",
]
