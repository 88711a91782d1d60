"""Trials in Optuna's own tables: many to a transaction, fast reading.

State, value and attributes appear together or not at all. `benchmarks/database.py` measures it;
Optuna's own calls take 26 ms and three transactions a trial, and 1.5 ms to read one. The price is
the import of Optuna's table classes: Optuna refuses a database of another schema, and the tests
read through Optuna what is written here. A transaction survives the death of any process (not a
power cut: synchronous=NORMAL). Statements are those that SQLite, PostgreSQL and MySQL share.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models
from optuna.trial import TrialState

from ztp_search.pruning.methods import parse_config
from ztp_search.study.trial import StoredTrial, Update

TRIALS = models.TrialModel.__table__
PARAMS = models.TrialParamModel.__table__
VALUES = models.TrialValueModel.__table__
RUNGS = models.TrialIntermediateValueModel.__table__
ATTRS = models.TrialUserAttributeModel.__table__

STATES = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
STATE_OF = {name: state for state, name in STATES.items()}

IN_ONE_QUERY = 500
"""Rows that one query names: databases bound the number of its parameters."""

CONFIG = ATTRS.alias()
WITH_CONFIG = (CONFIG.c.trial_id == TRIALS.c.trial_id) & (CONFIG.c.key == "config")


def read_trials(
    connection: sa.Connection, study: int, least: float | None = None
) -> tuple[list[StoredTrial], list[int]]:
    """Our trials by number, and the numbers of those that another program added.

    least: only the complete ones of this value or a higher one.
    """
    mine = TRIALS.c.study_id == study
    tables = TRIALS.outerjoin(VALUES)
    if least is not None:
        mine &= (TRIALS.c.state == TrialState.COMPLETE) & (VALUES.c.value >= least)
    attrs: dict[int, dict[str, Any]] = {}
    rungs: dict[int, dict[int, float]] = {}
    query = sa.select(TRIALS.c.trial_id, TRIALS.c.number, TRIALS.c.state, VALUES.c.value)
    query = query.select_from(tables).where(mine).order_by(TRIALS.c.number)
    rows = connection.execute(query).all()
    query = sa.select(ATTRS.c.trial_id, ATTRS.c.key, ATTRS.c.value_json)
    query = query.select_from(tables.join(ATTRS)).where(mine)
    for row, key, text in connection.execute(query):
        attrs.setdefault(row, {})[key] = json.loads(text)
    query = sa.select(RUNGS.c.trial_id, RUNGS.c.step, RUNGS.c.intermediate_value)
    query = query.select_from(tables.join(RUNGS)).where(mine).order_by(RUNGS.c.step)
    for row, step, value in connection.execute(query):
        rungs.setdefault(row, {})[step] = value
    trials, foreign = [], []
    for row, number, state, value in rows:
        if "config" not in attrs.get(row, {}) or state not in STATES:
            foreign.append(number)
            continue
        config = parse_config(attrs[row].pop("config"), f"trial {number}")
        trials.append(
            StoredTrial(number, STATES[state], value, config, attrs[row], rungs.get(row, {}))
        )
    return trials, foreign


def read_best_value(connection: sa.Connection, study: int, n: int) -> float | None:
    """The n-th highest value of our complete trials; None where there are fewer."""
    complete = (TRIALS.c.study_id == study) & (TRIALS.c.state == TrialState.COMPLETE)
    query = sa.select(VALUES.c.value).select_from(TRIALS.join(VALUES).join(CONFIG, WITH_CONFIG))
    query = query.where(complete).order_by(VALUES.c.value.desc()).limit(1).offset(n - 1)
    return connection.scalar(query)


def read_states(
    connection: sa.Connection, study: int
) -> list[tuple[int, int, TrialState, str | None]]:
    """(number, row, state, JSON of the configuration or None) of every trial, by number."""
    query = sa.select(TRIALS.c.number, TRIALS.c.trial_id, TRIALS.c.state, CONFIG.c.value_json)
    query = query.join_from(TRIALS, CONFIG, WITH_CONFIG, isouter=True)
    query = query.where(TRIALS.c.study_id == study).order_by(TRIALS.c.number)
    return [(number, row, state, text) for number, row, state, text in connection.execute(query)]


def finished_trials(connection: sa.Connection, study: int) -> tuple[int, int]:
    """How many trials there are, and how many of them are at their end."""
    mine = TRIALS.c.study_id == study
    ended = sa.func.sum(sa.case((TRIALS.c.state == TrialState.RUNNING, 0), else_=1))
    count, done = connection.execute(sa.select(sa.func.count(), ended).where(mine)).one()
    return count, int(done or 0)


def insert_running(
    connection: sa.Connection,
    study: int,
    trials: Sequence[tuple[int, Sequence[Mapping[str, Any]], Mapping[str, Any]]],
) -> tuple[dict[int, int], int]:
    """Insert (number, parameter rows, attributes) of trials.

    Returns their rows by number, and how many trials the study has now; where another program
    added some, the caller must roll back.
    """
    new = {"study_id": study, "state": TrialState.RUNNING, "datetime_start": _utc_now()}
    connection.execute(sa.insert(TRIALS), [{"number": number, **new} for number, _, _ in trials])
    # Read behind the insert, which holds SQLite's write lock, and counted last: nobody comes
    # between.
    mine = TRIALS.c.study_id == study
    query = sa.select(TRIALS.c.number, TRIALS.c.trial_id).where(mine)
    query = query.order_by(TRIALS.c.trial_id.desc()).limit(len(trials))
    row_of = {number: row for number, row in connection.execute(query)}
    count = connection.execute(sa.select(sa.func.count()).where(mine)).scalar_one()
    if row_of.keys() == {number for number, _, _ in trials}:
        _insert(
            connection,
            PARAMS,
            [{"trial_id": row_of[number], **each} for number, rows, _ in trials for each in rows],
        )
        _insert_attrs(connection, {row_of[number]: attrs for number, _, attrs in trials})
    return row_of, count


def inserted(
    connection: sa.Connection, study: int, configs: Mapping[int, Any]
) -> dict[int, int]:
    """The rows of running trials by number, if all of these are there already; else none.

    configs: JSON value of each one's configuration, by number.
    """
    texts = {number: to_json(config) for number, config in configs.items()}
    found = {
        number: row
        for number, row, state, text in read_states(connection, study)
        if number in texts and state == TrialState.RUNNING and text == texts[number]
    }
    return found if found.keys() == texts.keys() else {}


def updated(connection: sa.Connection, updates: Mapping[int, Update]) -> bool:
    """Whether these updates, by row, are stored already; those of a rung alone may be again."""
    ends = {row: STATE_OF[each.state] for row, each in updates.items() if each.state != "running"}
    query = sa.select(TRIALS.c.trial_id, TRIALS.c.state)
    there = {
        row: state
        for part in _parts(list(ends))
        for row, state in connection.execute(query.where(TRIALS.c.trial_id.in_(part)))
    }
    return bool(ends) and there == ends


def update_running(connection: sa.Connection, updates: Mapping[int, Update]) -> bool:
    """Store updates by row; False where a trial is not running, and the caller must roll back."""
    # The states come first: that takes SQLite's write lock before anything is read.
    for state in sorted({STATE_OF[each.state] for each in updates.values()}):
        rows = [row for row, each in updates.items() if STATE_OF[each.state] == state]
        values: dict[str, Any] = {"state": state}
        if state != TrialState.RUNNING:
            # Not before it started, should the clock have been set back since.
            now, start = _utc_now(), TRIALS.c.datetime_start
            values["datetime_complete"] = sa.case((start > now, start), else_=now)
        for part in _parts(rows):
            running = TRIALS.c.trial_id.in_(part) & (TRIALS.c.state == TrialState.RUNNING)
            done = connection.execute(sa.update(TRIALS).where(running).values(**values))
            if done.rowcount != len(part):
                return False
    finished = [
        {"trial_id": row, "objective": 0, "value": float(each.value), "value_type": "FINITE"}
        for row, each in updates.items()
        if each.state != "running" and each.value is not None
    ]
    _insert(connection, VALUES, finished)
    rungs = {
        row: {"step": int(each.rung), "intermediate_value": float(each.value)}
        for row, each in updates.items()
        if each.rung is not None and each.value is not None
    }
    _delete(connection, RUNGS, RUNGS.c.step, {row: {each["step"]} for row, each in rungs.items()})
    finite = {"intermediate_value_type": "FINITE"}
    _insert(connection, RUNGS, [{"trial_id": row, **each, **finite} for row, each in rungs.items()])
    attrs = {row: each.attrs for row, each in updates.items() if each.attrs}
    _delete(connection, ATTRS, ATTRS.c.key, attrs)
    _insert_attrs(connection, attrs)
    return True


def _insert_attrs(connection: sa.Connection, attrs: Mapping[int, Mapping[str, Any]]) -> None:
    rows = [
        {"trial_id": row, "key": key, "value_json": to_json(value)}
        for row, each in attrs.items()
        for key, value in each.items()
    ]
    _insert(connection, ATTRS, rows)


def _insert(connection: sa.Connection, table: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(sa.insert(table), rows)


def _delete(
    connection: sa.Connection, table: Any, column: Any, named: Mapping[int, Container[Any]]
) -> None:
    """Delete what trials have under these names, by primary key.

    Most often there is nothing, and to delete that would make MySQL lock what lies beside it.
    """
    (key,) = table.primary_key
    old = []
    for part in _parts(list(named)):
        query = sa.select(key, table.c.trial_id, column).where(table.c.trial_id.in_(part))
        old += [each for each, row, name in connection.execute(query) if name in named[row]]
    for part in _parts(old):
        connection.execute(sa.delete(table).where(key.in_(part)))


def _parts(rows: Sequence[int]) -> Iterator[Sequence[int]]:
    for first in range(0, len(rows), IN_ONE_QUERY):
        yield rows[first : first + IN_ONE_QUERY]


def to_json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _utc_now() -> datetime:
    """Optuna stores UTC without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)
