"""Progress on a terminal: a live line, or plain lines where stderr is no terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

from ztp_search.cli.output import as_options
from ztp_search.driver.progress import Progress, Status

SECONDS_PER_LINE = 10.0
"""How often a plain line is printed."""


class TerminalProgress(Progress):
    """Shows stages, images and trials on a console."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal and not console.is_dumb_terminal
        self._stage = ""
        self._printed = 0.0
        self._bars = Bars(
            TextColumn("{task.description}", markup=False), BarColumn(16),
            TextColumn("{task.fields[text]}", markup=False),
            console=console, transient=True,
        )  # fmt: skip
        self._bar = self._bars.add_task("", total=None, text="", visible=False)

    def __enter__(self) -> TerminalProgress:
        if self._live:
            self._bars.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._live:
            self._bars.stop()

    def stage(self, text: str) -> None:
        if text == self._stage:
            return
        self._stage = text
        if self._live:
            self._bars.update(
                self._bar, description=text, total=None, completed=0, text="", visible=True
            )
        else:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def note(self, text: str) -> None:
        self._console.print(as_options(text), highlight=False, markup=False, soft_wrap=True)

    def images(self, done: int, total: int) -> None:
        self._show(self._stage, done, total, f"{done:,} of {total:,} images")

    def trials(self, status: Status) -> None:
        best = "" if status.best is None else (
            f"  best {100 * status.best[1]:.2f} % (trial {status.best[0]})"
        )
        left = "" if status.seconds_left is None else f"  {_clock(status.seconds_left)} left"
        speed = f"{status.images_per_second:,.0f} images/s"
        rung = "" if status.rungs == 1 else (
            f"  rung {status.rung}/{status.rungs} ({status.running} racing)"
        )
        self._stage = "trials"
        self._show(
            "trials", status.done, status.total,
            f"{status.done} of {status.total}{left}{best}{rung}  {speed}",
        )  # fmt: skip

    def _show(self, description: str, done: int, total: int, text: str) -> None:
        if self._live:
            self._bars.update(
                self._bar, description=description, completed=done, total=total, text=text,
                visible=True,
            )  # fmt: skip
            return
        now = time.monotonic()
        if now - self._printed >= SECONDS_PER_LINE or done == total:
            self._printed = now
            self._console.print(
                f"{description}: {text}", highlight=False, markup=False, soft_wrap=True
            )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
