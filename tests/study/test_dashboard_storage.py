"""What the dashboard is given of a database: as Optuna reads it, but for what is left out."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers.studies import complete, open_study, optuna_study, start, url_of
from optuna.trial import FrozenTrial, TrialState

from ztp_search.errors import StudyError
from ztp_search.study import Update, dashboard_storage
from ztp_search.study.dashboard_storage import DashboardStorage
from ztp_search.study.frozen import LONGEST, UNREADABLE
from ztp_search.study.showing import Shown


def no_artifacts(study: int, number: int) -> Mapping[str, str]:
    return {}


def fill(url: str) -> None:
    """Trials of every state, with attributes for people and for programs."""
    with open_study(url) as study:
        start(study, *range(6), images=0, tokens=[7, 5], correct="packed", point=[0.5])
        study.update([
            Update(0, "running", 0.25, {"losses": "packed"}, 100),
            Update(1, "running", 0.125, {"note": "x" * LONGEST}, 100),
            Update(4, "running", 0.5, {}, 100),
        ])  # fmt: skip
        study.update([
            Update(0, "complete", 0.75, {"images": 500}, 200),
            Update(1, "pruned", 0.5, {"images": 100}),
            Update(2, "failed", None, {"failure": "no"}),
            Update(5, "complete", 0.7, {"images": 500}),
        ])  # fmt: skip


def foreign(url: str) -> None:
    """A study of another program, of two objectives, with all that Optuna can store."""
    study = optuna.create_study(
        storage=url, study_name="foreign", directions=["minimize", "maximize"]
    )
    study.set_user_attr("long", "y" * LONGEST)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        trial.set_user_attr("config", {"a": trial.number})
        trial.set_user_attr("point", "kept")
        x = trial.suggest_float("x", 1e-3, 1.0, log=True)
        trial.suggest_categorical("y", [None, 1, "one", True])
        if trial.number % 2:
            trial.suggest_int("z", 0, 8, step=2)
        if trial.number == 3:
            raise ValueError
        return x, float("inf") if trial.number == 4 else 0.5

    study.optimize(objective, n_trials=6, catch=[ValueError])
    study.ask()
    study.enqueue_trial({"x": 0.5})


def as_optuna_reads(url: str, name: str) -> list[FrozenTrial]:
    storage = optuna.storages.RDBStorage(url)
    try:
        return storage.get_all_trials(storage.get_study_id_from_name(name))
    finally:
        storage.engine.dispose()


def kept(trial: FrozenTrial, unreadable: tuple[str, ...]) -> dict[str, Any]:
    """All of a trial that is shown."""
    attrs = {k: v for k, v in trial.user_attrs.items() if k not in unreadable and k != "note"}
    return {**vars(trial), "_user_attrs": attrs}


def test_our_trials_are_read_as_optuna_reads_them_without_what_is_for_programs(
    tmp_path: Path,
) -> None:
    url = url_of(tmp_path)
    fill(url)
    storage = DashboardStorage(url, no_artifacts)
    expected = [kept(each, UNREADABLE) for each in as_optuna_reads(url, "s")]
    number = storage.get_study_id_from_name("s")
    assert [vars(each) for each in storage.get_all_trials(number)] == expected
    assert expected[0]["_user_attrs"] == {"images": 500, "tokens": [7, 5]}
    assert [vars(storage.get_trial(each["_trial_id"])) for each in expected] == expected


def test_trials_of_other_programs_are_read_as_optuna_reads_them(tmp_path: Path) -> None:
    url = url_of(tmp_path)
    fill(url)
    foreign(url)
    storage = DashboardStorage(url, no_artifacts)
    expected = [vars(each) for each in as_optuna_reads(url, "foreign")]
    number = storage.get_study_id_from_name("foreign")
    assert [vars(each) for each in storage.get_all_trials(number)] == expected
    assert {each["state"] for each in expected} == {
        TrialState.COMPLETE, TrialState.FAIL, TrialState.RUNNING, TrialState.WAITING,
    }  # fmt: skip
    assert expected[0]["_user_attrs"] == {"config": {"a": 0}, "point": "kept"}


def test_what_is_new_is_read_and_what_is_finished_is_kept(tmp_path: Path) -> None:
    url = url_of(tmp_path)
    fill(url)
    storage = DashboardStorage(url, no_artifacts)
    number = storage.get_study_id_from_name("s")
    first = storage.get_all_trials(number, deepcopy=False)
    with open_study(url) as study:
        study.update([Update(3, "pruned", 0.5, {"images": 300}, 300),
                      Update(4, "running", 0.6, {"images": 200}, 200)])  # fmt: skip
        start(study, 6, images=0)
    second = storage.get_all_trials(number, deepcopy=False)
    expected = [kept(each, UNREADABLE) for each in as_optuna_reads(url, "s")]
    assert [vars(each) for each in second] == expected
    assert second[0] is first[0] and second[4] is not first[4]
    states = (TrialState.COMPLETE,)
    assert [each.number for each in storage.get_all_trials(number, states=states)] == [0, 5]


def test_studies_are_read_as_optuna_reads_them_without_what_is_long(tmp_path: Path) -> None:
    url = url_of(tmp_path)
    fill(url)
    foreign(url)
    with open_study(url) as study:
        study.set_attribute("holdout", {"correct": "z" * LONGEST})
    with optuna_study(url) as stored:
        stored._storage.set_study_system_attr(stored._study_id, "dashboard:note_ver", 1)
    storage = DashboardStorage(url, no_artifacts)
    optunas = optuna.storages.RDBStorage(url)
    for mine, theirs in zip(storage.get_all_studies(), optunas.get_all_studies(), strict=True):
        theirs.user_attrs.pop("holdout", None)
        theirs.user_attrs.pop("long", None)
        note = theirs.system_attrs.pop("dashboard:note_ver", None)
        assert mine == theirs
        assert (note is None) == (mine.study_name == "foreign")
        if note is not None:
            assert storage.get_study(mine._study_id).system_attrs["dashboard:note_ver"] == note
    optunas.engine.dispose()
    with pytest.raises(KeyError):
        storage.get_study(99)


def test_of_many_trials_those_that_came_furthest_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard_storage, "DRAWN", 60)
    monkeypatch.setattr(dashboard_storage, "LINES", 25)
    url, count = url_of(tmp_path), 100
    with open_study(url) as study:
        start(study, *range(count))
        study.update([Update(n, "running", 0.5, {"images": 8, "loss": n / count}, 8)
                      for n in range(count)])  # fmt: skip
        study.update([Update(n, "running", 0.5, {"images": 16, "loss": 0.9}, 16)
                      for n in range(count - 20, count)])  # fmt: skip
        study.update([Update(n, "pruned", 0.5, {}) for n in range(count - 1)])
        study.update([Update(count - 1, "complete", 0.5, {})])
    storage = DashboardStorage(url, no_artifacts)
    trials = storage.get_all_trials(storage.get_study_id_from_name("s"))
    stored = as_optuna_reads(url, "s")
    drawn = [trial.number for trial in trials if trial.values is not None]
    assert drawn == [*range(40), *range(count - 20, count)]
    lines = [trial.number for trial in trials if trial.intermediate_values]
    assert lines == [*range(5), *range(count - 20, count)]
    for trial, whole in zip(trials, stored, strict=True):
        assert (trial.params, trial.state, trial.user_attrs["images"]) == (
            whole.params, whole.state, whole.user_attrs["images"],
        )  # fmt: skip


def test_the_best_trial_is_the_one_that_the_search_ranks_first(tmp_path: Path) -> None:
    url = url_of(tmp_path)
    fill(url)
    storage = DashboardStorage(url, no_artifacts)
    number = storage.get_study_id_from_name("s")
    assert storage.get_best_trial(number).number == 0  # by its value
    storage.show(number, Shown("note", best=5))
    assert storage.get_best_trial(number).number == 5


def test_what_is_put_over_a_study_is_shown_and_not_stored(tmp_path: Path) -> None:
    url = url_of(tmp_path)
    fill(url)

    def artifacts(study: int, number: int) -> Mapping[str, str]:
        return {f"artifacts:{number}": "{}"}

    storage = DashboardStorage(url, artifacts)
    number = storage.get_study_id_from_name("s")
    before = copy.deepcopy(storage.get_study_system_attrs(number))
    storage.show(number, Shown("note", {0: "of 0", 1: "of 1"}, {"plot": "{}"}))
    attributes = storage.get_study_system_attrs(number)
    assert attributes["dashboard:note_str:0"] == "note"
    assert attributes["dashboard:plot_data:plot:0"] == "{}"
    assert attributes["study:metric_names"] == before["study:metric_names"]
    trials = storage.get_all_trials(number)
    assert trials[0].system_attrs == {"artifacts:0": "{}"}  # the complete one
    assert not trials[1].system_attrs and not trials[5].system_attrs
    assert storage.get_trial_system_attrs(trials[0]._trial_id) == {"artifacts:0": "{}"}
    assert DashboardStorage(url, artifacts).get_study_system_attrs(number) == before


def test_nothing_is_written_unless_that_was_asked_for(tmp_path: Path) -> None:
    url = url_of(tmp_path)
    fill(url)
    storage = DashboardStorage(url, no_artifacts)
    number = storage.get_study_id_from_name("s")
    trial = storage.get_all_trials(number)[3]._trial_id
    before = [vars(each) for each in as_optuna_reads(url, "s")]
    distribution = optuna.distributions.FloatDistribution(0, 1)
    for write in (
        lambda: storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "new"),
        lambda: storage.delete_study(number),
        lambda: storage.set_study_user_attr(number, "a", 1),
        lambda: storage.set_study_system_attr(number, "a", 1),
        lambda: storage.create_new_trial(number),
        lambda: storage.set_trial_param(trial, "x", 0.5, distribution),
        lambda: storage.set_trial_state_values(trial, TrialState.COMPLETE, [1.0]),
        lambda: storage.set_trial_intermediate_value(trial, 1, 0.5),
        lambda: storage.set_trial_user_attr(trial, "a", 1),
        lambda: storage.set_trial_system_attr(trial, "a", 1),
    ):
        with pytest.raises(StudyError, match="was opened to be read"):
            write()  # type: ignore[no-untyped-call]
    assert [vars(each) for each in as_optuna_reads(url, "s")] == before
    assert optuna.get_all_study_names(url) == ["s"]


def test_what_is_written_where_it_may_be_is_read_again(tmp_path: Path) -> None:
    url = url_of(tmp_path)
    with open_study(url) as study:
        start(study, 0, 1)
        complete(study, 0, 0.5)
    storage = DashboardStorage(url, no_artifacts, editable=True)
    number = storage.get_study_id_from_name("s")
    done, running = storage.get_all_trials(number)
    storage.set_study_system_attr(number, "a", 1)
    storage.set_trial_state_values(running._trial_id, TrialState.COMPLETE, [0.25])
    assert storage.get_study_system_attrs(number)["a"] == 1
    assert storage.get_all_trials(number)[1].values == [0.25]
    storage.delete_study(number)
    assert optuna.get_all_study_names(url) == []
    assert storage.reader(number) is None and not storage.ours(number)
