"""A trial of a cohort, with the results it has so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ztp_search.driver.packing import pack, unpack_bits
from ztp_search.evaluation.scheduler import Outcome
from ztp_search.pruning.config import PruningConfig
from ztp_search.racing import Correct, estimate, paired_difference
from ztp_search.study import StoredTrial


@dataclass(slots=True)
class RacingTrial:
    """A trial that climbs the rungs.

    Attributes:
        number: of the trial in the study.
        config: what is evaluated.
        point: of the unit cube, from which `config` was decoded.
        state: "running", "complete", "pruned" or "failed".
        value: the estimate of its accuracy; None before the first rung and where it failed.
        sampler_value: what samplers are given instead, one standard error below `value`: trials
            that were stopped early look better by chance than those that were not.
        correct: score per image seen, (images_seen,).
        fallbacks: images for which the head filter left no head.
        seconds: of forward passes.
    """

    number: int
    config: PruningConfig
    point: tuple[float, ...]
    state: str = "running"
    value: float | None = None
    sampler_value: float | None = None
    correct: Correct = field(default_factory=lambda: np.zeros(0, np.bool_))
    fallbacks: int = 0
    seconds: float = 0.0

    @classmethod
    def from_stored(cls, stored: StoredTrial) -> RacingTrial:
        """The trial as the database has it."""
        trial = cls(stored.number, stored.config, tuple(stored.attrs["point"]), stored.state)
        images = stored.attrs.get("images", 0)
        if images:
            trial.correct = unpack_bits(stored.attrs["correct"], images)
            trial.fallbacks = round(stored.attrs["fallback_share"] * images)
            trial.seconds = stored.attrs["evaluation_seconds"]
            trial.value = stored.rungs[images] if stored.value is None else stored.value
            trial.sampler_value = trial.value - stored.attrs["standard_error"]
        if stored.state == "failed":
            trial.value = trial.sampler_value = None
        return trial

    @property
    def images_seen(self) -> int:
        """Images that the trial was evaluated on so far."""
        return len(self.correct)

    def fail(self) -> None:
        """Mark the trial as failed; its estimate is worth nothing then."""
        self.state, self.value, self.sampler_value = "failed", None, None

    def add(self, outcome: Outcome, correct: Correct, unpruned: Correct) -> dict[str, Any]:
        """Add the results of a rung, and renew the estimate.

        Args:
            outcome: of the images that follow those seen so far.
            correct: its scores.
            unpruned: the unpruned model's scores on all search images.

        Returns:
            The attributes that the database keeps of the trial's results so far.
        """
        self.correct = np.concatenate([self.correct, correct])
        self.fallbacks += outcome.fallbacks
        self.seconds += outcome.seconds
        images = self.images_seen
        estimated = estimate(self.correct, unpruned)
        difference = paired_difference(self.correct, unpruned[:images])
        self.value = estimated.value
        self.sampler_value = estimated.value - estimated.standard_error
        return {
            "images": images,
            "standard_error": estimated.standard_error,
            "minus_unpruned": difference.difference,
            "minus_unpruned_ci95": list(difference.ci95),
            "fallback_share": self.fallbacks / images,
            "evaluation_seconds": self.seconds,
            "correct": pack(self.correct),
        }
