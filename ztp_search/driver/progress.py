"""What long work tells while it runs. `Progress` itself says nothing; `cli` shows it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Status:
    """How far the trials of a study are.

    Attributes:
        done, total: trials, stopped ones included.
        running: how many race at present.
        rung, rungs: on which rung, of how many.
        images_per_second: over this run, all workers.
        best: (trial number, accuracy) of those that have seen all images.
        seconds_left: None while unknown.
    """

    done: int
    total: int
    running: int
    rung: int
    rungs: int
    images_per_second: float
    best: tuple[int, float] | None
    seconds_left: float | None


class Progress:
    """Silent progress, and the interface of one that speaks."""

    def stage(self, text: str) -> None:
        """A new stage of the work has begun."""

    def note(self, text: str) -> None:
        """Something the user should read once."""

    def images(self, done: int, total: int) -> None:
        """Images of the present stage that are done."""

    def trials(self, status: Status) -> None:
        """A block of some trial has come in."""
