"""The driver of a study: there is one, and what it has committed outlives it."""

import multiprocessing.connection
import os
import signal
import time
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from helpers.studies import PROCESSES, config_of, open_study, optuna_study, start, url_of

from ztp_search.errors import StudyError
from ztp_search.study import StoredTrial, Study, Update

TRIALS, RUNGS = 12, (100, 200, 300)


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


def value_of(number: int, images: int) -> float:
    return (number * images // 100 % 10) / 10


def drive(url: str, pipe: multiprocessing.connection.Connection, name: str = "s") -> None:
    """Take the study up and bring it to its end; tell what is stored, batch by batch.

    Batches grow, so that all sizes are interrupted.
    """
    with open_study(url, name) as study:
        for first in range(len(study.trials()), TRIALS, 4):
            start(study, *range(first, min(first + 4, TRIALS)), images=0)
        size = 1
        for images in RUNGS:
            state = "complete" if images == RUNGS[-1] else "running"
            left = [t.number for t in study.trials() if max(t.rungs, default=0) < images]
            while left:
                batch, left = left[:size], left[size:]
                study.update([
                    Update(n, state, value_of(n, images), {"images": images}, images)
                    for n in batch
                ])  # fmt: skip
                pipe.send([(number, images) for number in batch])
                size = size % 4 + 1


def told_until_killed(url: str, messages: int, name: str = "s") -> set[tuple[int, int]]:
    """What a driver said it had stored before it was killed, after so many messages or later."""
    here, there = PROCESSES.Pipe()
    driver = PROCESSES.Process(target=drive, args=(url, there, name))
    driver.start()
    there.close()
    told: set[tuple[int, int]] = set()
    try:
        for _ in range(messages):
            told |= set(here.recv())
        driver.kill()
        driver.join()
        while here.poll():  # sent before it died
            told |= set(here.recv())
    except EOFError:  # it got to its end
        driver.join()
    return told


def test_kill_9_at_any_moment_loses_no_committed_update(tmp_path: Path) -> None:
    told: set[tuple[int, int]] = set()
    for messages in (1, 2, 3, 4, 5, 99):
        told |= told_until_killed(url_of(tmp_path), messages)
        with open_study(url_of(tmp_path)) as study:
            trials = study.trials()
        assert [trial.number for trial in trials] == list(range(len(trials)))
        stored = {(trial.number, images) for trial in trials for images in trial.rungs}
        assert told <= stored and len(stored - told) <= 4
        told = stored  # a batch may be stored that it died before telling
        for trial in trials:
            seen = max(trial.rungs, default=0)
            done = seen == RUNGS[-1]
            assert trial == StoredTrial(
                trial.number, "complete" if done else "running",
                value_of(trial.number, seen) if done else None, config_of(trial.number),
                {"images": seen},
                {images: value_of(trial.number, images) for images in RUNGS if images <= seen},
            )  # fmt: skip
    assert told == {(number, images) for number in range(TRIALS) for images in RUNGS}


def die_at_commit(url: str, last_words: str) -> None:
    with open_study(url) as study:
        start(study, 0, 1, images=0)
        study.update([Update(1, "running", 0.25, {"images": 100}, 100)])
        sa.event.listen(study._optuna.engine, "commit", lambda _: os.kill(os.getpid(), 9))
        if last_words == "start":
            start(study, 2, 3, images=0)
        study.update([
            Update(0, "pruned", 0.5, {"images": 100}, 100),
            Update(1, "complete", 0.5, {"images": 200}, 200),
        ])  # fmt: skip


@pytest.mark.parametrize("last_words", ["start", "update"])
def test_a_transaction_that_was_not_committed_leaves_no_trace(
    tmp_path: Path, last_words: str
) -> None:
    driver = PROCESSES.Process(target=die_at_commit, args=(url_of(tmp_path), last_words))
    driver.start()
    driver.join()
    assert driver.exitcode == -signal.SIGKILL
    with open_study(url_of(tmp_path)) as study:
        assert study.trials() == [
            StoredTrial(0, "running", None, config_of(0), {"images": 0}, {}),
            StoredTrial(1, "running", None, config_of(1), {"images": 100}, {100: 0.25}),
        ]
        start(study, 2, 3)


@pytest.mark.server
@pytest.mark.parametrize("variable", ["ZTP_TEST_POSTGRES", "ZTP_TEST_MARIADB"])
def test_a_database_server_keeps_the_same_study(variable: str) -> None:
    url = os.environ.get(variable)
    if not url:
        pytest.skip(f"{variable} names no database")
    name = f"test-{os.getpid()}-{time.time_ns()}"
    try:
        with open_study(url, name) as study:
            start(study, 0, 1, 2, images=0)
            study.update([
                Update(1, "running", 0.25, {"images": 100}, 100),
                Update(2, "running", 0.125, {"images": 100}, 100),
            ])  # fmt: skip
            study.update([
                Update(0, "complete", 0.1, {"images": 500}),
                Update(1, "pruned", 0.5, {"images": 200}, 200),
                Update(2, "running", 0.25, {"images": 200}, 200),
            ])  # fmt: skip
            with pytest.raises(StudyError, match=f"process {os.getpid()} on "):
                open_study(url, name)
            open_study(url, f"{name}-other").close()
            password = sa.make_url(url).password
            stored = [study.storage, study.contract, study.attributes(), study.trials()]
            assert not password or password not in repr(stored)
        with open_study(url, name) as study:
            start(study, 2, 3, images=0)
            study.update([
                Update(2, "complete", 0.3, {"images": 500}, 500),
                Update(3, "failed", None, {"failure": "no"}),
            ])  # fmt: skip
            assert [(t.state, t.value, t.attrs["images"], t.rungs) for t in study.trials()] == [
                ("complete", 0.1, 500, {}), ("pruned", 0.5, 200, {100: 0.25, 200: 0.5}),
                ("complete", 0.3, 500, {100: 0.125, 200: 0.25, 500: 0.3}), ("failed", None, 0, {}),
            ]  # fmt: skip
            assert [trial.number for trial in study.best(1)] == [2]
            start(study, 4, 5)
            with optuna_study(url, name) as optunas:
                assert [t.value for t in optunas.trials] == [0.1, 0.5, 0.3, None, None, None]
                optunas.tell(5, 0.75)
            with pytest.raises(StudyError, match="another program has finished trial 5"):
                study.update([Update(4, "complete", 0.5, {}), Update(5, "complete", 0.5, {})])
            assert [trial.state for trial in study.trials()[4:]] == ["running", "complete"]
        told = told_until_killed(url, 3, f"{name}-other")
        for _ in range(100):  # until the server has seen the connection go
            try:
                study = open_study(url, f"{name}-other")
                break
            except StudyError:
                time.sleep(0.1)
        with study:
            stored_rungs = {(t.number, images) for t in study.trials() for images in t.rungs}
            assert told <= stored_rungs
    finally:
        for each in (name, f"{name}-other"):
            with optuna_study(url, each) as optunas:
                optuna.delete_study(study_name=each, storage=optunas._storage)
