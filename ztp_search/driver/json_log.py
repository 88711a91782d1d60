"""The log of a search: one JSON object per line, in place of progress for people."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from ztp_search.driver.progress import Progress
from ztp_search.events import Decision, Event


class JsonLog(Progress):
    """Writes decisions, stages and notes to a stream, each as a line, at once.

    Every line has `time` (UTC, ISO 8601), `event`, `study` and `trial` (null where there is none),
    and then what the event has.

    Args:
        stream: where to.
        wording: what is made of notes, which name settings in backticks.
    """

    def __init__(self, stream: TextIO, wording: Callable[[str], str] = str) -> None:
        self._stream = stream
        self._wording = wording
        self._stage = ""

    def stage(self, text: str) -> None:
        if text != self._stage:
            self._stage = text
            self._write("stage", text=text)

    def note(self, text: str) -> None:
        self._write("note", text=self._wording(text))

    def event(self, study: str | None, event: Event) -> None:
        if isinstance(event, Decision):
            self._write(event.name, study, **event.to_dict())

    def error(self, message: str, status: int) -> None:
        """The line that a command ends with when it is not done; status: its exit status."""
        self._write("error", text=message, status=status)

    def output(self) -> io.TextIOBase:
        """A stream whose lines become events: for what others print where only lines may be."""
        return _Output(self)

    def _write(
        self, event: str, study: str | None = None, trial: int | None = None, **values: Any
    ) -> None:
        time = datetime.now(UTC).isoformat(timespec="microseconds")
        line = {"time": time, "event": event, "study": study, "trial": trial, **values}
        text = json.dumps(line, allow_nan=False) + "\n"
        with contextlib.suppress(OSError):  # a search does not end as nobody reads its log
            self._stream.write(text)
            self._stream.flush()


class _Output(io.TextIOBase):
    """Gathers what is printed into lines."""

    def __init__(self, log: JsonLog) -> None:
        super().__init__()
        self._log = log
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            if line.strip():
                self._log._write("output", text=line)
        return len(text)
