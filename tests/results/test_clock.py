"""Studies whose trials have absurd times, as clocks were set while they ran."""

import dataclasses
import shutil
import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from helpers.running import url_of

from ztp_search.results.best_trials import best_trials
from ztp_search.results.report import FORMATS
from ztp_search.results.report.contents import report
from ztp_search.results.report.material import material
from ztp_search.results.showing import shown
from ztp_search.study import StudyReader
from ztp_search.study.dashboard_storage import DashboardStorage

pytest.importorskip("plotly")
STUDIES = ("digits-50%-seed0", "interrupted")


def test_what_a_study_shows_goes_by_no_time_of_a_trial(made_up: Path, tmp_path: Path) -> None:
    shutil.copy(made_up / "studies.db", tmp_path)
    before = {name: all_that_is_shown(tmp_path, name) for name in STUDIES}
    with closing(sqlite3.connect(tmp_path / "studies.db")) as database:
        database.create_function("moved", 2, moved)
        database.execute(
            "UPDATE trials SET datetime_start = moved(datetime_start, number * 7919 % 5000), "
            "datetime_complete = moved(datetime_complete, number * 104729 % 5000)"
        )
        database.commit()
        query = "SELECT count(*) FROM trials WHERE datetime_complete < datetime_start"
        assert database.execute(query).fetchone()[0] > 20
    assert {name: all_that_is_shown(tmp_path, name) for name in STUDIES} == before
    storage = DashboardStorage(url_of(tmp_path), lambda study, number: {})
    for study in storage.get_all_studies():
        for trial in storage.get_all_trials(study._study_id):
            assert trial.duration is None or trial.duration >= timedelta(0)


def moved(text: str | None, hours: int) -> str | None:
    return text and str(datetime.fromisoformat(text) + timedelta(hours=hours))


def all_that_is_shown(out: Path, name: str) -> Any:
    """A study's notes and plots, its report, and its best trials."""
    with StudyReader.open(url_of(out), name) as study:
        told = dataclasses.replace(report(material(study)), written="")
        pages = [each.load()(told) for each in FORMATS.values()]
        return shown(study), pages, best_trials(study, 10).to_dict()
