"""The study in the database: what is stored, what survives a kill, what is refused."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sqlite3
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState

from ztp_search.config import PruningConfig, PruningLayer
from ztp_search.errors import StudyError
from ztp_search.study import StoredTrial, Study, list_studies, redact

CONTRACT = {"seed": 0, "geometry": {"depth": 12, "heads": 6}, "space_sha256": "ab" * 32}
BLOCKS = (3, 7)
RANGES = {
    "block03.retention": (0.3, 0.9),
    "block03.s_tokens": (2, 50),
    "block03.wpr_iterations": (30, 50),
    "block07.retention": (0.3, 0.9),
    "block07.s_tokens": (0, 20),
    "block07.wpr_iterations": (5, 10),
    "v_min": (0.0, 0.5),
    "v_max": (1.0, 20.0),
}
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["ztp_search.study"])  # imported once, not by every process


def url_of(folder: Path) -> str:
    return f"sqlite:///{folder}/study.db"


def open_study(url: str, name: str = "s", **changes: object) -> Study:
    return Study.open(url, name, {**CONTRACT, **changes}, blocks=BLOCKS, ranges=RANGES)


def config_of(number: int) -> PruningConfig:
    layer = PruningLayer(3, retention=0.3 + number / 1000, s_tokens=10, wpr_iterations=30)
    return PruningConfig((layer,), v_min=0.25, v_max=2.5)


def value_of(number: int) -> float:
    return number % 10 / 10


@contextmanager
def optuna_study(url: str, name: str = "s") -> Iterator[optuna.Study]:
    """The study as Optuna and its tools see it."""
    storage = optuna.storages.RDBStorage(url)
    yield optuna.load_study(study_name=name, storage=storage)
    storage.remove_session()
    storage.engine.dispose()


def test_trials_come_back_as_they_were_stored(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        for number in range(4):
            study.start(number, config_of(number), {"tokens": [197, 99], "images": 0})
        study.complete(2, 0.75, {"images": 500, "correct": "f0"})
        study.prune(1, 0.5, {"images": 200}, {100: 0.25, 200: 0.5})
        study.fail(3, "out of memory at batch size 1")
        study.set_attribute("holdout", {"images": 100})
        study.set_attribute("holdout", {"images": 200})
    start = {"tokens": [197, 99], "images": 0}
    with Study.load(url_of(tmp_path), "s") as study:
        assert study.trials() == [
            StoredTrial(0, "running", None, config_of(0), start, {}),
            StoredTrial(1, "pruned", 0.5, config_of(1), {**start, "images": 200},
                        {100: 0.25, 200: 0.5}),
            StoredTrial(2, "complete", 0.75, config_of(2),
                        {**start, "images": 500, "correct": "f0"}, {}),
            StoredTrial(3, "failed", None, config_of(3),
                        {**start, "failure": "out of memory at batch size 1"}, {}),
        ]  # fmt: skip
        assert study.attributes() == {"holdout": {"images": 200}}
        assert study.contract["geometry"] == {"depth": 12, "heads": 6}


def test_optuna_reads_the_study_as_its_own(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        for number in range(4):
            study.start(number, config_of(number), {"images": 0})
        study.complete(0, 0.75, {"images": 500, "stderr": 0.01})
        study.prune(1, 0.5, {}, {100: 0.25, 200: 0.5})
        study.fail(2, "no")
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
    assert trials[1].intermediate_values == {100: 0.25, 200: 0.5}
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
        if trial.datetime_start and trial.datetime_complete:  # both in the same time zone
            assert 0 <= (trial.datetime_complete - trial.datetime_start).total_seconds() < 1800


def test_importances_name_the_parameter_that_decides(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        for number in range(30):
            layer = PruningLayer(3, retention=0.3 + number / 50)
            v_max = 1.0 + number * 7 % 30 / 2
            study.start(number, PruningConfig((layer,), v_max=v_max), {})
            study.complete(number, number / 30, {})
    with optuna_study(url_of(tmp_path)) as stored:
        importances = optuna.importance.get_param_importances(stored)
    assert importances.keys() <= RANGES.keys()
    assert max(importances, key=lambda name: importances[name]) == "block03.retention"


def test_best_is_by_value_then_gflops_then_number(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        stored = [(0.5, 3.0), (0.7, 3.0), (0.7, 2.0), (0.7, 2.0), (0.6, 1.0), (0.9, 1.0)]
        for number, (value, gflops) in enumerate(stored):
            study.start(number, config_of(number), {"gflops": {"total": gflops}})
            if number < 5:
                study.complete(number, value, {})
        study.prune(5, 0.9, {}, {})
        assert [trial.number for trial in study.best(4)] == [2, 3, 1, 4]
        assert [trial.number for trial in study.best(99)] == [2, 3, 1, 4, 0]


def test_a_trial_is_two_transactions(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        commits: list[object] = []
        sa.event.listen(study._optuna.engine, "commit", commits.append)
        study.start(0, config_of(0), {"a": 1, "b": 2, "c": 3})
        assert len(commits) == 1
        study.prune(0, 0.5, {"a": 4, "d": 5, "e": 6}, {1: 0.1, 2: 0.2, 3: 0.3})
        assert len(commits) == 2


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
    assert list_studies(f"sqlite:///{path}") == ["s"]


def test_a_running_trial_starts_again_under_its_number(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        study.start(0, config_of(0), {})
        study.start(1, config_of(1), {})
        study.complete(0, 0.5, {})
    with open_study(url_of(tmp_path)) as study:
        study.start(1, config_of(1), {})
        study.start(2, config_of(2), {})
        study.complete(1, 0.6, {})
        study.complete(2, 0.7, {})
        assert [(trial.number, trial.value) for trial in study.trials()] == [
            (0, 0.5), (1, 0.6), (2, 0.7),
        ]  # fmt: skip


def test_start_refuses_what_would_not_be_the_samplers_trial(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        study.start(0, config_of(0), {})
        study.start(1, config_of(1), {})
        study.complete(0, 0.5, {})
        with pytest.raises(StudyError, match="trial 1 of study 's' .* another configuration"):
            study.start(1, config_of(5), {})
        with pytest.raises(StudyError, match="trial 0 of study 's' is finished"):
            study.start(0, config_of(0), {})
        with pytest.raises(StudyError, match="got 3 where study 's' has 2 trials"):
            study.start(3, config_of(3), {})
        assert len(study.trials()) == 2  # the refused transaction is undone


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 79.5])
def test_only_fractions_of_one_are_stored(tmp_path: Path, value: float) -> None:
    with open_study(url_of(tmp_path)) as study:
        study.start(0, config_of(0), {})
        with pytest.raises(ValueError, match="fraction of one"):
            study.complete(0, value, {})
        with pytest.raises(ValueError, match="fraction of one"):
            study.prune(0, 0.5, {}, {100: value})
        with pytest.raises(ValueError, match="JSON"):
            study.complete(0, 0.5, {"stderr": float("nan")})
        with pytest.raises(ValueError, match="JSON"):
            study.set_attribute("stderr", float("nan"))
        assert study.trials() == [StoredTrial(0, "running", None, config_of(0), {}, {})]
        assert study.attributes() == {}


def test_parameters_outside_the_space_are_refused(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        with pytest.raises(ValueError, match="block03.retention = 0.2 is outside"):
            study.start(0, PruningConfig((PruningLayer(3, 0.2),)), {})
        with pytest.raises(ValueError, match="block05.retention"):
            study.start(0, PruningConfig((PruningLayer(5, 0.5),)), {})


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path), weights=None) as study:
        study.start(0, config_of(0), {})
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
        study.start(0, config_of(0), {})
        with optuna_study(url_of(tmp_path)) as stored:
            stored.enqueue_trial({"v_min": 0.1})
        with pytest.raises(StudyError, match="got 1 where study 's' has 2 trials; if another"):
            study.start(1, config_of(1), {})
        study.complete(0, 0.5, {})
    with pytest.raises(StudyError, match="but its trial 1 is another program's in 's'"):
        open_study(url_of(tmp_path))
    with Study.load(url_of(tmp_path), None) as study:
        assert [trial.number for trial in study.trials()] == [0]
    assert [record.getMessage() for record in caplog.records] == [
        "study 's': 1 trials that another program added are left out, first trial 1"
    ]


def test_a_trial_that_another_program_finished_stays_as_it_is(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        study.start(0, config_of(0), {})
        with optuna_study(url_of(tmp_path)) as stored:
            stored.tell(0, 0.1)
        with pytest.raises(StudyError, match="another program has finished trial 0"):
            study.complete(0, 0.9, {"images": 500})
        assert study.trials() == [StoredTrial(0, "complete", 0.1, config_of(0), {}, {})]


def test_a_study_of_another_program_is_not_driven(tmp_path: Path) -> None:
    optuna.create_study(storage=url_of(tmp_path), study_name="s", direction="minimize")
    with pytest.raises(StudyError, match="but its direction is another program's in 's'"):
        open_study(url_of(tmp_path))
    assert list_studies(url_of(tmp_path)) == []


def test_load_without_a_name_takes_the_study_driven_last(tmp_path: Path) -> None:
    for name in ("one", "two", "one"):
        open_study(url_of(tmp_path), name).close()
    assert list_studies(url_of(tmp_path)) == ["one", "two"]
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


def test_a_study_has_one_driver(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)):
        with pytest.raises(StudyError) as refused:
            open_study(url_of(tmp_path))
        assert f"process {os.getpid()} on " in str(refused.value)
        assert "\n" not in str(refused.value)
        open_study(url_of(tmp_path), "another").close()
        Study.load(url_of(tmp_path), "s").close()
    open_study(url_of(tmp_path)).close()


def hold(url: str, pipe: multiprocessing.connection.Connection) -> None:
    """A driver with a forked child, until killed."""
    with open_study(url):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        pipe.send(child)
        time.sleep(60)


def test_the_lock_dies_with_the_driver_though_its_children_live(tmp_path: Path) -> None:
    here, there = PROCESSES.Pipe()
    driver = PROCESSES.Process(target=hold, args=(url_of(tmp_path), there))
    driver.start()
    child = here.recv()
    with pytest.raises(StudyError, match=f"process {driver.pid} on "):
        open_study(url_of(tmp_path))
    driver.kill()
    driver.join()
    try:
        open_study(url_of(tmp_path)).close()
        os.kill(child, 0)  # it is alive
    finally:
        os.kill(child, signal.SIGKILL)


def drive(
    url: str, trials: int, pipe: multiprocessing.connection.Connection, name: str = "s"
) -> None:
    """Take the study up and bring it to so many trials, three at a time; tell what is stored."""
    with open_study(url, name) as study:
        stored = study.trials()
        todo = [trial.number for trial in stored if trial.state == "running"]
        todo += range(len(stored), trials)
        for i, number in enumerate(todo):
            for ahead in todo[i : i + 3]:
                if ahead == number or study.trials()[-1].number < ahead:
                    study.start(ahead, config_of(ahead), {"images": 0})
            study.complete(number, value_of(number), {"images": 500})
            pipe.send(number)


def test_kill_9_at_any_moment_loses_no_completed_trial(tmp_path: Path) -> None:
    told: list[int] = []
    for until in (1, 7, 12, 20, 40):
        here, there = PROCESSES.Pipe()
        driver = PROCESSES.Process(target=drive, args=(url_of(tmp_path), 40, there))
        driver.start()
        there.close()
        while len(told) < until:
            told.append(here.recv())
        driver.kill()
        driver.join()
        while here.poll():  # sent before it died
            try:
                told.append(here.recv())
            except EOFError:
                break
        with open_study(url_of(tmp_path)) as study:
            trials = study.trials()
        assert [trial.number for trial in trials] == list(range(len(trials)))
        complete = [trial.number for trial in trials if trial.state == "complete"]
        assert set(told) <= set(complete) and len(complete) <= len(told) + 1
        told = complete  # one may be stored that it died before telling
        for trial in trials:
            assert trial.config == config_of(trial.number)
            if trial.state == "complete":
                assert (trial.value, trial.attrs) == (value_of(trial.number), {"images": 500})
            else:
                assert (trial.state, trial.value, trial.attrs) == ("running", None, {"images": 0})
        assert len(trials) - len(complete) <= 3
    assert told == list(range(40))


def die_at_commit(url: str, last_words: str) -> None:
    with open_study(url) as study:
        study.start(0, config_of(0), {"images": 0})
        if last_words == "start":
            sa.event.listen(study._optuna.engine, "commit", lambda _: os.kill(os.getpid(), 9))
            study.start(1, config_of(1), {"images": 0})
        sa.event.listen(study._optuna.engine, "commit", lambda _: os.kill(os.getpid(), 9))
        study.prune(0, 0.5, {"images": 500}, {100: 0.5})


@pytest.mark.parametrize("last_words", ["start", "prune"])
def test_a_transaction_that_was_not_committed_leaves_no_trace(
    tmp_path: Path, last_words: str
) -> None:
    driver = PROCESSES.Process(target=die_at_commit, args=(url_of(tmp_path), last_words))
    driver.start()
    driver.join()
    assert driver.exitcode == -signal.SIGKILL
    with open_study(url_of(tmp_path)) as study:
        assert study.trials() == [
            StoredTrial(0, "running", None, config_of(0), {"images": 0}, {})
        ]
        study.start(1, config_of(1), {})


SECRET = "s3cret"
BAD_URLS = {
    "runs/study.db": "must be a database URL",
    "sqlite://study.db": "must name a file that stays",
    "sqlite://": "must name a file that stays",
    "sqlite:///:memory:": "must name a file that stays",
    f"postgres://u:{SECRET}@h/d": "must be sqlite, postgresql or mysql, but got 'postgres'",
    f"postgresql://u:{SECRET}@h:port/d": "must be a database URL",
    f"postgresql://u:{SECRET}": "must be a database URL",
    f"u:{SECRET}@h/d": "must be a database URL",
    f"postgresql+absent://u:{SECRET}@h/d": "sqlalchemy.dialects:postgresql.absent",
    f"mysql+absent://h/d?user=u&password={SECRET}": "sqlalchemy.dialects:mysql.absent",
}


@pytest.mark.parametrize("url", BAD_URLS)
def test_a_bad_url_is_one_line_without_its_password(url: str) -> None:
    with pytest.raises(StudyError, match=BAD_URLS[url]) as refused:
        open_study(url)
    assert "\n" not in str(refused.value)
    assert SECRET not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("scheme", "module"),
    [("postgresql+pg8000", "pg8000"), ("postgresql+psycopg2", "psycopg2"),
     ("mysql", "MySQLdb")],
)  # fmt: skip
def test_a_missing_driver_is_named(scheme: str, module: str) -> None:
    try:
        __import__(module)
    except ImportError:
        with pytest.raises(StudyError, match=f"needs the Python module {module}") as refused:
            open_study(f"{scheme}://u:{SECRET}@127.0.0.1:1/d")
        assert SECRET not in str(refused.value)
    else:
        pytest.skip(f"{module} is installed")


def test_a_path_that_cannot_be_a_database_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("this is not a database " * 100)
    for path in ("text", "text/study.db", "."):
        with pytest.raises(StudyError, match="the study database sqlite:.* cannot be used: ") as no:
            open_study(f"sqlite:///{tmp_path}/{path}")
        assert "\n" not in str(no.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:s3cret@h:5432/d", "postgresql://u:***@h:5432/d"),
        ("postgresql://u:s3:cr/e?t@x@h/d", "postgresql://u:***@h/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("postgresql://h/d?user=u&password=s3cret", "postgresql://h/d?user=***&password=***"),
        ("postgresql://h/d?password=s3@cret", "postgresql://h:***@cret"),
        ("mysql+pymysql://:s3cret@[::1]:3306/d", "mysql+pymysql://:***@[::1]:3306/d"),
        ("postgresql://u:s3cret", "postgresql://u:***"),
        ("u:s3cret@h/d", "u:***@h/d"),
        ("sqlite:////data/a@b:c?d.db", "sqlite:////data/a@b:c?d.db"),
        ("runs/study.db", "runs/study.db"),
    ],
)
def test_redact_shows_no_password(url: str, shown: str) -> None:
    assert redact(url) == shown


@pytest.mark.postgres
def test_postgres_keeps_the_same_study() -> None:
    url = os.environ.get("ZTP_TEST_POSTGRES")
    if not url:
        pytest.skip("ZTP_TEST_POSTGRES names no database")
    name = f"test-{os.getpid()}-{time.time_ns()}"
    try:
        with open_study(url, name) as study:
            for number in range(3):
                study.start(number, config_of(number), {"images": 0})
            study.complete(0, 0.1, {"images": 500})
            study.prune(1, 0.5, {}, {100: 0.25, 200: 0.5})
            with pytest.raises(StudyError, match=f"process {os.getpid()} on "):
                open_study(url, name)
            open_study(url, f"{name}-other").close()
            password = sa.make_url(url).password
            stored = [study.storage, study.contract, study.attributes(), study.trials()]
            assert not password or password not in repr(stored)
        with open_study(url, name) as study:
            study.start(2, config_of(2), {"images": 0})
            study.complete(2, 0.3, {"images": 500})
            assert [(t.state, t.value, t.rungs) for t in study.trials()] == [
                ("complete", 0.1, {}), ("pruned", 0.5, {100: 0.25, 200: 0.5}),
                ("complete", 0.3, {}),
            ]  # fmt: skip
        with optuna_study(url, name) as optunas:
            assert [trial.value for trial in optunas.trials] == [0.1, 0.5, 0.3]
        here, there = PROCESSES.Pipe()
        driver = PROCESSES.Process(target=drive, args=(url, 40, there, name))
        driver.start()
        told = here.recv()
        driver.kill()
        driver.join()
        for _ in range(100):  # until the server has seen the connection go
            try:
                study = open_study(url, name)
                break
            except StudyError:
                time.sleep(0.1)
        with study:
            assert study.trials()[told].value == value_of(told)
    finally:
        for each in (name, f"{name}-other"):
            with optuna_study(url, each) as optunas:
                optuna.delete_study(study_name=each, storage=optunas._storage)
