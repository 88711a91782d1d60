"""The study in an Optuna database: what a search asked for and what came of every trial.

Studies and their attributes go through Optuna's public interface, trials through `rows`.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.trial import TrialState

from ztp_search.errors import StudyError
from ztp_search.pruning.config import PruningConfig
from ztp_search.study.contract import completed, is_reserved, refuse_differences
from ztp_search.study.database import (
    connect,
    explained,
    parse_url,
    redact,
    snapshot,
    starts_of,
    take_lock,
)
from ztp_search.study.parameters import Parameter, parameter_rows, parameters_of
from ztp_search.study.rows import (
    STATES,
    insert_running,
    read_best_value,
    read_states,
    read_trials,
    to_json,
    update_running,
)
from ztp_search.study.trial import NewTrial, StoredTrial, Update, rank


class Study:
    """One search in the database: `open` it to drive it, `load` it to read it.

    Whatever the database refuses, now or later, is a StudyError of one line without the password.
    """

    def __init__(self, storage: str, create: bool) -> None:
        self.name = ""
        self.storage = redact(storage)
        self._id = 0
        self._driving = False
        self._parameters: dict[str, Parameter] = {}
        self._count = 0
        self._running: dict[int, tuple[int, PruningConfig]] = {}  # number: (row, configuration)
        self._held = ExitStack()
        self._url, self._optuna = connect(storage, create)
        self._held.callback(self._optuna.engine.dispose)
        self._held.callback(self._optuna.remove_session)

    @classmethod
    def open(
        cls,
        storage: str,
        name: str,
        contract: Mapping[str, Any],
        *,
        blocks: Sequence[int],
        ranges: Mapping[str, tuple[float, float]],
    ) -> Study:
        """Create the study, or resume it, as its only driver.

        contract: JSON values that a resume must find unchanged.
        blocks: every block that a pruning layer may follow.
        ranges: lowest and highest value of each parameter (`block03.retention`, …, `v_max`).
        Raises StudyError where another process drives the study, a value of the contract
        differs, or another program has written to it.
        """
        study = cls(storage, create=True)
        try:
            study.name = name
            study._parameters = parameters_of(blocks, ranges)
            study._drive({**contract, "parameters": dict(ranges)})
        except BaseException:
            study.close()
            raise
        return study

    @classmethod
    def load(cls, storage: str, name: str | None) -> Study:
        """Open for reading only; without a name, the study whose driver started last.

        Raises StudyError where there is no such study, naming those there are.
        """
        study = cls(storage, create=False)
        try:
            if study._find(name):
                return study
            names = ", ".join(starts_of(study._url, study._optuna))
        except BaseException:
            study.close()
            raise
        study.close()
        if not names:
            raise StudyError(f"{study.storage} holds no study yet; run a search first")
        raise StudyError(
            f"--study must name a study of {study.storage}, but got {name!r}; there is {names}"
        )

    def _find(self, name: str | None) -> bool:
        """Become that study, or the one whose driver started last; False where there is none."""
        starts = starts_of(self._url, self._optuna)
        if not starts or (name is not None and name not in starts):
            return False
        self.name = name or max(starts, key=lambda each: starts[each])
        self._id = self._optuna.get_study_id_from_name(self.name)
        return True

    def trials(self) -> list[StoredTrial]:
        """All trials by number; those that another program added are left out with a warning."""
        with self._snapshot() as connection:
            return self._ours(*read_trials(connection, self._id))

    def best(self, n: int) -> list[StoredTrial]:
        """The n best complete trials: highest value, then fewest GFLOPs, then lowest number."""
        with self._snapshot() as connection:
            least = read_best_value(connection, self._id, max(1, n))
            complete = self._ours(*read_trials(connection, self._id, least or 0.0))
        return sorted(complete, key=rank)[:n]

    def start(self, trials: Sequence[NewTrial]) -> None:
        """Store trials as running, in one transaction.

        Those that a dead driver left running with the same configuration are passed over. Raises
        StudyError unless the others are the next ones, in order.
        """
        assert self._driving
        for trial in trials:
            if trial.number < self._count:
                self._check_running(trial)
        new = [trial for trial in trials if trial.number >= self._count]
        if not new:
            return
        if [trial.number for trial in new] != list(range(self._count, self._count + len(new))):
            raise StudyError(
                f"trials are numbered without gaps, but got {new[0].number} to {new[-1].number} "
                f"where study {self.name!r} has {self._count} trials"
            )
        rows = [
            (trial.number, parameter_rows(trial.config, self._parameters),
             {**trial.attrs, "config": trial.config.to_dict()})
            for trial in new
        ]  # fmt: skip
        with self._transaction() as connection:
            row_of, count = insert_running(connection, self._id, rows)
            if count != self._count + len(new):
                raise StudyError(
                    f"a search goes on only in a study of its own, but another program has added "
                    f"{count - len(new) - self._count} trials to {self.name!r}; use another "
                    f"--study name"
                )
        for trial in new:
            self._running[trial.number] = row_of[trial.number], trial.config
        self._count += len(new)

    def update(self, updates: Sequence[Update]) -> None:
        """Store what came of running trials, all of it or nothing, in one transaction.

        Raises StudyError where another program has finished one of them.
        """
        assert self._driving and len({each.number for each in updates}) == len(updates)
        changes = {self._running[each.number][0]: each for each in updates}
        if not changes:
            return
        with self._transaction() as connection:
            if not update_running(connection, changes):
                raise StudyError(self._finished_by_another(updates))
        for each in updates:
            if each.state != "running":
                del self._running[each.number]

    @property
    def id(self) -> int:
        """Optuna's number of the study in this database."""
        return self._id

    @property
    def contract(self) -> dict[str, Any]:
        """What a resume must find unchanged, as stored."""
        stored = self._attributes().items()
        return {key[9:]: value for key, value in stored if key.startswith("contract.")}

    def attributes(self) -> dict[str, Any]:
        """Results of the study as a whole, as `set_attribute` stored them."""
        stored = self._attributes().items()
        return {key: value for key, value in stored if not is_reserved(key)}

    def finished(self) -> int:
        """How many trials are at their end."""
        with self._snapshot() as connection:
            rows = read_states(connection, self._id)
        return sum(state != TrialState.RUNNING for _, _, state, _ in rows)

    def check(self, asked: Mapping[str, Any]) -> None:
        """Refuse early what `open` would refuse.

        asked: what is known of the contract; of a value that is a mapping, some of its keys.
        Raises StudyError where one of them differs.
        """
        stored = self.contract
        known = {key: value for key, value in json.loads(to_json(asked)).items() if key in stored}
        refuse_differences(self.name, stored, completed(known, stored))

    def take_turn(self) -> None:
        """Count as the study whose driver started last; of several, the one that is worked on."""
        started = datetime.now(UTC).isoformat(timespec="microseconds")
        driver = {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
        self._set_attribute("driver", driver)

    def set_attribute(self, key: str, value: Any) -> None:
        """Store a result of the study as a whole (a JSON value) over what stood there."""
        assert self._driving and not is_reserved(key)
        self._set_attribute(key, value)

    def close(self) -> None:
        """Disconnect; another process may drive the study."""
        self._driving = False
        self._held.close()

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drive(self, contract: Mapping[str, Any]) -> None:
        with explained(self._url):
            try:
                self._id = self._optuna.get_study_id_from_name(self.name)
            except KeyError:
                self._id = self._optuna.create_new_study([StudyDirection.MAXIMIZE], self.name)
            mine = take_lock(self._held, self._url, self._optuna.engine, self._id)
        if not mine:
            driver = self._attributes().get("driver", {"pid": "unknown", "host": "its way up"})
            raise StudyError(
                f"a study has one driver, and process {driver['pid']} on {driver['host']} drives "
                f"{self.name!r}; wait for it, stop it, or use another --study name"
            )
        self._check_trials()
        self._agree(json.loads(to_json(contract)))
        self.take_turn()
        # The storage's call, as the study's own is experimental and warns.
        with explained(self._url):
            self._optuna.set_study_system_attr(self._id, "study:metric_names", ["accuracy"])
        self._driving = True

    def _check_trials(self) -> None:
        """Refuse a study whose trials are not all ours; learn which are running."""
        with self._snapshot() as connection:
            rows = read_states(connection, self._id)
            directions = self._optuna.get_study_directions(self._id)
        foreign = [
            number
            for i, (number, _, state, text) in enumerate(rows)
            if number != i or text is None or state not in STATES
        ]
        if foreign or directions != [StudyDirection.MAXIMIZE]:
            what = f"its trial {foreign[0]}" if foreign else "its direction"
            raise StudyError(
                f"a search goes on only in a study of its own, but {what} is another program's in "
                f"{self.name!r}; use another --study name"
            )
        self._count = len(rows)
        for number, row, state, text in rows:
            if state == TrialState.RUNNING:
                config = PruningConfig.from_dict(json.loads(text or ""), f"trial {number}")
                self._running[number] = (row, config)

    def _agree(self, contract: Mapping[str, Any]) -> None:
        """Refuse settings other than the stored ones; store those of a study without trials."""
        stored = self.contract
        # Without trials a missing key is one that a first driver died before storing.
        asked = {key: contract[key] for key in contract if self._count or key in stored}
        refuse_differences(self.name, stored, asked)
        for key in sorted(contract.keys() - stored.keys()):
            self._set_attribute(f"contract.{key}", contract[key])

    def _attributes(self) -> dict[str, Any]:
        with explained(self._url):
            return self._optuna.get_study_user_attrs(self._id)

    def _set_attribute(self, key: str, value: Any) -> None:
        to_json(value)  # refuses NaN, which Optuna would store
        with explained(self._url):
            self._optuna.set_study_user_attr(self._id, key, value)

    def _check_running(self, trial: NewTrial) -> None:
        """Refuse a trial that is stored unless it is running, with the same configuration."""
        if self._running.get(trial.number, (0, None))[1] != trial.config:
            raise StudyError(
                f"trial {trial.number} of study {self.name!r} is finished, or was started with "
                f"another configuration by another version; use another --study name"
            )

    def _finished_by_another(self, updates: Sequence[Update]) -> str:
        with self._snapshot() as connection:  # without our own transaction's changes
            states = {number: state for number, _, state, _ in read_states(connection, self._id)}
        theirs = [u.number for u in updates if states.get(u.number) != TrialState.RUNNING]
        return (
            f"another program has finished trial {min(theirs, default='?')} of study "
            f"{self.name!r}, which its search was at work on, so it cannot go on; use another "
            f"--study name"
        )

    def _ours(self, trials: list[StoredTrial], foreign: Sequence[int]) -> list[StoredTrial]:
        if foreign:
            logging.getLogger(__name__).warning(
                "study %r: %d trials that another program added are left out, first trial %d",
                self.name, len(foreign), foreign[0],
            )  # fmt: skip
        return trials

    @contextmanager
    def _snapshot(self) -> Iterator[sa.Connection]:
        with explained(self._url), snapshot(self._url, self._optuna.engine) as connection:
            yield connection

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with explained(self._url), self._optuna.engine.begin() as connection:
            yield connection


@contextmanager
def existing(storage: str, name: str) -> Iterator[Study | None]:
    """The study for reading only, None where there is no such study yet; creates nothing."""
    url = parse_url(storage)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        yield None
        return
    with Study(storage, create=False) as study:
        yield study if study._find(name) else None
