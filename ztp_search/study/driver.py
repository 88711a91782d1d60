"""A study of the database, driven: the one process that starts its trials and stores them."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.trial import TrialState

from ztp_search.errors import StudyError
from ztp_search.events import Event
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.methods import parse_config
from ztp_search.study.connection import Database
from ztp_search.study.contract import PREFIX, contract_of, is_reserved, refuse_differences
from ztp_search.study.lock import StudyLock, take_study_lock
from ztp_search.study.outage import Unreachable, opened
from ztp_search.study.parameters import Parameter, Ranges, parameter_rows, parameters_of
from ztp_search.study.reader import StudyReader
from ztp_search.study.rows import (
    STATES,
    insert_running,
    inserted,
    read_states,
    to_json,
    update_running,
    updated,
)
from ztp_search.study.trial import NewTrial, Update

LOG = logging.getLogger(__name__)

LOCK_CHECK_SECONDS = 5.0
"""A driver makes sure that often, where it writes, that its lock is not lost."""


class StudyDriver(StudyReader):
    """A study that this process, and no other, drives; what a reader can do, it can too.

    Example:
        with StudyDriver.open(storage, "digits", contract, blocks=blocks, ranges=ranges) as study:
            study.start([NewTrial(0, config, {"tokens": tokens})])
            study.update([Update(0, "complete", 0.75, {"images": 500})])
    """

    def __init__(
        self,
        database: Database,
        name: str,
        id: int,
        lock: StudyLock,
        parameters: Mapping[str, Parameter],
        begun: Begun,
    ) -> None:
        """Use `open`, which takes the lock."""
        super().__init__(database, name, id)
        self._lock = lock
        self._checked = time.monotonic()
        self._parameters = parameters
        self._begun = begun

    @classmethod
    def open(  # type: ignore[override]  # a driver comes about in another way than a reader
        cls,
        storage: str,
        name: str,
        contract: Mapping[str, Any],
        *,
        blocks: Sequence[int],
        ranges: Ranges,
        tell: Callable[[Event], object] | None = None,
    ) -> StudyDriver:
        """Create the study, or resume it, as its only driver.

        Args:
            storage: URL of the database, which is created where there is none.
            name: of the study.
            contract: JSON values that a resume must find unchanged.
            blocks: every block that a pruning layer may follow.
            ranges: lowest and highest value of each parameter (`block03.retention`, …, `v_max`),
                or the names that it takes.
            tell: told when the database goes away, which is waited for, and comes back, and how
                long it took to store something; None: Python's logging is told of the first two.

        Raises:
            StudyError: another process drives the study, a value of the contract differs, or
                another program has written to it.
            OutageError: the server of the database is away, and for long.
        """
        parameters = parameters_of(blocks, ranges)
        asked = json.loads(to_json({**contract, "parameters": dict(ranges)}))
        tell = tell or _warn
        return opened(lambda: cls._open(storage, name, asked, parameters, tell), tell)

    @classmethod
    def _open(
        cls,
        storage: str,
        name: str,
        asked: Mapping[str, Any],
        parameters: Mapping[str, Parameter],
        tell: Callable[[Event], object],
    ) -> StudyDriver:
        with ExitStack() as held:
            database = Database.create(storage)
            held.callback(database.close)
            id = _find_or_create(database, name)
            lock = _lock(database, name, id)
            held.callback(lock.release)
            begun = _begun(database, name, id)
            _agree(database, name, id, asked, resumed=begun.count > 0)
            driver = cls(database, name, id, lock, parameters, begun)
            driver.take_turn()
            # The storage's call, as the study's own is experimental and warns.
            metric = f"{asked.get('objective', 'accuracy')}, fraction of one"
            with database.explained():
                database.optuna.set_study_system_attr(id, "study:metric_names", [metric])
            database.wait_for_outages(tell, driver._keep_lock)
            held.pop_all()
        return driver

    def start(self, trials: Sequence[NewTrial]) -> None:
        """Store trials as running, in one transaction.

        Those that a dead driver left running with the same configuration are passed over.

        Raises:
            StudyError: the others are not the next ones, in order.
            ValueError: one of them is not of the study's space.
        """
        count = self._begun.count
        for trial in trials:
            if trial.number < count:
                self._check_running(trial)
        new = [trial for trial in trials if trial.number >= count]
        if not new:
            return
        if [trial.number for trial in new] != list(range(count, count + len(new))):
            raise StudyError(
                f"trials are numbered without gaps, but got {new[0].number} to {new[-1].number} "
                f"where study {self.name!r} has {count} trials"
            )
        row_of = self._insert(new)
        for trial in new:
            self._begun.running[trial.number] = row_of[trial.number], trial.config
        self._begun.count += len(new)

    def update(self, updates: Sequence[Update]) -> None:
        """Store what came of running trials, all of it or nothing, in one transaction.

        Raises:
            StudyError: another program has finished one of them.
            ValueError: one of them is not running, or is updated twice.
        """
        running = self._begun.running
        for number, times in Counter(each.number for each in updates).items():
            if number not in running or times > 1:
                why = "is updated twice" if number in running else "is not running"
                raise ValueError(f"trial {number} of study {self.name!r} {why}")
        if not updates:
            return
        by_row = {running[each.number][0]: each for each in updates}

        def store(connection: sa.Connection, again: bool) -> None:
            stored = again and updated(connection, by_row)
            if not stored and not update_running(connection, by_row):
                raise StudyError(self._finished_by_another(updates))

        self._database.write(store)
        for each in updates:
            if each.state != "running":
                del running[each.number]

    def set_attribute(self, key: str, value: Any) -> None:
        """Store a result of the study as a whole (a JSON value) over what stood there."""
        if is_reserved(key):
            raise ValueError(f"attribute {key!r} is no result; `StudyDriver.open` stores it")
        self._database.set_attribute(self.id, key, value)

    def take_turn(self) -> None:
        """Count as the study whose driver started last; of several, the one that is worked on."""
        started = datetime.now(UTC)
        for before in self._database.starts().values():  # the clock may have been set back since
            started = max(started, datetime.fromisoformat(before) + timedelta(microseconds=1))
        text = started.isoformat(timespec="microseconds")
        driver = {**_this_process(), "started": text}
        self._database.set_attribute(self.id, "driver", driver)

    def close(self) -> None:
        """Disconnect; another process may drive the study."""
        try:
            with contextlib.suppress(sa.exc.SQLAlchemyError):  # then the lock is lost already
                self._lock.release()
        finally:
            super().close()

    def _keep_lock(self, after_outage: bool) -> None:
        """See to it that the study is this process's still, before something is written.

        A server gives the lock away when it goes down, or loses the connection that holds it.
        """
        now = time.monotonic()
        if not after_outage and now < self._checked + LOCK_CHECK_SECONDS:
            return
        if not self._lock.held():
            self._take_lock_again()
        self._checked = now

    def _take_lock_again(self) -> None:
        with contextlib.suppress(sa.exc.SQLAlchemyError):
            self._lock.release()
        lock = take_study_lock(self._database.url, self._database.engine, self.id)
        driver = self._database.optuna.get_study_user_attrs(self.id).get("driver", {})
        if {**driver, **_this_process()} != driver:
            if lock is not None:
                lock.release()
            raise _driven(self.name, driver)
        if lock is None:  # the server has yet to notice that the connection of the lock is gone
            raise Unreachable(f"the lock of study {self.name!r} is held by a lost connection")
        self._lock = lock

    def _insert(self, new: Sequence[NewTrial]) -> dict[int, int]:
        """Insert trials; returns their rows by number."""
        rows = [
            (trial.number, parameter_rows(trial.config, self._parameters),
             {**trial.attrs, "config": trial.config.to_dict()})
            for trial in new
        ]  # fmt: skip
        configs = {trial.number: trial.config.to_dict() for trial in new}

        def store(connection: sa.Connection, again: bool) -> dict[int, int]:
            if again and (there := inserted(connection, self.id, configs)):
                return there
            row_of, count = insert_running(connection, self.id, rows)
            theirs = count - len(new) - self._begun.count
            if theirs:
                raise _not_ours(f"another program has added {theirs} trials to {self.name!r}")
            return row_of

        return self._database.write(store)

    def _check_running(self, trial: NewTrial) -> None:
        """Refuse a trial that is stored unless it is running, with the same configuration."""
        _, config = self._begun.running.get(trial.number, (0, None))
        if config != trial.config:
            raise StudyError(
                f"trial {trial.number} of study {self.name!r} is finished, or was started with "
                f"another configuration by another version; use another `study` name"
            )

    def _finished_by_another(self, updates: Sequence[Update]) -> str:
        # over another connection, which does not see our own transaction's changes
        rows = self._database.read(lambda each: read_states(each, self.id))
        states = {number: state for number, _, state, _ in rows}
        theirs = [u.number for u in updates if states.get(u.number) != TrialState.RUNNING]
        return (
            f"another program has finished trial {min(theirs, default='?')} of study "
            f"{self.name!r}, which its search was at work on, so it cannot go on; use another "
            f"`study` name"
        )


def _warn(event: Event) -> None:
    if event.note is not None:
        LOG.warning(event.note)


@dataclass(slots=True)
class Begun:
    """The trials of a study that were started: how many, and which of them are running.

    running: row of the trial table and configuration, by number.
    """

    count: int = 0
    running: dict[int, tuple[int, PruningConfig]] = field(default_factory=dict)


def _find_or_create(database: Database, name: str) -> int:
    """Optuna's number of the study."""
    with database.explained():
        try:
            return database.optuna.get_study_id_from_name(name)
        except KeyError:
            return database.optuna.create_new_study([StudyDirection.MAXIMIZE], name)


def _lock(database: Database, name: str, id: int) -> StudyLock:
    """Take the study's lock; StudyError where it is driven."""
    with database.explained():
        lock = take_study_lock(database.url, database.engine, id)
    if lock is None:
        raise _driven(name, database.attributes(id).get("driver"))
    return lock


def _driven(name: str, driver: Mapping[str, Any] | None) -> StudyError:
    driver = driver or {"pid": "unknown", "host": "its way up"}
    return StudyError(
        f"a study has one driver, and process {driver['pid']} on {driver['host']} drives "
        f"{name!r}; wait for it, stop it, or use another `study` name"
    )


def _this_process() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid()}


def _begun(database: Database, name: str, id: int) -> Begun:
    """What is stored; StudyError unless all of it is ours."""
    rows = database.read(lambda each: read_states(each, id))
    directions = database.call(lambda: database.optuna.get_study_directions(id))
    foreign = [
        number
        for i, (number, _, state, text) in enumerate(rows)
        if number != i or text is None or state not in STATES
    ]
    if foreign or directions != [StudyDirection.MAXIMIZE]:
        what = f"its trial {foreign[0]}" if foreign else "its direction"
        raise _not_ours(f"{what} is another program's in {name!r}")
    running = {
        number: (row, parse_config(json.loads(text or ""), f"trial {number}"))
        for number, row, state, text in rows
        if state == TrialState.RUNNING
    }
    return Begun(len(rows), running)


def _not_ours(why: str) -> StudyError:
    return StudyError(
        f"a search goes on only in a study of its own, but {why}; use another `study` name"
    )


def _agree(
    database: Database, name: str, id: int, asked: Mapping[str, Any], resumed: bool
) -> None:
    """Refuse settings other than the stored ones; store those of a study without trials.

    Without trials, a missing key is one that a first driver died before storing.
    """
    stored = contract_of(database.attributes(id))
    comparable = {key: value for key, value in asked.items() if resumed or key in stored}
    refuse_differences(name, stored, comparable)
    for key in sorted(asked.keys() - stored.keys()):
        database.set_attribute(id, f"{PREFIX}{key}", asked[key])
