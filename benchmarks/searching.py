"""A search as a user runs it, in a process of its own, and what its database says of its time."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ztp_search.study import StoredTrial, StudyReader

COMMAND = (sys.executable, "-m", "ztp_search.cli.main")
POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Searched:
    """What a search printed, and when things happened, in Unix seconds.

    began: its process was started. first: its first trial began. last: its last trial ended.
    Before `first` lie imports, decoding and the unpruned model, behind `last` the confirmation.
    """

    document: dict[str, Any]
    trials: list[StoredTrial]
    began: float
    first: float
    last: float

    @property
    def seconds(self) -> float:
        """From the first trial to the last."""
        return self.last - self.first

    @property
    def evaluation_seconds(self) -> float:
        """Of all trials, over all workers."""
        seconds = (trial.attrs.get("evaluation_seconds", 0.0) for trial in self.trials)
        return float(sum(seconds))

    @property
    def image_evaluations(self) -> int:
        """Of all trials."""
        return sum(trial.attrs.get("images", 0) for trial in self.trials)


def search(
    out: Path, *options: object, watch: Callable[[int], None] = lambda _pid: None
) -> Searched:
    """`ztp-search … --json` on digits with its database and decoded images in `out`.

    watch: called with the id of the process, several times a second while it runs.
    """
    return Running(out, *options).finish(watch)


class Running:
    """A search that runs beside others; `finish` waits for it."""

    def __init__(self, out: Path, *options: object) -> None:
        words = [*COMMAND, "--space", "digits", "--out", out, "--json", *options]
        self.out = out
        self.began = time.time()
        self._printed, self._said = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [str(word) for word in words], stdout=self._printed, stderr=self._said
        )

    def finish(self, watch: Callable[[int], None] = lambda _pid: None) -> Searched:
        """What came of it; SystemExit with its last words where it failed."""
        while self._process.poll() is None:
            watch(self._process.pid)
            time.sleep(POLL_SECONDS)
        with self._printed, self._said:
            self._printed.seek(0)
            self._said.seek(0)
            if self._process.returncode != 0:
                raise SystemExit("the search failed: " + "".join(self._said.readlines()[-5:]))
            document = json.load(self._printed)
        database = self.out / "studies.db"
        with StudyReader.open(f"sqlite:///{database}", document["study"]) as study:
            trials = study.trials()
        first, last = span(database, document["study"])
        return Searched(document, trials, self.began, first, last)


def span(database: Path, study: str) -> tuple[float, float]:
    """When the first trial of a study began and its last one ended, in Unix seconds."""
    query = (
        "SELECT min(datetime_start), max(datetime_complete) FROM trials "
        "JOIN studies USING (study_id) WHERE study_name = ?"
    )
    with contextlib.closing(sqlite3.connect(database)) as connection:
        first, last = connection.execute(query, (study,)).fetchone()
    return _seconds(first), _seconds(last)


def _seconds(stored: str) -> float:
    """Optuna stores UTC without a zone."""
    return datetime.fromisoformat(stored).replace(tzinfo=UTC).timestamp()
