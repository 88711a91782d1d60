"""Driving a study: what is stored, what is refused, and what a resume finds."""

import sqlite3
from pathlib import Path

import optuna
import pytest
from helpers.studies import (
    BLOCKS,
    CONTRACT,
    RANGES,
    complete,
    config_of,
    open_study,
    optuna_study,
    start,
    url_of,
)

from ztp_search.errors import StudyError
from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.study import NewTrial, StoredTrial, StudyDriver, StudyReader, Update


def test_every_sqlite_connection_has_the_settings(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        engine = study._database.engine
        with engine.connect() as one, engine.connect() as two, engine.connect() as three:
            for connection in (one, two, three):
                pragmas = [
                    connection.exec_driver_sql(f"PRAGMA {pragma}").scalar()
                    for pragma in ("journal_mode", "synchronous", "busy_timeout")
                ]
                assert pragmas == ["wal", 1, 60000]  # 1 is NORMAL


def test_opening_prints_and_logs_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    open_study(url_of(tmp_path)).close()
    open_study(url_of(tmp_path)).close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["a b.db", "{b}.db", "50%.db", "a@b:c.db"])
def test_any_file_name_will_do_and_folders_are_made(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / "folder" / name
    open_study(f"sqlite:///{path}").close()
    assert path.is_file()
    with StudyReader.open(f"sqlite:///{path}", "s") as study:
        assert study.contract == {**CONTRACT, "parameters": study.contract["parameters"]}


def test_a_running_trial_starts_again_under_its_number(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        start(study, 0, 1)
        complete(study, 0, 0.5)
        study.update([Update(1, "running", 0.25, {"images": 100}, 100)])
    with open_study(url_of(tmp_path)) as study:
        start(study, 1, 2, 3, images=0)
        for number in (1, 2):
            complete(study, number, 0.5 + number / 10)
        assert [(t.number, t.value, t.attrs, t.rungs) for t in study.trials()] == [
            (0, 0.5, {}, {}), (1, 0.6, {"images": 100}, {100: 0.25}),
            (2, 0.7, {"images": 0}, {}), (3, None, {"images": 0}, {}),
        ]  # fmt: skip


def test_start_refuses_what_would_not_be_the_samplers_trial(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        start(study, 0, 1)
        complete(study, 0, 0.5)
        with pytest.raises(StudyError, match="trial 1 of study 's' .* another configuration"):
            study.start([NewTrial(1, config_of(5), {}), NewTrial(2, config_of(2), {})])
        with pytest.raises(StudyError, match="trial 0 of study 's' is finished"):
            start(study, 0, 2)
        for numbers in ((3,), (3, 4), (2, 4), (3, 2), (2, 2), (1, 3)):
            with pytest.raises(StudyError, match="without gaps, but got .* 's' has 2 trials"):
                start(study, *numbers)
        assert len(study.trials()) == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 79.5])
def test_only_fractions_of_one_are_stored(tmp_path: Path, value: float) -> None:
    with open_study(url_of(tmp_path)) as study:
        start(study, 0)
        for state in ("running", "pruned", "complete"):
            with pytest.raises(ValueError, match="trial 0: accuracy is a fraction of one"):
                study.update([Update(0, state, value, {}, 100)])
        with pytest.raises(ValueError, match="JSON"):
            complete(study, 0, 0.5, stderr=float("nan"))
        with pytest.raises(ValueError, match="JSON"):
            start(study, 1, stderr=float("nan"))
        with pytest.raises(ValueError, match="JSON"):
            study.set_attribute("stderr", float("nan"))
        assert study.trials() == [StoredTrial(0, "running", None, config_of(0), {}, {})]
        assert study.attributes() == {}


def test_parameters_outside_the_space_are_refused(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        with pytest.raises(ValueError, match="block03.retention = 0.2 is outside .* 0.3 to 1.0"):
            study.start([NewTrial(0, PruningConfig((PruningLayer(3, 0.2),)), {})])
        with pytest.raises(ValueError, match="block05.retention"):
            study.start([NewTrial(0, PruningConfig((PruningLayer(5, 0.5),)), {})])


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path), weights=None) as study:
        start(study, 0)
    with pytest.raises(StudyError) as refused:
        open_study(
            url_of(tmp_path), seed=1, geometry={"depth": 24, "heads": 6},
            space_sha256="cd" * 32, precision="fp16",
        )  # fmt: skip
    assert str(refused.value) == (
        "study 's' was made with other settings: geometry.depth 12 (now 24), "
        "precision not set (now fp16), seed 0 (now 1), "
        "space_sha256 abababababab… (now cdcdcdcdcdcd…); "
        "use another `study` name, or the old settings"
    )
    wide = {**RANGES, "v_max": (1.0, 30.0)}
    with pytest.raises(StudyError, match=r"parameters.v_max \[1.0, 20.0\] \(now \[1.0, 30.0\]\)"):
        StudyDriver.open(url_of(tmp_path), "s", CONTRACT, blocks=BLOCKS, ranges=wide)
    open_study(url_of(tmp_path)).close()


def test_a_first_driver_that_died_while_storing_settings_is_made_up_for(tmp_path: Path) -> None:
    open_study(url_of(tmp_path)).close()
    with sqlite3.connect(tmp_path / "study.db") as connection:
        connection.execute("delete from study_user_attributes where key = 'contract.geometry'")
    connection.close()
    with pytest.raises(StudyError, match=r"settings: seed 0 \(now 1\);"):
        open_study(url_of(tmp_path), seed=1)
    with open_study(url_of(tmp_path)) as study:
        assert study.contract["geometry"] == CONTRACT["geometry"]


def test_a_foreign_trial_is_refused_by_search_and_left_out_by_readers(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_study(url_of(tmp_path)) as study:
        start(study, 0)
        with optuna_study(url_of(tmp_path)) as stored:
            stored.enqueue_trial({"v_min": 0.1})
        with pytest.raises(StudyError, match="another program has added 1 trials to 's'; use"):
            start(study, 1, 2)
        complete(study, 0, 0.5)
    with pytest.raises(StudyError, match="but its trial 1 is another program's in 's'"):
        open_study(url_of(tmp_path))
    with StudyReader.open(url_of(tmp_path), None) as study:
        assert [trial.number for trial in study.trials()] == [0]
    assert [record.getMessage() for record in caplog.records] == [
        "study 's': 1 trials that another program added are left out, first trial 1"
    ]


def test_a_study_of_another_program_is_not_driven(tmp_path: Path) -> None:
    optuna.create_study(storage=url_of(tmp_path), study_name="s", direction="minimize")
    with pytest.raises(StudyError, match="but its direction is another program's in 's'"):
        open_study(url_of(tmp_path))
    with pytest.raises(StudyError, match="holds no study yet"):
        StudyReader.open(url_of(tmp_path), None)


def test_updates_are_of_running_trials_once_each(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        start(study, 0, 1)
        complete(study, 0, 0.5)
        for number in (0, 2):
            with pytest.raises(ValueError, match=f"trial {number} of study 's' is not running"):
                complete(study, number, 0.75)
        with pytest.raises(ValueError, match="trial 1 of study 's' is updated twice"):
            study.update([Update(1, "running", 0.5, {}, 100), Update(1, "complete", 0.5, {})])
        assert [trial.state for trial in study.trials()] == ["complete", "running"]


@pytest.mark.parametrize("key", ["driver", "contract.seed"])
def test_what_is_no_result_is_not_stored_as_one(tmp_path: Path, key: str) -> None:
    with open_study(url_of(tmp_path)) as study, pytest.raises(ValueError, match="is no result"):
        study.set_attribute(key, 1)


def test_an_update_is_consistent() -> None:
    for state, value in (("failed", 0.5), ("complete", None)):
        with pytest.raises(ValueError, match="trial 3: a value comes with every state but failed"):
            Update(3, state, value, {})
    with pytest.raises(ValueError, match="trial 3: a failed trial has finished no rung"):
        Update(3, "failed", None, {}, 100)
    with pytest.raises(ValueError, match="trial 3: `config` is stored when it starts"):
        Update(3, "running", 0.5, {"config": {}})
    with pytest.raises(ValueError, match="trial 3: .* but got 'done'"):
        Update(3, "done", 0.5, {})
