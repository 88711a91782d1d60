"""A trial on its way into the database, and as it comes back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ztp_search.pruning.config import PruningConfig


@dataclass(frozen=True, slots=True)
class NewTrial:
    """A trial that begins; `attrs` are JSON values."""

    number: int
    config: PruningConfig
    attrs: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Update:
    """What has become of a running trial.

    state: running (it goes on), complete, pruned or failed. value: its estimate, a fraction of
    one; None where it failed. attrs: JSON values, over those of the same names. rung: images seen
    at the rung that was finished, at which `value` is kept as well; None: no rung.
    """

    number: int
    state: str
    value: float | None
    attrs: Mapping[str, Any]
    rung: int | None = None

    def __post_init__(self) -> None:
        if self.value is not None and not 0.0 <= self.value <= 1.0:  # NaN is not either
            raise ValueError(
                f"trial {self.number}: accuracy is a fraction of one, but got {self.value}"
            )
        assert (self.value is None) == (self.state == "failed")
        assert self.value is not None or self.rung is None
        assert "config" not in self.attrs


@dataclass(frozen=True, slots=True)
class StoredTrial:
    """One trial as the database has it.

    number: the sampler's index of the trial, from 0.
    state: running, complete, pruned or failed; a dead driver's trials stay running.
    value: estimate of accuracy, a fraction of one; None while running and where it failed.
    attrs: what came with `start` and the updates; a failed one has `failure`.
    rungs: the estimate at each rung that was finished, by images seen.
    """

    number: int
    state: str
    value: float | None
    config: PruningConfig
    attrs: dict[str, Any]
    rungs: dict[int, float]


def rank(trial: StoredTrial) -> tuple[float, float, int]:
    """Sorts complete trials: highest value, then fewest GFLOPs, then lowest number."""
    assert trial.value is not None
    return -trial.value, trial.attrs.get("gflops", {}).get("total", math.inf), trial.number
