"""A study on a database server: as on SQLite, with a lock across hosts."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
import sqlalchemy as sa
from helpers.driving import reported_until_killed
from helpers.studies import open_study, optuna_study, start

from ztp_search.errors import StudyError
from ztp_search.study import Update
from ztp_search.study.dashboard_storage import DashboardStorage
from ztp_search.study.frozen import UNREADABLE
from ztp_search.study.showing import PIECE, Shown, note_of, plots_of, save


def url_of_server(variable: str) -> str:
    """The test is skipped where there is none."""
    url = os.environ.get(variable)
    if not url:
        pytest.skip(f"{variable} names no database")
    return url


@pytest.mark.server
@pytest.mark.parametrize("variable", ["ZTP_TEST_POSTGRES", "ZTP_TEST_MARIADB"])
def test_drivers_that_come_first_at_the_same_time_create_the_tables_once(variable: str) -> None:
    url = sa.make_url(url_of_server(variable))
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    empty = f"ztp_empty_{os.getpid()}_{time.time_ns()}"
    ready = threading.Barrier(6)

    def come_first(number: int) -> int:
        ready.wait()
        name = url.set(database=empty).render_as_string(hide_password=False)
        with open_study(name, f"study-{number}") as study:
            start(study, 0)
            return len(study.trials())

    with engine.connect() as server:
        server.execute(sa.text(f"CREATE DATABASE {empty}"))
        try:
            with ThreadPoolExecutor(6) as drivers:
                assert list(drivers.map(come_first, range(6))) == [1] * 6
        finally:
            server.execute(sa.text(f"DROP DATABASE {empty}"))
    engine.dispose()


@pytest.mark.server
@pytest.mark.parametrize("variable", ["ZTP_TEST_POSTGRES", "ZTP_TEST_MARIADB"])
def test_a_database_server_keeps_the_same_study(variable: str) -> None:
    url = url_of_server(variable)
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
            shown = Shown("Schön | " * PIECE, {2: "of 2"}, {"plot": "[0]" * PIECE}, best=2)
            for _ in range(2):
                save(study, shown)
            check_what_the_dashboard_reads(url, name, shown)
        reported = reported_until_killed(url, 3, f"{name}-other")
        for _ in range(100):  # until the server has seen the connection go
            try:
                study = open_study(url, f"{name}-other")
                break
            except StudyError:
                time.sleep(0.1)
        with study:
            stored_rungs = {(t.number, images) for t in study.trials() for images in t.rungs}
            assert reported <= stored_rungs
    finally:
        for each in (name, f"{name}-other"):
            with optuna_study(url, each) as optunas:
                optuna.delete_study(study_name=each, storage=optunas._storage)


def check_what_the_dashboard_reads(url: str, name: str, shown: Shown) -> None:
    """The same as Optuna, and what was saved."""
    storage = DashboardStorage(url, lambda study, number: {})
    with optuna_study(url, name) as optunas:
        number, theirs = optunas._study_id, optunas.get_trials()
    for mine, other in zip(storage.get_all_trials(number), theirs, strict=True):
        for key in UNREADABLE:
            other.user_attrs.pop(key, None)
        assert mine == other
    assert storage.get_best_trial(number).number == 2
    attributes = storage.get_study(number).system_attrs
    assert note_of(attributes, None) == shown.note
    assert note_of(attributes, theirs[2]._trial_id) == "of 2"
    assert plots_of(attributes) == shown.plots
    assert name in [each.study_name for each in storage.get_all_studies()]
    storage.close()


@pytest.mark.server
@pytest.mark.parametrize("variable", ["ZTP_TEST_POSTGRES", "ZTP_TEST_MARIADB"])
def test_a_dashboard_waits_for_the_first_study_of_a_server(variable: str) -> None:
    url = url_of_server(variable)
    name = f"ztp_empty_{os.getpid()}_{time.time_ns()}"
    empty = sa.make_url(url).set(database=name).render_as_string(hide_password=False)
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        try:
            looked_at = DashboardStorage(empty, lambda study, number: {})
            assert looked_at.get_all_studies() == []
            with open_study(empty, "first") as study:
                start(study, 0)
            assert [each.study_name for each in looked_at.get_all_studies()] == ["first"]
            looked_at.close()
        finally:
            connection.exec_driver_sql(f"DROP DATABASE {name}")
    engine.dispose()
