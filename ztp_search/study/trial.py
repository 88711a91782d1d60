"""A trial on its way into the database, and as it comes back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ztp_search.pruning.config import PruningConfig
from ztp_search.racing import lot

UPDATED_STATES = ("running", "complete", "pruned", "failed")


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
        rule = self._broken_rule()
        if rule:
            raise ValueError(f"trial {self.number}: {rule}")

    def _broken_rule(self) -> str | None:
        if self.state not in UPDATED_STATES:
            return f"a state is one of {', '.join(UPDATED_STATES)}, but got {self.state!r}"
        if (self.value is None) != (self.state == "failed"):
            return f"a value comes with every state but failed, but got {self.value}, {self.state}"
        if self.value is not None and not 0.0 <= self.value <= 1.0:  # NaN is not either
            return f"accuracy is a fraction of one, but got {self.value}"
        if self.value is None and self.rung is not None:
            return f"a failed trial has finished no rung, but got {self.rung}"
        if "config" in self.attrs:
            return "`config` is stored when it starts, not by an update"
        return None


@dataclass(frozen=True, slots=True)
class StoredTrial:
    """One trial as the database has it.

    Attributes:
        number: the sampler's index of the trial, from 0.
        state: running, complete, pruned or failed; a dead driver's trials stay running.
        value: estimate of accuracy, a fraction of one; None while running and where it failed.
        config: how it prunes.
        attrs: what came with `start` and the updates; a failed one has `failure`.
        rungs: the estimate at each rung that was finished, by images seen.
    """

    number: int
    state: str
    value: float | None
    config: PruningConfig
    attrs: dict[str, Any]
    rungs: dict[int, float]


def rank(
    trial: StoredTrial, scores: Mapping[str, float]
) -> tuple[bool, float, float, float, bytes]:
    """Sorts complete trials: highest score, then least loss, then fewest GFLOPs, then by lot.

    Those without a score, of a search that was interrupted, come last, highest value first.
    """
    assert trial.value is not None
    scored = str(trial.number) in scores
    value = scores[str(trial.number)] if scored else trial.value
    gflops = trial.attrs.get("gflops", {}).get("total", math.inf)
    return not scored, -value, trial.attrs.get("loss", 0.0), gflops, lot(trial.number)
