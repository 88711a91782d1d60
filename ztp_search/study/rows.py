"""Trials in Optuna's own tables: a transaction to start one, one to finish it, fast reading.

State, value and attributes appear together or not at all. Measured on SQLite as `database` sets
it up, 40 parameters and 6 attributes per trial, two slow cores:
    add_trial(RUNNING), one attribute holding the rest, tell    20 + 1 + 5 ms, three transactions
    insert_running, finish_running                              1 + 1 ms
and reading 2,000 trials takes Optuna 3.1 s, `read_trials` 0.1 s. The price is the import of
Optuna's table classes: Optuna refuses a database of another schema, and the tests read through
Optuna what is written here. A transaction survives the death of any process (not a power cut:
synchronous=NORMAL).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.distributions import FloatDistribution, IntDistribution, distribution_to_json
from optuna.storages._rdb import models
from optuna.trial import TrialState

from ztp_search.config import PruningConfig

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

NEUTRAL: dict[str, float] = {"retention": 1.0, "s_tokens": 0, "wpr_iterations": 1}
"""A block's parameters where no layer stands: those of a layer that prunes nothing."""


@dataclass(frozen=True, slots=True)
class StoredTrial:
    """One trial as the database has it.

    number: the sampler's index of the trial, from 0.
    state: running, complete, pruned or failed; a dead driver's trials stay running.
    value: estimate of accuracy, a fraction of one; None while running and where it failed.
    attrs: what came with `start` and with the end of the trial; a failed one has `failure`.
    rungs: the estimate at each rung of a pruned trial.
    """

    number: int
    state: str
    value: float | None
    config: PruningConfig
    attrs: dict[str, Any]
    rungs: dict[int, float]


def rank(trial: StoredTrial) -> tuple[float, float, int]:
    assert trial.value is not None
    return -trial.value, trial.attrs.get("gflops", {}).get("total", math.inf), trial.number


def read_trials(connection: sa.Connection, study: int) -> tuple[list[StoredTrial], list[int]]:
    """Our trials by number, and the numbers of those that another program added."""
    mine = TRIALS.c.study_id == study
    attrs: dict[int, dict[str, Any]] = {}
    rungs: dict[int, dict[int, float]] = {}
    query = sa.select(TRIALS.c.trial_id, TRIALS.c.number, TRIALS.c.state, VALUES.c.value)
    rows = connection.execute(
        query.join_from(TRIALS, VALUES, isouter=True).where(mine).order_by(TRIALS.c.number)
    ).all()
    query = sa.select(ATTRS.c.trial_id, ATTRS.c.key, ATTRS.c.value_json)
    for row, key, text in connection.execute(query.join(TRIALS).where(mine)):
        attrs.setdefault(row, {})[key] = json.loads(text)
    query = sa.select(RUNGS.c.trial_id, RUNGS.c.step, RUNGS.c.intermediate_value)
    for row, step, value in connection.execute(query.join(TRIALS).where(mine)):
        rungs.setdefault(row, {})[step] = value
    trials, foreign = [], []
    for row, number, state, value in rows:
        if "config" not in attrs.get(row, {}) or state not in STATES:
            foreign.append(number)
            continue
        config = PruningConfig.from_dict(attrs[row].pop("config"), f"trial {number}")
        trials.append(
            StoredTrial(number, STATES[state], value, config, attrs[row], rungs.get(row, {}))
        )
    return trials, foreign


def read_states(
    connection: sa.Connection, study: int
) -> list[tuple[int, int, TrialState, str | None]]:
    """(number, row, state, JSON of the configuration or None) of every trial, by number."""
    is_config = (ATTRS.c.trial_id == TRIALS.c.trial_id) & (ATTRS.c.key == "config")
    query = sa.select(TRIALS.c.number, TRIALS.c.trial_id, TRIALS.c.state, ATTRS.c.value_json)
    query = query.join_from(TRIALS, ATTRS, is_config, isouter=True)
    query = query.where(TRIALS.c.study_id == study).order_by(TRIALS.c.number)
    return [(number, row, state, text) for number, row, state, text in connection.execute(query)]


def insert_running(
    connection: sa.Connection,
    study: int,
    number: int,
    params: Sequence[Mapping[str, Any]],
    attrs: Mapping[str, Any],
) -> tuple[int, int]:
    """Its row, and how many trials the study had before it."""
    values = {"study_id": study, "number": number, "state": TrialState.RUNNING}
    done = connection.execute(sa.insert(TRIALS).values(datetime_start=_utc_now(), **values))
    row = done.inserted_primary_key[0]  # type: ignore[index]  # an insert has one
    # Counted behind the insert, which holds SQLite's write lock: nobody comes between.
    mine = TRIALS.c.study_id == study
    count = connection.execute(sa.select(sa.func.count()).where(mine)).scalar_one() - 1
    connection.execute(sa.insert(PARAMS), [{"trial_id": row, **each} for each in params])
    _write_attrs(connection, row, attrs)
    return row, count


def finish_running(
    connection: sa.Connection,
    row: int,
    state: TrialState,
    value: float | None,
    attrs: Mapping[str, Any],
    rungs: Mapping[int, float],
) -> bool:
    """False where the trial is no longer running."""
    running = (TRIALS.c.trial_id == row) & (TRIALS.c.state == TrialState.RUNNING)
    done = connection.execute(
        sa.update(TRIALS).where(running).values(state=state, datetime_complete=_utc_now())
    )
    if done.rowcount != 1:
        return False
    if value is not None:
        values = {"trial_id": row, "objective": 0, "value": float(value)}
        connection.execute(sa.insert(VALUES).values(value_type="FINITE", **values))
    for step, estimate in rungs.items():
        values = {"trial_id": row, "step": step, "intermediate_value": float(estimate)}
        finite = {"intermediate_value_type": "FINITE"}
        connection.execute(sa.insert(RUNGS).values(**finite, **values))
    _write_attrs(connection, row, attrs)
    return True


def distributions_of(
    blocks: Sequence[int], ranges: Mapping[str, tuple[float, float]]
) -> dict[str, FloatDistribution | IntDistribution]:
    """The same for every trial of a study, so that Optuna's importances and plots work."""
    out: dict[str, FloatDistribution | IntDistribution] = {}
    for block in sorted(blocks):
        for field, neutral in NEUTRAL.items():
            low, high = ranges[f"block{block:02d}.{field}"]
            low, high = min(low, neutral), max(high, neutral)
            out[f"block{block:02d}.{field}"] = (
                FloatDistribution(low, high)
                if field == "retention"
                else IntDistribution(int(low), int(high))
            )
    for name in ("v_min", "v_max"):
        out[name] = FloatDistribution(*ranges[name])
    return out


def parameter_rows(
    config: PruningConfig, distributions: Mapping[str, FloatDistribution | IntDistribution]
) -> list[dict[str, Any]]:
    """Rows of the parameter table, one for every parameter of the study."""
    values: dict[str, float] = {"v_min": config.v_min, "v_max": config.v_max}
    for layer in config.layers:
        for field in NEUTRAL:
            values[f"block{layer.after_block:02d}.{field}"] = getattr(layer, field)
    rows = []
    for name, distribution in distributions.items():
        value = values.pop(name) if name in values else NEUTRAL[name.partition(".")[2]]
        if not distribution.low <= value <= distribution.high:
            raise ValueError(f"{name} = {value} is outside its range: {distribution}")
        text = distribution_to_json(distribution)
        rows.append({"param_name": name, "param_value": float(value), "distribution_json": text})
    if values:
        raise ValueError(f"{', '.join(values)}: no pruning layer of this study may stand there")
    return rows


def _write_attrs(connection: sa.Connection, row: int, attrs: Mapping[str, Any]) -> None:
    if attrs:
        old = (ATTRS.c.trial_id == row) & ATTRS.c.key.in_(list(attrs))
        connection.execute(sa.delete(ATTRS).where(old))
        rows = [{"trial_id": row, "key": k, "value_json": to_json(v)} for k, v in attrs.items()]
        connection.execute(sa.insert(ATTRS), rows)


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Every value that differs, named by its path: `geometry.depth 12 (now 24)`."""
    old, new = _leaves(stored, ""), _leaves(asked, "")
    keys = [key for key in sorted({**old, **new}) if old.get(key) != new.get(key)]
    return [f"{key[1:]} {_short(old.get(key))} (now {_short(new.get(key))})" for key in keys]


def _leaves(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {path: value}
    leaves = [_leaves(item, f"{path}.{key}") for key, item in value.items()]
    return {key: leaf for each in leaves for key, leaf in each.items()}


def _short(value: Any) -> str:
    text = "not set" if value is None else value if isinstance(value, str) else to_json(value)
    return text if len(text) <= 16 else f"{text[:12]}…"


def to_json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _utc_now() -> datetime:
    """Optuna stores UTC without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def is_reserved(key: str) -> bool:
    return key == "driver" or key.startswith("contract.")
