"""Progress on a terminal: a live line, or plain lines where stderr is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

from ztp_search.driver.progress import LineProgress

SECONDS_PER_LINE = 10.0
"""How often a plain line is printed."""


class TerminalProgress(LineProgress):
    """Shows stages, images and trials on a console.

    wording: what is made of notes, which name settings in backticks.
    """

    def __init__(self, console: Console, wording: Callable[[str], str] = str) -> None:
        super().__init__()
        self._console = console
        self._wording = wording
        self._live = console.is_terminal and not console.is_dumb_terminal
        self._printed = 0.0
        self._bars = Bars(
            TextColumn("{task.description}", markup=False), BarColumn(16),
            TextColumn("{task.fields[text]}", markup=False),
            console=console, transient=True,
        )  # fmt: skip
        self._bar = self._bars.add_task("", total=None, text="", visible=False)

    def __enter__(self) -> Self:
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

    def note(self, text: str) -> None:
        self._print(self._wording(text))

    def show(self, stage: str, done: int, total: int | None, text: str) -> None:
        if self._live:
            self._bars.update(
                self._bar, description=stage, completed=done, total=total, text=text, visible=True
            )
        elif total is None:
            self._print(stage)
        else:
            now = time.monotonic()
            if now - self._printed >= SECONDS_PER_LINE or done == total:
                self._printed = now
                self._print(f"{stage}: {text}")

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)
