"""A trial of a cohort, with the results it has so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ztp_search.evaluation.origin import Origins, joined, origins_from_json, origins_to_json
from ztp_search.evaluation.scheduler import Outcome
from ztp_search.pruning.config import PruningConfig
from ztp_search.racing import NOTHING, Correct, Results, estimate, paired_difference
from ztp_search.study import StoredTrial
from ztp_search.study.packing import pack, unpack_bits, unpack_losses


@dataclass(slots=True)
class RacingTrial:
    """A trial that climbs the rungs.

    Attributes:
        number: of the trial in the study.
        config: what is evaluated.
        point: of the unit cube, from which `config` was decoded.
        state: "running", "complete", "pruned" or "failed".
        value: the estimate of its accuracy; None before the first rung and where it failed.
        sampler_value: what samplers are given: minus the mean loss, or without losses one standard
            error below `value`, as trials that were stopped early look better by chance.
        results: of the images seen.
        fallbacks: images for which the head filter left no head.
        seconds: of forward passes.
        origins: of how many images the results come from where.
    """

    number: int
    config: PruningConfig
    point: tuple[float, ...]
    state: str = "running"
    value: float | None = None
    sampler_value: float | None = None
    results: Results = NOTHING
    fallbacks: int = 0
    seconds: float = 0.0
    origins: Origins = field(default_factory=dict)

    @classmethod
    def from_stored(cls, stored: StoredTrial) -> RacingTrial:
        """The trial as the database has it."""
        trial = cls(stored.number, stored.config, tuple(stored.attrs["point"]), stored.state)
        images = stored.attrs.get("images", 0)
        if images:
            losses = stored.attrs.get("losses")
            trial.results = Results(
                unpack_bits(stored.attrs["correct"], images),
                None if losses is None else unpack_losses(losses),
            )
            trial.fallbacks = round(stored.attrs["fallback_share"] * images)
            trial.seconds = stored.attrs["evaluation_seconds"]
            trial.origins = origins_from_json(stored.attrs.get("origins", ()))
            trial.value = stored.rungs[images] if stored.value is None else stored.value
            trial.sampler_value = _sampler_value(
                trial.results, trial.value, stored.attrs["standard_error"]
            )
        if stored.state == "failed":
            trial.value = trial.sampler_value = None
        return trial

    @property
    def images_seen(self) -> int:
        """Images that the trial was evaluated on so far."""
        return len(self.results)

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
        self.results = results = self.results.then(Results(correct, outcome.losses))
        self.fallbacks += outcome.fallbacks
        self.seconds += outcome.seconds
        self.origins = joined([self.origins, outcome.origins])
        images = self.images_seen
        estimated = estimate(results.correct, unpruned)
        difference = paired_difference(results.correct, unpruned[:images])
        self.value = estimated.value
        self.sampler_value = _sampler_value(results, self.value, estimated.standard_error)
        attrs = {
            "images": images,
            "standard_error": estimated.standard_error,
            "minus_unpruned": difference.difference,
            "minus_unpruned_ci95": list(difference.interval),
            "fallback_share": self.fallbacks / images,
            "evaluation_seconds": self.seconds,
            "origins": origins_to_json(self.origins),
            "correct": pack(results.correct),
        }
        if results.losses is not None:
            attrs |= {"loss": results.loss, "losses": pack(results.losses)}
        return attrs


def _sampler_value(results: Results, value: float, standard_error: float) -> float:
    return value - standard_error if results.losses is None else -results.loss
