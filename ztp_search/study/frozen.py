"""Trials as Optuna's tools take them, read fast and kept: what is finished changes no more.

Optuna's own reading takes a second per thousand of our trials, each time. Here a study is read in
one query per table, without attributes that nobody reads, and only what is new is read again.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

from ztp_search.study.rows import ATTRS, IN_ONE_QUERY, PARAMS, RUNGS, TRIALS, VALUES

SYSTEM = models.TrialSystemAttributeModel.__table__
LONGEST = 1_000
"""Characters of an attribute that is still shown."""
UNREADABLE = ("config", "correct", "losses", "point")
"""Attributes of our trials that are for programs: packed results, and what the parameters say."""


class FrozenTrials:
    """The trials of one study.

    Args:
        study: Optuna's number of it.
        ours: whether a search of ours has filled it.
    """

    def __init__(self, study: int, ours: bool) -> None:
        self._study = study
        self._ours = ours
        self._finished: dict[int, FrozenTrial] = {}
        self._distributions: dict[str, BaseDistribution] = {}

    def read(self, connection: sa.Connection) -> list[FrozenTrial]:
        """All trials by number; those that are finished are the same objects each time."""
        mine = TRIALS.c.study_id == self._study
        query = sa.select(TRIALS.c.trial_id).where(mine).order_by(TRIALS.c.number)
        rows = [row for (row,) in connection.execute(query)]
        missing = [row for row in rows if row not in self._finished]
        new: dict[int, FrozenTrial] = {}
        if len(missing) > len(rows) // 2:
            new = self._built(connection, mine)
        else:
            for first in range(0, len(missing), IN_ONE_QUERY):
                part = missing[first : first + IN_ONE_QUERY]
                new |= self._built(connection, TRIALS.c.trial_id.in_(part))
        self._finished |= {row: each for row, each in new.items() if each.state.is_finished()}
        return [new[row] if row in new else self._finished[row] for row in rows]

    def _built(
        self, connection: sa.Connection, which: sa.ColumnElement[bool]
    ) -> dict[int, FrozenTrial]:
        params: dict[int, dict[str, Any]] = {}
        distributions: dict[int, dict[str, BaseDistribution]] = {}
        columns = (PARAMS.c.param_name, PARAMS.c.param_value, PARAMS.c.distribution_json)
        for row, name, value, text in _rows(connection, PARAMS, columns, which, PARAMS.c.param_id):
            distribution = self._distribution(text)
            params.setdefault(row, {})[name] = distribution.to_external_repr(value)
            distributions.setdefault(row, {})[name] = distribution
        values: dict[int, dict[int, float]] = {}
        columns = (VALUES.c.objective, VALUES.c.value, VALUES.c.value_type)
        for row, objective, value, kind in _rows(connection, VALUES, columns, which):
            stored = models.TrialValueModel.stored_repr_to_value(value, kind)
            values.setdefault(row, {})[objective] = stored
        rungs: dict[int, dict[int, float]] = {}
        columns = (RUNGS.c.step, RUNGS.c.intermediate_value, RUNGS.c.intermediate_value_type)
        to_value = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value
        for row, step, value, kind in _rows(connection, RUNGS, columns, which, RUNGS.c.step):
            rungs.setdefault(row, {})[step] = to_value(value, kind)
        attrs = self._attributes(connection, which)
        system = _texts(_rows(connection, SYSTEM, (SYSTEM.c.key, SYSTEM.c.value_json), which))
        fields = (TRIALS.c.trial_id, TRIALS.c.number, TRIALS.c.state, TRIALS.c.datetime_start,
                  TRIALS.c.datetime_complete)  # fmt: skip
        built = {}
        for row, number, state, start, end in connection.execute(sa.select(*fields).where(which)):
            found = values.get(row)
            if start and end:  # a clock that was set back may have come between
                end = max(start, end)
            built[row] = FrozenTrial(
                number, state, None, start, end, params.get(row, {}), distributions.get(row, {}),
                attrs.get(row, {}), system.get(row, {}), rungs.get(row, {}), row,
                values=None if found is None else [found[n] for n in sorted(found)],
            )  # fmt: skip
        return built

    def _attributes(
        self, connection: sa.Connection, which: sa.ColumnElement[bool]
    ) -> Mapping[int, dict[str, Any]]:
        """Those that are shown: the others are not even read."""
        shown = which & (sa.func.length(ATTRS.c.value_json) <= LONGEST)
        if self._ours:
            shown &= ATTRS.c.key.not_in(UNREADABLE)
        columns = (ATTRS.c.key, ATTRS.c.value_json)
        return _texts(_rows(connection, ATTRS, columns, shown, ATTRS.c.key))

    def _distribution(self, text: str) -> BaseDistribution:
        """Of the same text the same object."""
        if text not in self._distributions:
            self._distributions[text] = json_to_distribution(text)
        return self._distributions[text]


def thinned(
    trials: Sequence[FrozenTrial], drawn: Collection[int], lines: Collection[int]
) -> list[FrozenTrial]:
    """Trials of which only some have a value to be drawn, and some a line.

    Args:
        trials: all of them.
        drawn: numbers of those that keep their value; complete ones keep it anyway.
        lines: numbers of those that keep their values at the rungs.
    """
    out = []
    for trial in trials:
        values, rungs = trial.values, trial.intermediate_values
        if trial.number not in drawn and trial.state != TrialState.COMPLETE:
            values = None
        if trial.number not in lines:
            rungs = {}
        if values is not trial.values or rungs is not trial.intermediate_values:
            trial = FrozenTrial(
                trial.number, trial.state, None, trial.datetime_start, trial.datetime_complete,
                trial.params, trial.distributions, trial.user_attrs, trial._system_attrs, rungs,
                trial._trial_id, values=values,
            )  # fmt: skip
        out.append(trial)
    return out


def _rows(
    connection: sa.Connection, table: Any, columns: Sequence[Any], which: sa.ColumnElement[bool],
    order: Any = None,
) -> Iterator[Any]:  # fmt: skip
    """Row of the trial table and columns of a table about trials."""
    query = sa.select(table.c.trial_id, *columns).join_from(TRIALS, table).where(which)
    yield from connection.execute(query if order is None else query.order_by(order))


def _texts(rows: Iterator[Any]) -> dict[int, dict[str, Any]]:
    """Attributes by row of the trial table, of their JSON."""
    out: dict[int, dict[str, Any]] = {}
    for row, key, text in rows:
        out.setdefault(row, {})[key] = json.loads(text)
    return out
