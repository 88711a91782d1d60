"""Notes and plots in a study, under the system attributes where optuna-dashboard looks for them.

The only place that knows these names. They are written in one transaction: a plot is hundreds of
kilobytes in pieces, and optuna-dashboard's own functions take a transaction for each.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from optuna.storages._rdb import models

from ztp_search.study.reader import StudyReader
from ztp_search.study.rows import TRIALS, finished_trials, to_json

SYSTEM = models.StudySystemAttributeModel.__table__
OURS = "ztp:shown"
"""What we have written: digests of the notes, so that those of users stay, and the state of the
study that all of it is of."""
PIECE = 8_000
"""Characters of a note or plot in one attribute: MySQL's texts end at 65,535 bytes, and a piece may
need six of these a character."""
PLOT = "dashboard:plot_data:"
NOTE = re.compile(r"dashboard:(\d+:)?note_(ver|str:\d+)")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a study shows beside its trials.

    Attributes:
        note: of the study, Markdown.
        trial_notes: of trials by number, Markdown.
        plots: Plotly figures as JSON, by name, in the order in which they are shown.
        best: number of the best trial, None while there is none.
        state: of the study that this was made of, as `state_of` says it.
    """

    note: str
    trial_notes: Mapping[int, str] = field(default_factory=dict)
    plots: Mapping[str, str] = field(default_factory=dict)
    best: int | None = None
    state: str = ""


def state_of(study: StudyReader) -> str:
    """What changes whenever there is something new to be shown: a short text."""
    attributes = study.attributes()
    parts = [len(attributes.get("holdout", {}).get("candidates", ())), attributes.get("scores"),
             attributes.get("cohorts")]  # fmt: skip
    studies = [study, *study.siblings()]  # they stand beside it
    counts = study._database.read(
        lambda connection: [(each.name, *finished_trials(connection, each.id)) for each in studies]
    )
    return _digest(to_json([counts, parts]))


def save(study: StudyReader, shown: Shown) -> None:
    """Write notes and plots into the study, over those of before; notes of users stay."""
    before = study._database.read(lambda each: read_system_attributes(each, study.id))
    rows = study._database.read(lambda each: trial_rows(each, study.id))
    after = attributes_of(shown, rows, before)
    gone = [key for key in before if is_shown(key) and key not in after]
    changed = {key: value for key, value in after.items() if before.get(key) != value}
    mine = SYSTEM.c.study_id == study.id

    def store(connection: sa.Connection, _: bool) -> None:
        for key in [*gone, *changed]:
            connection.execute(sa.delete(SYSTEM).where(mine & (SYSTEM.c.key == key)))
        rows_of = [{"study_id": study.id, "key": key, "value_json": to_json(value)}
                   for key, value in changed.items()]  # fmt: skip
        if rows_of:
            connection.execute(sa.insert(SYSTEM), rows_of)

    study._database.write(store)


def is_saved(attributes: Mapping[str, Any], state: str, plots: bool) -> bool:
    """Whether what is stored shows a study in this state, with plots if there should be any."""
    ours = attributes.get(OURS, {})
    return ours.get("state") == state and bool(ours["plots"] or not plots)


def attributes_of(
    shown: Shown, rows: Mapping[int, int], before: Mapping[str, Any]
) -> dict[str, Any]:
    """The system attributes that a study has with this to be shown.

    Args:
        shown: what is to be shown.
        rows: of the trial table by number.
        before: the study's system attributes.

    Returns:
        All that are about notes and plots, those that stay as they are too.
    """
    notes = {None: shown.note} | {
        rows[number]: text for number, text in shown.trial_notes.items() if number in rows
    }
    written = before.get(OURS, {}).get("notes", {})
    ours = {*shown.plots, *before.get(OURS, {}).get("plots", ())}
    after = {key: value for key, value in before.items() if NOTE.fullmatch(key)
             or (key.startswith(PLOT) and _plot_name(key) not in ours)}  # fmt: skip
    digests = {}
    for row in {*notes, *(int(name) if name else None for name in written)}:
        name, stored = str(row or ""), note_of(before, row)
        if stored is not None and _digest(stored) != written.get(name):
            continue  # a user has written it
        version_key, prefix = _note_keys(row)
        version = after.pop(version_key, 0)
        after = {key: value for key, value in after.items() if not key.startswith(prefix)}
        if row in notes:
            after[version_key] = version if stored == notes[row] else version + 1
            after |= _pieces(prefix, notes[row])
            digests[name] = _digest(notes[row])
    for name, figure in shown.plots.items():
        after |= _pieces(f"{PLOT}{name}:", figure)
    after[OURS] = {"state": shown.state, "best": shown.best, "notes": digests,
                   "plots": list(shown.plots), "trials": sorted(shown.trial_notes)}  # fmt: skip
    return after


def note_of(attributes: Mapping[str, Any], row: int | None) -> str | None:
    """The note of the study (None), or of the trial in that row; None where there is none."""
    version_key, prefix = _note_keys(row)
    if version_key not in attributes:
        return None
    return _joined(attributes, prefix)


def notes_by_row(attributes: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """The attributes that are notes of trials, by row of the trial table."""
    out: dict[int, dict[str, Any]] = {}
    for key, value in attributes.items():
        match = NOTE.fullmatch(key)
        if match and match[1]:
            out.setdefault(int(match[1][:-1]), {})[key] = value
    return out


def plots_of(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Figures as JSON by name: ours first, in their order, then those of others by name."""
    names = {_plot_name(key) for key in attributes if key.startswith(PLOT)}
    ours = [name for name in attributes.get(OURS, {}).get("plots", ()) if name in names]
    figures = {
        name: _joined(attributes, f"{PLOT}{name}:")
        for name in [*ours, *sorted(names - set(ours))]
    }
    return {name: figure for name, figure in figures.items() if figure}


def is_shown(key: str) -> bool:
    """Whether a system attribute is of a note, a plot, or of what we have written of them."""
    return key == OURS or key.startswith(PLOT) or NOTE.fullmatch(key) is not None


def read_system_attributes(
    connection: sa.Connection, study: int, shown: bool = True
) -> dict[str, Any]:
    """The system attributes of a study; without `shown` not even reading notes and plots."""
    query = sa.select(SYSTEM.c.key, SYSTEM.c.value_json).where(SYSTEM.c.study_id == study)
    if not shown:
        query = query.where(SYSTEM.c.key.not_like("dashboard:%"))
    return {key: json.loads(text) for key, text in connection.execute(query)}


def read_shown(connection: sa.Connection, study: int) -> dict[str, Any]:
    """What we have written down of that which is stored; empty where nothing is."""
    which = (SYSTEM.c.study_id == study) & (SYSTEM.c.key == OURS)
    text = connection.scalar(sa.select(SYSTEM.c.value_json).where(which))
    return {} if text is None else dict(json.loads(text))


def trial_rows(connection: sa.Connection, study: int) -> dict[int, int]:
    """Rows of the trial table by number."""
    query = sa.select(TRIALS.c.number, TRIALS.c.trial_id).where(TRIALS.c.study_id == study)
    return {number: row for number, row in connection.execute(query)}


def _note_keys(row: int | None) -> tuple[str, str]:
    """The key of a note's version, and what the keys of its pieces begin with."""
    owner = "dashboard:" if row is None else f"dashboard:{row}:"
    return f"{owner}note_ver", f"{owner}note_str:"


def _plot_name(key: str) -> str:
    return key.removeprefix(PLOT).rpartition(":")[0]


def _pieces(prefix: str, text: str) -> dict[str, str]:
    return {
        f"{prefix}{number}": text[first : first + PIECE]
        for number, first in enumerate(range(0, len(text), PIECE))
    }


def _joined(attributes: Mapping[str, Any], prefix: str) -> str:
    pieces = {int(key.removeprefix(prefix)): value for key, value in attributes.items()
              if key.startswith(prefix)}  # fmt: skip
    return "".join(pieces[number] for number in sorted(pieces))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
