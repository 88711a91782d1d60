"""The page of a study, quickly answered: as optuna-dashboard itself answers, but sooner."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest
from helpers.made_up import made_up_search
from helpers.running import url_of

from ztp_search.results import dashboard_api, live, showing
from ztp_search.results.artifacts import TrialArtifacts, artifacts_of
from ztp_search.results.dashboard import dashboard
from ztp_search.results.dashboard_api import StudyDocuments
from ztp_search.results.live import Live
from ztp_search.results.showing import save_shown
from ztp_search.study import StudyReader
from ztp_search.study.dashboard_storage import DashboardStorage
from ztp_search.study.showing import note_of

optuna_dashboard = pytest.importorskip("optuna_dashboard")
pytest.importorskip("plotly")


def get(application: Any, path: str, method: str = "GET") -> tuple[str, bytes]:
    """Status and body of an answer."""
    status = ""

    def start_response(line: str, headers: Any, _: Any = None) -> None:
        nonlocal status
        status = line

    path, _, query = path.partition("?")
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query}
    setup_testing_defaults(environ)
    answer = application(environ, start_response)
    try:
        return status, b"".join(answer)
    finally:
        getattr(answer, "close", int)()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search under two budgets, one that was interrupted, and another program's."""
    out = tmp_path_factory.mktemp("shown")
    made_up_search(out, budget="50%,65%", trials=24)
    made_up_search(out, tasks=24, study="interrupted", trials=24)
    study = optuna.create_study(storage=url_of(out), study_name="foreign")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    return out


def ids(out: Path) -> dict[str, int]:
    studies = DashboardStorage(url_of(out), artifacts_of).get_all_studies()
    return {each.study_name: each._study_id for each in studies}


@pytest.mark.parametrize("name", ["digits-50%-seed0", "interrupted"])
@pytest.mark.parametrize("after", [0, 7, 24, 99])
def test_it_is_what_optuna_dashboard_answers(out: Path, name: str, after: int) -> None:
    number = ids(out)[name]
    storage = DashboardStorage(url_of(out), artifacts_of, whole=True)
    Live(storage).renew(number)
    status, body = get(optuna_dashboard.wsgi(storage), f"/api/studies/{number}?after={after}")
    assert status == "200 OK"
    theirs, mine = json.loads(body), json.loads(StudyDocuments(storage).document(number, after))
    for document in (theirs, mine):
        document["plotly_graph_objects"].sort(key=lambda each: each["id"])
        document["union_user_attrs"].sort(key=lambda each: each["key"])
        for space in ("union_search_space", "intersection_search_space"):
            for each in document[space]:  # where optuna-dashboard mixes up the order of choices
                each["distribution"].get("choices", []).sort(key=lambda choice: choice["value"])
    assert mine == theirs
    assert len(mine["trials"]) == max(0, 24 - after)
    assert mine["note"]["body"].startswith(f"# Study {name}")


def test_plots_come_in_the_order_in_which_they_are_listed(out: Path) -> None:
    from ztp_search.results.plots import PLOTS

    storage = DashboardStorage(url_of(out), artifacts_of)
    document = json.loads(StudyDocuments(storage).document(ids(out)["digits-50%-seed0"]))
    names = [each["id"] for each in document["plotly_graph_objects"]]
    assert names == [name for name in PLOTS if name in names] and len(names) > 7
    for each in document["plotly_graph_objects"]:
        figure = json.loads(each["graph_object"])
        assert f"<b>{PLOTS[each['id']].title}</b>" in figure["layout"]["title"]["text"]


def test_finished_trials_are_serialized_once(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = DashboardStorage(url_of(out), artifacts_of)
    documents, number = StudyDocuments(storage), ids(out)["interrupted"]
    serialized = []
    plain = documents._serializer.serialize_frozen_trial

    def counted(study_id: int, trial: Any, attributes: Any) -> Any:
        serialized.append(trial.number)
        return plain(study_id, trial, attributes)

    monkeypatch.setattr(documents._serializer, "serialize_frozen_trial", counted)
    first = documents.document(number)
    assert set(serialized) == set(range(24))
    serialized.clear()
    assert documents.document(number) == first
    running = {t.number for t in storage.get_all_trials(number) if not t.state.is_finished()}
    assert running and set(serialized) <= running | {0, 1, 2, 3}  # the best, in the head, is again


def test_what_is_not_the_page_of_one_of_our_studies_is_left_to_optuna_dashboard(out: Path) -> None:
    application = dashboard(url_of(out))
    plain = optuna_dashboard.wsgi(optuna.storages.RDBStorage(url_of(out)))
    foreign = ids(out)["foreign"]
    for path in (f"/api/studies/{foreign}?after=1", "/api/studies/999", "/api/studies/1?after=x",
                 f"/api/studies/{foreign}/param_importances"):  # fmt: skip
        mine, theirs = get(application, path), get(plain, path)
        assert mine[0] == theirs[0] and json.loads(mine[1]) == json.loads(theirs[1])


def test_a_study_under_way_is_shown_although_nothing_was_saved(out: Path) -> None:
    number = ids(out)["interrupted"]
    application = dashboard(url_of(out))
    document: dict[str, Any] = {}
    for _ in range(100):  # the first page may be too early
        document = json.loads(get(application, f"/api/studies/{number}")[1])
        if document["plotly_graph_objects"]:
            break
    assert document["note"]["body"].startswith("# Study interrupted")
    assert document["plotly_graph_objects"]
    with StudyReader.open(url_of(out), "interrupted") as study:
        stored = study._database.optuna.get_study_system_attrs(number)
    assert note_of(stored, None) is None  # and nothing is saved by looking


def test_nothing_is_drawn_again_that_was_saved_and_is_still_true(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    plain: Callable[..., Any] = live.shown

    def counted(study: StudyReader) -> Any:
        drawn.append(study.name)
        return plain(study)

    monkeypatch.setattr(live, "shown", counted)
    storage = DashboardStorage(url_of(out), artifacts_of)
    Live(storage).renew(ids(out)["digits-50%-seed0"])
    assert drawn == []
    looking = Live(storage)
    for _ in range(3):
        looking.renew(ids(out)["interrupted"])
    assert drawn == ["interrupted"]
    with StudyReader.open(url_of(out), "digits-50%-seed0") as study:
        before = study._database.optuna.get_study_system_attrs(study.id)
        save_shown(study)
        assert study._database.optuna.get_study_system_attrs(study.id) == before


def test_without_plotly_there_are_notes_and_no_plots(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(showing, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with StudyReader.open(url_of(out), "digits-50%-seed0") as study:
        found = showing.shown(study)
    assert found.note.startswith("# Study digits-50%-seed0") and found.trial_notes
    assert found.plots == {}


def test_artifacts_are_the_configuration_and_its_picture(out: Path) -> None:
    number = ids(out)["digits-50%-seed0"]
    application = dashboard(url_of(out), study=number)
    document = json.loads(get(application, f"/api/studies/{number}")[1])
    (best,) = document["best_trials"]
    with_artifacts = [trial for trial in document["trials"] if trial["artifacts"]]
    complete = [trial["number"] for trial in document["trials"] if trial["state"] == "Complete"]
    assert [trial["number"] for trial in with_artifacts] == complete
    files = {}
    for artifact in best["artifacts"]:
        path = f"/artifacts/{number}/{best['trial_id']}/{artifact['artifact_id']}"
        status, files[artifact["filename"]] = get(application, path)
        assert status == "200 OK"
    name = f"trial-{best['number']}"
    assert files.keys() == {f"{name}.json", f"{name}.svg"}
    with StudyReader.open(url_of(out), "digits-50%-seed0") as study:
        (winner,) = study.best(1)
        assert json.loads(files[f"{name}.json"])["config"] == winner.config.to_dict()
        assert winner.number == best["number"]
    assert files[f"{name}.svg"].startswith(b"<?xml") and b"</svg>" in files[f"{name}.svg"]


def test_only_so_many_trials_have_notes_and_files_and_those_that_fall_behind_lose_them(
    tmp_path: Path,
) -> None:
    before: set[int] = set()
    for trials in (60, 90):
        made_up_search(tmp_path, trials=trials, racing="off", study="s")
        storage = DashboardStorage(url_of(tmp_path), artifacts_of)
        with StudyReader.open(url_of(tmp_path), "s") as study:
            best = {trial.number for trial in study.best(showing.AT_MOST)}
            stored = study._database.optuna.get_study_system_attrs(study.id)
        trials_of = storage.get_all_trials(ids(tmp_path)["s"])
        with_files = {t.number for t in trials_of if any("artifacts:" in k for k in t.system_attrs)}
        with_notes = {t.number for t in trials_of if note_of(stored, t._trial_id) is not None}
        assert with_files == with_notes == best and len(best) == 50
        assert not any(key.startswith("artifacts:") for key in stored)  # made when asked for
        assert before - best or not before  # some fall behind
        before = best


@pytest.mark.parametrize(
    "id", ["x", "00000001-00000000-09", "000000ff-00000000-01", "00000001-000000ff-01"]
)
def test_an_artifact_that_is_none_is_not_found(out: Path, id: str) -> None:
    storage = DashboardStorage(url_of(out), artifacts_of)
    with pytest.raises(FileNotFoundError):
        TrialArtifacts(storage.reader).open_reader(id)


def test_pages_are_styled_and_other_files_are_as_they_were(out: Path) -> None:
    application = dashboard(url_of(out))
    plain = optuna_dashboard.wsgi(optuna.storages.RDBStorage(url_of(out)))
    status, page = get(application, "/dashboard/studies/1")
    assert status == "200 OK" and b"overflow-wrap" in page
    without = page.replace(page[page.rindex(b"<style>") : page.index(b"</head>")], b"")
    assert without == get(plain, "/dashboard/studies/1")[1]
    assert get(application, "/static/bundle.js")[1] == get(plain, "/static/bundle.js")[1]


def test_another_release_of_optuna_dashboard_answers_by_itself(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("optuna_dashboard._serializer.serialize_frozen_trial")
    assert not dashboard_api.can_be_quick()
    monkeypatch.undo()
    assert dashboard_api.can_be_quick()
