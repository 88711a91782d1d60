"""Notes and plots in a study: where optuna-dashboard looks for them, and nobody's are lost."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.studies import complete, open_study, optuna_study, start, url_of

from ztp_search.study import StudyReader
from ztp_search.study.showing import PIECE, Shown, is_saved, save, state_of

optuna_dashboard = pytest.importorskip("optuna_dashboard")
go = pytest.importorskip("plotly.graph_objects")

LONG = "Schön | " * PIECE
"""In several pieces, of more than ASCII."""
FIGURE = go.Figure({"data": [{"y": list(range(PIECE))}]}).to_json()


@pytest.fixture
def url(tmp_path: Path) -> str:
    with open_study(url_of(tmp_path)) as study:
        start(study, 0, 1, 2)
        complete(study, 0, 0.75)
    return url_of(tmp_path)


def shown(url: str, *notes: str, **plots: str) -> None:
    with StudyReader.open(url) as study:
        save(study, Shown(notes[0], dict(enumerate(notes[1:])), plots, state=state_of(study)))


def read(url: str) -> tuple[list[str], dict[str, str]]:
    """Notes of the study and of its trials, and figures, as optuna-dashboard reads them."""
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
    from optuna_dashboard._note import get_note_from_system_attrs

    with optuna_study(url) as study:
        attributes = study._storage.get_study_system_attrs(study._study_id)
        rows = [None, *(trial._trial_id for trial in study.get_trials())]
    notes = [get_note_from_system_attrs(attributes, row)["body"] for row in rows]
    return notes, get_plotly_graph_objects(attributes)


def attributes_of(url: str) -> dict[str, Any]:
    with optuna_study(url) as study:
        found: dict[str, Any] = study._storage.get_study_system_attrs(study._study_id)
        return found


def test_optuna_dashboard_reads_what_is_saved(url: str) -> None:
    shown(url, LONG, "first", LONG, one=FIGURE, two="{}")
    assert read(url) == ([LONG, "first", LONG, ""], {"one": FIGURE, "two": "{}"})
    assert json.loads(read(url)[1]["one"])["data"][0]["y"][-1] == PIECE - 1


def test_what_is_saved_again_takes_the_place_of_what_was_there(url: str) -> None:
    shown(url, LONG, "first", LONG, one=FIGURE, two=FIGURE)
    shown(url, "short", "", "", one="{}")
    shown(url, "shorter", "new")
    notes, plots = read(url)
    assert notes == ["shorter", "new", "", ""]
    assert plots == {}
    pieces = [key for key in attributes_of(url) if "note_str" in key or "plot_data" in key]
    assert len(pieces) == 2


def test_saving_the_same_again_changes_nothing(url: str) -> None:
    shown(url, LONG, "first", one=FIGURE)
    before = attributes_of(url)
    shown(url, LONG, "first", one=FIGURE)
    assert attributes_of(url) == before


def test_the_version_of_a_note_rises_with_its_text(url: str) -> None:
    versions = []
    for text in ("one", "two", "two", "three"):
        shown(url, text)
        versions.append(attributes_of(url)["dashboard:note_ver"])
    assert versions == [1, 2, 2, 3]


def test_what_a_user_has_written_stays(url: str) -> None:
    shown(url, "ours", "ours of 0", "ours of 1")
    with optuna_study(url) as study:
        optuna_dashboard.save_note(study, "mine")
        mine = go.Figure()
        optuna_dashboard.save_plotly_graph_object(study, mine, graph_object_id="mine")
    shown(url, "ours again", "ours of 0 again", one="{}")
    shown(url, "and again", "and again", two="{}")
    notes, plots = read(url)
    assert notes == ["mine", "and again", "", ""]
    assert plots == {"mine": mine.to_json(), "two": "{}"}


def test_a_note_that_a_user_has_emptied_stays_empty(url: str) -> None:
    shown(url, "ours")
    with optuna_study(url) as study:
        optuna_dashboard.save_note(study, "")
    shown(url, "ours again")
    assert read(url)[0][0] == ""


def test_what_is_saved_is_known_to_be_of_this_state(url: str) -> None:
    shown(url, "ours", one="{}")
    with StudyReader.open(url) as study:
        state = state_of(study)
    assert is_saved(attributes_of(url), state, plots=True)
    assert not is_saved({}, state, plots=True)
    shown(url, "ours")
    assert not is_saved(attributes_of(url), state, plots=True)
    assert is_saved(attributes_of(url), state, plots=False)


def test_the_state_changes_with_trials_and_with_results(tmp_path: Path) -> None:
    states = []
    with open_study(url_of(tmp_path)) as study:
        states.append(state_of(study))
        start(study, 0, 1)
        states.append(state_of(study))
        complete(study, 0, 0.5)
        states.append(state_of(study))
        study.set_attribute("scores", {"0": 0.1})
        states.append(state_of(study))
        study.set_attribute("holdout", {"candidates": {"x": {}}})
        states.append(state_of(study))
        assert state_of(study) == states[-1]
        with open_study(url_of(tmp_path), "another budget", budget={"macs": 7}) as other:
            states.append(state_of(study))
            start(other, 0)
            states.append(state_of(study))
        with open_study(url_of(tmp_path), "another search", seed=1):
            assert state_of(study) == states[-1]
    assert len(set(states)) == len(states)
