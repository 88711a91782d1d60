"""Progress in the output of a notebook's cell."""

from __future__ import annotations

import html
import sys
import time
from types import TracebackType
from typing import Any, Self

from ztp_search.driver.progress import LineProgress

SECONDS_PER_UPDATE = 0.2
"""How often the line is renewed: each time is a message to the browser."""


class NotebookProgress(LineProgress):
    """Shows stages, images and trials where the cell has its output; what stays is the notes.

    It needs no widgets, only that the notebook can replace what it shows.
    """

    def __init__(self) -> None:
        super().__init__()
        self._notes: list[str] = []
        self._line = ""
        self._updated = 0.0
        self._handle: Any = None

    def __enter__(self) -> Self:
        from IPython.display import HTML, display

        self._handle = display(HTML(""), display_id=True)
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._line = ""
        self._update()

    def note(self, text: str) -> None:
        self._notes.append(f"<div>{html.escape(text)}</div>")
        self._update()

    def show(self, stage: str, done: int, total: int | None, text: str) -> None:
        bar = "<progress></progress>"
        if total is not None:
            bar = f'<progress value="{done}" max="{max(1, total)}"></progress>'
        self._line = f"<div>{html.escape(stage)} {bar} {html.escape(text)}</div>"
        if total is None or time.monotonic() - self._updated >= SECONDS_PER_UPDATE:
            self._update()

    def _update(self) -> None:
        from IPython.display import HTML

        self._updated = time.monotonic()
        self._handle.update(HTML("".join([*self._notes, self._line])))


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook, which can show HTML."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None
