"""The study in the database: what is stored, what is read, what is refused."""

import sqlite3
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
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
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState

from ztp_search.errors import StudyError
from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.study import NewTrial, StoredTrial, Study, Update


def test_trials_come_back_as_they_were_stored(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        start(study, 0, 1, 2, 3, tokens=[197, 99], images=0)
        study.update([
            Update(2, "running", 0.7, {"images": 250, "correct": "f"}, 250),
            Update(1, "running", 0.25, {"images": 100}, 100),
        ])  # fmt: skip
        study.update([
            Update(2, "complete", 0.75, {"images": 500, "correct": "f0"}, 500),
            Update(1, "pruned", 0.5, {"images": 200}, 200),
            Update(3, "failed", None, {"failure": "out of memory at batch size 1"}),
        ])  # fmt: skip
        study.set_attribute("holdout", {"images": 100})
        study.set_attribute("holdout", {"images": 200})
    begun = {"tokens": [197, 99], "images": 0}
    with Study.load(url_of(tmp_path), "s") as study:
        assert study.trials() == [
            StoredTrial(0, "running", None, config_of(0), begun, {}),
            StoredTrial(1, "pruned", 0.5, config_of(1), {**begun, "images": 200},
                        {100: 0.25, 200: 0.5}),
            StoredTrial(2, "complete", 0.75, config_of(2),
                        {**begun, "images": 500, "correct": "f0"}, {250: 0.7, 500: 0.75}),
            StoredTrial(3, "failed", None, config_of(3),
                        {**begun, "failure": "out of memory at batch size 1"}, {}),
        ]  # fmt: skip
        assert study.attributes() == {"holdout": {"images": 200}}
        assert study.contract["geometry"] == {"depth": 12, "heads": 6}


def test_optuna_reads_the_study_as_its_own(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        start(study, 0, 1, 2, 3, images=0)
        study.update([
            Update(1, "running", 0.25, {}, 100),
            Update(2, "running", 0.125, {}, 100),
            Update(3, "running", 0.75, {"images": 100}, 100),
        ])  # fmt: skip
        study.update([
            Update(0, "complete", 0.75, {"images": 500, "stderr": 0.01}),
            Update(1, "pruned", 0.5, {}, 200),
            Update(2, "failed", None, {"failure": "no"}),
            Update(3, "running", 0.625, {"images": 200}, 200),
        ])  # fmt: skip
    with optuna_study(url_of(tmp_path)) as stored:
        check_what_optuna_reads(stored)


def check_what_optuna_reads(stored: optuna.Study) -> None:
    assert stored.direction == optuna.study.StudyDirection.MAXIMIZE
    assert stored.metric_names == ["accuracy"]
    assert stored.user_attrs["contract.seed"] == 0
    trials = stored.get_trials()
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert [trial.state for trial in trials] == [
        TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING,
    ]  # fmt: skip
    assert [trial.value for trial in trials] == [0.75, 0.5, None, None]
    assert stored.best_trial.number == 0
    assert trials[0].user_attrs == {
        "images": 500, "stderr": 0.01, "config": config_of(0).to_dict(),
    }  # fmt: skip
    assert [trial.intermediate_values for trial in trials] == [
        {}, {100: 0.25, 200: 0.5}, {100: 0.125}, {100: 0.75, 200: 0.625},
    ]  # fmt: skip
    assert trials[3].user_attrs["images"] == 200
    assert trials[3].params == {
        "block03.retention": 0.303, "block03.s_tokens": 10, "block03.wpr_iterations": 30,
        "block07.retention": 1.0, "block07.s_tokens": 0, "block07.wpr_iterations": 1,
        "v_min": 0.25, "v_max": 2.5,
    }  # fmt: skip
    for trial in trials:  # ranges stretched to what a block without a layer has
        assert trial.distributions == {
            "block03.retention": FloatDistribution(0.3, 1.0),
            "block03.s_tokens": IntDistribution(0, 50),
            "block03.wpr_iterations": IntDistribution(1, 50),
            "block07.retention": FloatDistribution(0.3, 1.0),
            "block07.s_tokens": IntDistribution(0, 20),
            "block07.wpr_iterations": IntDistribution(1, 10),
            "v_min": FloatDistribution(0.0, 0.5),
            "v_max": FloatDistribution(1.0, 20.0),
        }
        assert trial.datetime_start is not None
        assert (trial.datetime_complete is not None) == trial.state.is_finished()
        if trial.datetime_complete is not None:  # both in the same time zone
            assert 0 <= (trial.datetime_complete - trial.datetime_start).total_seconds() < 1800


def test_importances_name_the_parameter_that_decides(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        for number in range(30):
            layer = PruningLayer(3, retention=0.3 + number / 50)
            v_max = 1.0 + number * 7 % 30 / 2
            study.start([NewTrial(number, PruningConfig((layer,), v_max=v_max), {})])
            complete(study, number, number / 30)
    with optuna_study(url_of(tmp_path)) as stored:
        importances = optuna.importance.get_param_importances(stored)
    assert importances.keys() <= RANGES.keys()
    assert max(importances, key=lambda name: importances[name]) == "block03.retention"


def test_best_is_by_value_then_gflops_then_number(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        stored = [(0.5, 3.0), (0.7, 3.0), (0.7, 2.0), (0.7, 2.0), (0.6, 1.0), (0.9, 1.0), (0.9, 1)]
        for number, (value, gflops) in enumerate(stored):
            start(study, number, gflops={"total": gflops})
            if number < 5:
                complete(study, number, value)
        study.update([Update(5, "pruned", 0.9, {}), Update(6, "running", 0.9, {}, 100)])
        assert [trial.number for trial in study.best(4)] == [2, 3, 1, 4]
        assert [trial.number for trial in study.best(99)] == [2, 3, 1, 4, 0]
        assert study.best(1) == [study.trials()[2]]
        assert study.best(0) == []


def test_best_leaves_out_trials_of_another_program(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_study(url_of(tmp_path)) as study:
        start(study, 0, 1, 2)
        for number, value in enumerate((0.5, 0.6, 0.0)):
            complete(study, number, value)
        with optuna_study(url_of(tmp_path)) as stored:
            stored.add_trial(optuna.trial.create_trial(value=0.9))
        assert [trial.number for trial in study.best(1)] == [1]
        assert [trial.number for trial in study.best(9)] == [1, 0, 2]
    assert "1 trials that another program added are left out, first trial 3" in caplog.text


def test_a_reader_sees_no_update_by_half(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study, Study.load(url_of(tmp_path), "s") as reader:
        start(study, 0, images=0)
        before = study.trials()
        statements: list[str] = []

        def update_behind_the_first(_1: object, _2: object, statement: str, *_3: object) -> None:
            statements.append(statement)
            if len([each for each in statements if each.startswith("SELECT")]) == 1:
                study.update([Update(0, "complete", 0.5, {"images": 100}, 100)])

        sa.event.listen(reader._optuna.engine, "after_cursor_execute", update_behind_the_first)
        assert reader.trials() == before
        assert len(statements) > 2 and study.trials() != before


def test_every_sqlite_connection_has_the_settings(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        engine = study._optuna.engine
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
    with Study.load(f"sqlite:///{path}", "s") as study:
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
        "use another --study name, or the old settings"
    )
    wide = {**RANGES, "v_max": (1.0, 30.0)}
    with pytest.raises(StudyError, match=r"parameters.v_max \[1.0, 20.0\] \(now \[1.0, 30.0\]\)"):
        Study.open(url_of(tmp_path), "s", CONTRACT, blocks=BLOCKS, ranges=wide)
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
    with Study.load(url_of(tmp_path), None) as study:
        assert [trial.number for trial in study.trials()] == [0]
    assert [record.getMessage() for record in caplog.records] == [
        "study 's': 1 trials that another program added are left out, first trial 1"
    ]


def test_a_study_of_another_program_is_not_driven(tmp_path: Path) -> None:
    optuna.create_study(storage=url_of(tmp_path), study_name="s", direction="minimize")
    with pytest.raises(StudyError, match="but its direction is another program's in 's'"):
        open_study(url_of(tmp_path))
    with pytest.raises(StudyError, match="holds no study yet"):
        Study.load(url_of(tmp_path), None)


def test_load_without_a_name_takes_the_study_driven_last(tmp_path: Path) -> None:
    for name in ("one", "two", "one"):
        open_study(url_of(tmp_path), name).close()
    assert optuna.get_all_study_names(url_of(tmp_path)) == ["one", "two"]
    with Study.load(url_of(tmp_path), None) as study:
        assert study.name == "one"
    with pytest.raises(StudyError, match="but got 'three'; there is one, two$"):
        Study.load(url_of(tmp_path), "three")


def test_load_makes_no_database(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="study.db does not exist; run a search first"):
        Study.load(url_of(tmp_path), None)
    assert list(tmp_path.iterdir()) == []
    optuna.create_study(storage=url_of(tmp_path), study_name="not ours")
    with pytest.raises(StudyError, match="holds no study yet"):
        Study.load(url_of(tmp_path), None)
