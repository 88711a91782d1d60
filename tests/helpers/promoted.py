"""What the rules of racing decide, as yes and no."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from ztp_search.racing import Correct, Racing, Results, stopped
from ztp_search.racing.sequential_test import Counts, log_evidence_worse, log_wealth, needed


def survivors(racing: Racing, cohort: Mapping[int, Results], *others: Any) -> set[int]:
    """The trials of a cohort that go on to the next rung."""
    return cohort.keys() - stopped(racing, cohort, *others).keys()


def shown_worse(wins: Counts, losses: Counts, rivals: int) -> Correct:
    """Whom discordant pairs stop, (challengers,)."""
    worse: Correct = log_evidence_worse(wins, losses) >= needed(rivals)
    return worse


def shown_to_lose_more(differences: npt.NDArray[Any], rivals: int) -> Correct:
    """Whom paired differences of losses stop, (challengers,)."""
    worse: Correct = log_wealth(differences) >= needed(rivals)
    return worse
