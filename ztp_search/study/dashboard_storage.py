"""The database as the Optuna dashboard takes it: quick, without what nobody reads, read-only.

Of studies of ours it shows the notes, plots and artifacts that are put over it, whether they are
stored or not, so that a study is shown in full while it is searched, from a file that cannot be
written, or where nothing was saved.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from optuna.storages import BaseStorage
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from ztp_search.errors import StudyError
from ztp_search.study.connection import Database
from ztp_search.study.frozen import LONGEST, FrozenTrials, thinned
from ztp_search.study.reader import StudyReader
from ztp_search.study.showing import (
    OURS,
    Shown,
    attributes_of,
    is_shown,
    read_shown,
    read_system_attributes,
    trial_rows,
)

USER = models.StudyUserAttributeModel.__table__
DRAWN = 500
"""Trials of a study of ours that are drawn in the dashboard's own plots: those that came furthest.
Browsers take seconds for more, and estimates on a few images are stripes of noise."""
LINES = 20
"""Trials whose values at the rungs are drawn, a line each."""


@dataclass(slots=True)
class _Open:
    """A study that is looked at."""

    ours: bool
    trials: FrozenTrials
    over: dict[str, Any] = field(default_factory=dict)  # system attributes, over those stored


class DashboardStorage(BaseStorage):
    """A storage to look at.

    Args:
        storage: URL of the database; StudyError where there is none.
        artifacts: of the study and trial of these numbers: the JSON that Optuna keeps of each
            artifact, by its attribute.
        editable: whether what Optuna's tools write is let through.
        whole: whether the list of studies has notes and plots too, for tools that look for them
            there; it takes longer then.
    """

    def __init__(
        self,
        storage: str,
        artifacts: Callable[[int, int], Mapping[str, str]],
        editable: bool = False,
        whole: bool = False,
    ) -> None:
        self._database = Database.open(storage, awaits=True)
        self._artifacts = artifacts
        self._editable = editable
        self._whole = whole
        self._open: dict[int, _Open] = {}
        self._lock = threading.RLock()

    def close(self) -> None:
        """Disconnect."""
        self._database.close()

    # ---- what is shown of studies of ours ----------------------------------------------------

    def reader(self, study_id: int) -> StudyReader | None:
        """The study, if it is one of ours; it shares the connection and is not to be closed."""
        try:
            name = self._database.optuna.get_study_name_from_id(study_id)
        except KeyError:
            return None
        if name not in self._database.starts():
            return None
        return StudyReader(self._database, name, study_id)

    def show(self, study_id: int, shown: Shown) -> None:
        """Put notes and plots over a study of ours, in place of those that are stored."""
        with self._database.snapshot() as connection:
            before = read_system_attributes(connection, study_id)
            rows = trial_rows(connection, study_id)
        self._entry(study_id).over = attributes_of(shown, rows, before)

    def ours(self, study_id: int) -> bool:
        """Whether a search of ours has filled the study."""
        return self._entry(study_id).ours

    # ---- what the dashboard reads ------------------------------------------------------------

    def get_all_studies(self) -> list[FrozenStudy]:
        """All studies, without long attributes; of ours without notes and plots, which only the
        page of a study shows."""
        with self._database.snapshot() as connection:
            studies = _studies(connection)
        for study in studies if self._whole else ():
            study.system_attrs = self.get_study_system_attrs(study._study_id)
        return studies

    def get_study(self, study_id: int) -> FrozenStudy:
        """One study with all that is shown of it; KeyError without it."""
        found = {each._study_id: each for each in self.get_all_studies()}
        study = found[study_id]
        study.system_attrs = self.get_study_system_attrs(study_id)
        return study

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        with self._database.snapshot() as connection:
            stored = read_system_attributes(connection, study_id)
        over = self._entry(study_id).over
        if over:
            stored = {key: value for key, value in stored.items() if not is_shown(key)} | over
        return stored

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        entry = self._entry(study_id)
        with self._lock, self._database.snapshot() as connection:
            trials = entry.trials.read(connection)
        if entry.ours:
            trials = self._with_artifacts(study_id, _thinned(trials))
        if states is not None:
            trials = [trial for trial in trials if trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def get_trial(self, trial_id: int) -> FrozenTrial:
        with self._database.snapshot() as connection:
            table = models.TrialModel.__table__
            query = sa.select(table.c.study_id).where(table.c.trial_id == trial_id)
            study_id = connection.scalar(query)
        if study_id is None:
            raise KeyError(f"there is no trial with trial_id {trial_id}")
        every = self.get_all_trials(study_id, deepcopy=False)
        return next(trial for trial in every if trial._trial_id == trial_id)

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """The trial that the search ranks first, where it has ranked them."""
        best = self._shown(study_id).get("best")
        if best is None:
            by_value: FrozenTrial = super().get_best_trial(study_id)
            return by_value
        ranked: FrozenTrial = self.get_all_trials(study_id, deepcopy=False)[best]
        return ranked

    def get_study_id_from_name(self, study_name: str) -> int:
        return self._database.optuna.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        return self._database.optuna.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._database.optuna.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._database.optuna.get_study_user_attrs(study_id)

    # ---- what it writes, where it may --------------------------------------------------------

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        return self._writing().create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        self._writing().delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._writing().set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._writing().set_study_system_attr(study_id, key, value)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        return self._writing().create_new_trial(study_id, template_trial)

    def set_trial_param(self, *args: Any) -> None:
        self._writing().set_trial_param(*args)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        return self._writing().set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        self._writing().set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._writing().set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self._writing().set_trial_system_attr(trial_id, key, value)

    def _writing(self) -> BaseStorage:
        """The storage that is written to; what was read before may not be so any more."""
        if not self._editable:
            raise StudyError(f"{self._database.shown} was opened to be read")
        with self._lock:
            self._open.clear()
        return self._database.optuna

    def _shown(self, study_id: int) -> Mapping[str, Any]:
        """What is known of that which a study shows: `best`, `trials`, …"""
        over = self._entry(study_id).over
        if over:
            shown: Mapping[str, Any] = over[OURS]
            return shown
        with self._database.snapshot() as connection:
            return read_shown(connection, study_id)

    def _with_artifacts(self, study_id: int, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """Trials, of which the complete ones that have a note have artifacts too."""
        for number in self._shown(study_id).get("trials", ()):
            if trials[number].state == TrialState.COMPLETE:
                trials[number] = other = copy.copy(trials[number])
                artifacts = self._artifacts(study_id, number)
                other._system_attrs = {**other._system_attrs, **artifacts}
        return trials

    def _entry(self, study_id: int) -> _Open:
        with self._lock:
            if study_id not in self._open:
                ours = self.reader(study_id) is not None
                self._open[study_id] = _Open(ours, FrozenTrials(study_id, ours))
            return self._open[study_id]


def _studies(connection: sa.Connection) -> list[FrozenStudy]:
    """All studies by number."""
    studies, directions = models.StudyModel.__table__, models.StudyDirectionModel.__table__
    of: dict[int, list[StudyDirection]] = {}
    query = sa.select(directions.c.study_id, directions.c.direction)
    for study, direction in connection.execute(query.order_by(directions.c.objective)):
        of.setdefault(study, []).append(direction)
    user: dict[int, dict[str, Any]] = {}
    query = sa.select(USER.c.study_id, USER.c.key, USER.c.value_json).order_by(USER.c.key)
    for study, key, text in connection.execute(
        query.where(sa.func.length(USER.c.value_json) <= LONGEST)
    ):
        user.setdefault(study, {})[key] = json.loads(text)
    query = sa.select(studies.c.study_id, studies.c.study_name).order_by(studies.c.study_id)
    found = []
    for study, name in connection.execute(query).all():
        attrs = user.get(study, {})
        system = read_system_attributes(connection, study, shown="driver" not in attrs)
        found.append(FrozenStudy(name, None, attrs, system, study, directions=of[study]))
    return found


def _thinned(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials of ours as far as they are drawn."""
    order = sorted(trials, key=_distance)
    drawn = {trial.number for trial in order[:DRAWN]}
    return thinned(trials, drawn, {trial.number for trial in order[:LINES]})


def _distance(trial: FrozenTrial) -> tuple[bool, int, float, int]:
    """Sorts those that came furthest first."""
    attrs = trial.user_attrs
    return (trial.state != TrialState.COMPLETE, -attrs.get("images", 0), attrs.get("loss", 0.0),
            trial.number)  # fmt: skip
