"""What long work tells while it runs. `Progress` itself says nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ztp_search.events import Event


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

    def __str__(self) -> str:
        """`12 of 40  0:31 left  best 95.10 % (trial 7)  rung 2/4 (9 racing)  812 images/s`."""
        best = "" if self.best is None else (
            f"  best {100 * self.best[1]:.2f} % (trial {self.best[0]})"
        )
        left = "" if self.seconds_left is None else f"  {_clock(self.seconds_left)} left"
        speed = f"{self.images_per_second:,.0f} images/s"
        rung = "" if self.rungs == 1 else (
            f"  rung {self.rung}/{self.rungs} ({self.running} racing)"
        )
        return f"{self.done} of {self.total}{left}{best}{rung}  {speed}"


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

    def event(self, study: str | None, event: Event) -> None:
        """Something was decided, found, met with or measured; `note` is told what people read.

        study: of which study, by name; None where it is none's.
        """
        if event.note is not None:
            self.note(event.note)


class LineProgress(Progress, ABC):
    """Progress as one line that changes: the stage, how much of it is done, and some words."""

    def __init__(self) -> None:
        self._stage = ""

    @abstractmethod
    def show(self, stage: str, done: int, total: int | None, text: str) -> None:
        """Show the line; total: None where a stage has begun, and nobody knows how long it is."""

    def stage(self, text: str) -> None:
        if text != self._stage:
            self._stage = text
            self.show(text, 0, None, "")

    def images(self, done: int, total: int) -> None:
        self.show(self._stage, done, total, f"{done:,} of {total:,} images")

    def trials(self, status: Status) -> None:
        self._stage = "trials"
        self.show("trials", status.done, status.total, str(status))


@contextmanager
def told(progress: Progress | bool | None) -> Iterator[Progress]:
    """What work tells its progress to.

    progress: None shows it in a notebook, and nowhere else; True shows it on stderr too, False
        nowhere; or whatever is to be told.
    """
    if isinstance(progress, Progress):
        yield progress
        return
    from ztp_search.driver.notebook import NotebookProgress, in_notebook

    if progress is not False and in_notebook():
        with NotebookProgress() as shown:
            yield shown
    elif progress:
        from rich.console import Console

        from ztp_search.driver.terminal import TerminalProgress

        with TerminalProgress(Console(stderr=True)) as shown_on_stderr:
            yield shown_on_stderr
    else:
        yield Progress()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
