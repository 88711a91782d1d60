"""A study of the database, open for reading: what was asked for and what came of every trial."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import sqlalchemy as sa
from optuna.trial import TrialState

from ztp_search.errors import StudyError
from ztp_search.study.connection import Database, no_study
from ztp_search.study.contract import completed, contract_of, is_reserved, refuse_differences
from ztp_search.study.rows import STATES, read_best_value, read_states, read_trials, to_json
from ztp_search.study.trial import StoredTrial, rank


class StudyReader:
    """A study that is read, while its driver may be at work on it.

    Whatever the database refuses, now or later, is a StudyError of one line without the password.

    Attributes:
        name: of the study, as the user gave it.
        storage: URL of the database, without its password.
        id: Optuna's number of the study in this database.

    Example:
        >>> with StudyReader.open("sqlite:///ztp-runs/studies.db") as study:
        ...     accuracies = [trial.value for trial in study.best(10)]
    """

    def __init__(self, database: Database, name: str, id: int) -> None:
        self.name = name
        self.storage = database.shown
        self.id = id
        self._database = database

    @classmethod
    def open(cls, storage: str, name: str | None = None) -> StudyReader:
        """Open a study that exists.

        Args:
            storage: URL of the database.
            name: of the study; None for the one whose driver started last.

        Raises:
            StudyError: there is no such study; names those there are.
        """
        database = Database.open(storage)
        try:
            starts = database.starts()
            if not starts:
                raise no_study(database.shown)
            if name is not None and name not in starts:
                raise StudyError(
                    f"`study` must name a study of {database.shown}, but got {name!r}; "
                    f"there is {', '.join(starts)}"
                )
            name = name or max(starts, key=lambda each: starts[each])
            return StudyReader(database, name, database.study_id(name))
        except BaseException:
            database.close()
            raise

    def trials(self) -> list[StoredTrial]:
        """All trials by number; those that another program added are left out with a warning."""
        return self._ours(*self._database.read(lambda each: read_trials(each, self.id)))

    def best(self, n: int) -> list[StoredTrial]:
        """The n best complete trials: highest score, then least loss, then fewest GFLOPs.

        The driver stores scores when trials have ended; without any, their values count.
        """
        scores = self.attributes().get("scores", {})

        def read(connection: sa.Connection) -> tuple[list[StoredTrial], list[int]]:
            least = None if scores else read_best_value(connection, self.id, max(1, n))
            return read_trials(connection, self.id, least or 0.0)

        complete = self._ours(*self._database.read(read))
        return sorted(complete, key=lambda trial: rank(trial, scores))[:n]

    def finished(self) -> int:
        """How many trials are at their end."""
        rows = self._database.read(lambda each: read_states(each, self.id))
        return sum(state != TrialState.RUNNING for _, _, state, _ in rows)

    def states(self) -> list[str]:
        """The state of every trial, by number; those that another program added are left out."""
        rows = self._database.read(lambda each: read_states(each, self.id))
        return [STATES[state] for _, _, state, text in rows if state in STATES and text is not None]

    def attributes(self) -> dict[str, Any]:
        """Results of the study as a whole, as `StudyDriver.set_attribute` stored them."""
        stored = self._database.attributes(self.id).items()
        return {key: value for key, value in stored if not is_reserved(key)}

    @property
    def contract(self) -> dict[str, Any]:
        """What a resume must find unchanged, as stored."""
        return contract_of(self._database.attributes(self.id))

    def siblings(self) -> list[StudyReader]:
        """The studies of the same search under other budgets, by name; they share the connection.

        Their contracts are the same but for what follows from the budget.
        """
        mine = self.contract
        found = []
        for name in sorted(self._database.starts().keys() - {self.name}):
            id = self._database.study_id(name)
            other = contract_of(self._database.attributes(id))
            same = _without_budget(other) == _without_budget(mine)
            if same and other.get("budget") != mine.get("budget"):
                found.append(StudyReader(self._database, name, id))
        return found

    def check(self, asked: Mapping[str, Any]) -> None:
        """Refuse early what `StudyDriver.open` would refuse.

        Args:
            asked: what is known of the contract; of a value that is a mapping, some of its keys.

        Raises:
            StudyError: one of them differs from what is stored.
        """
        stored = self.contract
        known = {key: value for key, value in json.loads(to_json(asked)).items() if key in stored}
        refuse_differences(self.name, stored, completed(known, stored))

    def close(self) -> None:
        """Disconnect."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ours(self, trials: list[StoredTrial], foreign: Sequence[int]) -> list[StoredTrial]:
        if foreign:
            logging.getLogger(__name__).warning(
                "study %r: %d trials that another program added are left out, first trial %d",
                self.name, len(foreign), foreign[0],
            )  # fmt: skip
        return trials


def _without_budget(contract: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in contract.items() if key not in ("budget", "parameters")}


@contextmanager
def existing(storage: str, name: str) -> Iterator[StudyReader | None]:
    """The study, open for reading; None where there is no such study yet. Creates nothing.

    Example:
        with existing("sqlite:///ztp-runs/studies.db", "digits") as study:
            done = 0 if study is None else study.finished()
    """
    database = Database.find(storage)
    if database is None:
        yield None
        return
    try:
        there = name in database.starts()
        yield StudyReader(database, name, database.study_id(name)) if there else None
    finally:
        database.close()
