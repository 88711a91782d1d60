"""A database that goes away is waited for; what was stored is stored once."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
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
from helpers.tcp_proxy import Proxy, behind_proxy

from ztp_search.errors import MachineError, OutageError, StudyError
from ztp_search.events import Event
from ztp_search.study import StudyDriver, Update, outage

SERVERS = ("ZTP_TEST_POSTGRES", "ZTP_TEST_MARIADB")


def saying(said: list[str]) -> Callable[[Event], None]:
    """Keeps what people read of events."""
    return lambda event: None if event.note is None else said.append(event.note)


class Server:
    """A study on a database server, behind a proxy. said: what its driver says."""

    def __init__(self, url: str, direct: str, name: str, proxy: Proxy) -> None:
        self.direct, self.name, self.proxy = direct, name, proxy
        self.said: list[str] = []
        self.study = StudyDriver.open(
            url, name, CONTRACT, blocks=BLOCKS, ranges=RANGES, tell=saying(self.said)
        )

    def go_down(self, seconds: float) -> None:
        """Now, and come back after so long."""
        self.proxy.up = False
        self.proxy.cut()
        threading.Timer(seconds, setattr, (self.proxy, "up", True)).start()

    def lose_answer(self, to: Callable[[bytes], bool]) -> list[bytes]:
        """Cut the connection behind one message of the driver's that the server still gets."""
        cut: list[bytes] = []

        def cut_after(data: bytes) -> bool:
            if not cut and to(data):
                cut.append(data)
                return True
            return False

        self.proxy.cut_after = cut_after
        return cut

    def stored(self) -> list[tuple[int, str, float | None, int]]:
        """(number, state, value, attributes) of the trials, as Optuna reads them."""
        with optuna_study(self.direct, self.name) as optunas:
            return [
                (each.number, each.state.name, each.value, len(each.user_attrs))
                for each in optunas.trials
            ]


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    direct = os.environ.get(request.param)
    if not direct:
        pytest.skip(f"{request.param} names no database")
    name = f"test-{os.getpid()}-{time.time_ns()}"
    with behind_proxy(direct) as (url, proxy):
        server = Server(url, direct, name, proxy)
        yield server
        server.study.close()
    with optuna_study(direct, name) as optunas:
        optuna.delete_study(study_name=name, storage=optunas._storage)


@pytest.mark.server
def test_a_server_that_goes_away_is_waited_for(server: Server) -> None:
    study = server.study
    start(study, 0, 1)
    server.go_down(1.5)
    complete(study, 0, 0.25, images=3)
    server.go_down(1.0)
    start(study, 2)
    server.go_down(1.0)
    study.set_attribute("scores", {"0": 0.5})
    server.go_down(1.0)
    assert study.attributes()["scores"] == {"0": 0.5}
    server.go_down(1.0)
    assert [trial.state for trial in study.trials()] == ["complete", "running", "running"]
    assert server.stored() == [
        (0, "COMPLETE", 0.25, 2), (1, "RUNNING", None, 1), (2, "RUNNING", None, 1)
    ]  # fmt: skip
    assert [("trying again for 10 minutes" in line, "is back after" in line)
            for line in server.said] == [(True, False), (False, True)] * 5  # fmt: skip


@pytest.mark.server
def test_what_was_stored_though_the_word_of_it_was_lost_is_stored_once(server: Server) -> None:
    study = server.study
    start(study, 0, 1, 2)
    for act in (
        lambda: start(study, 3, 4),
        lambda: study.update([
            Update(0, "complete", 0.5, {"images": 3}, 3), Update(1, "running", 0.25, {}, 1)
        ]),
        lambda: study.update([Update(1, "running", 0.125, {"images": 5}, 2)]),
        lambda: study.update([Update(1, "failed", None, {"failure": "no"})]),
    ):  # fmt: skip
        cut = server.lose_answer(lambda data: b"COMMIT" in data)
        act()
        assert cut and b"COMMIT" in cut[0]
    assert server.stored() == [
        (0, "COMPLETE", 0.5, 2), (1, "FAIL", None, 3), *((n, "RUNNING", None, 1) for n in (2, 3, 4))
    ]  # fmt: skip
    assert study.trials()[1].rungs == {1: 0.25, 2: 0.125}
    complete(study, 4, 0.75)
    assert [trial.number for trial in study.best(2)] == [4, 0]


@pytest.mark.server
def test_what_was_not_stored_is_stored_after_the_outage(server: Server) -> None:
    """The connection is cut before the commit: the server rolls back."""
    study = server.study
    start(study, 0)
    cut = server.lose_answer(lambda data: b"UPDATE" in data.upper() and b"trials" in data)
    study.update([Update(0, "complete", 0.5, {"images": 3}, 3)])
    assert cut
    assert server.stored() == [(0, "COMPLETE", 0.5, 2)]


@pytest.mark.server
def test_a_lock_that_was_lost_is_taken_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ztp_search.study.driver.LOCK_CHECK_SECONDS", 0.0)
    server.proxy.cut()
    start(server.study, 0)
    with pytest.raises(StudyError, match=f"process {os.getpid()} on .* drives"):
        open_study(server.direct, server.name)


@pytest.mark.server
def test_a_study_that_another_driver_has_taken_is_left_to_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(server.study, 0)
    server.proxy.cut()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("socket.gethostname", lambda: "elsewhere")
        for _ in range(100):  # until the server has seen the connection go
            try:
                other = open_study(server.direct, server.name)
                break
            except StudyError:
                time.sleep(0.1)
    monkeypatch.setattr("ztp_search.study.driver.LOCK_CHECK_SECONDS", 0.0)
    with other:
        with pytest.raises(StudyError, match="on elsewhere drives"):
            complete(server.study, 0, 0.5)
        complete(other, 0, 0.25)
    with pytest.raises(StudyError, match="on elsewhere drives"):  # though its lock is free now
        start(server.study, 1)
    assert server.stored() == [(0, "COMPLETE", 0.25, 1)]


@pytest.mark.server
def test_a_server_that_stays_away_is_the_machines_fault(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "PATIENCE", 1.0)
    start(server.study, 0)
    server.go_down(60.0)
    with pytest.raises(OutageError, match=r"the study database .* gave up after \d s") as error:
        complete(server.study, 0, 0.5)
    assert isinstance(error.value, MachineError) and "\n" not in str(error.value)
    server.proxy.up = True


def test_a_full_disk_is_waited_for(tmp_path: Path) -> None:
    """SQLite's own error, from a bound on the file's pages that is taken away later."""
    said: list[str] = []
    bound = [1]

    def prepare(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(f"PRAGMA max_page_count={bound[0]}")  # SQLite keeps to what there is

    with StudyDriver.open(
        url_of(tmp_path), "s", CONTRACT, blocks=BLOCKS, ranges=RANGES, tell=saying(said)
    ) as study:
        sa.event.listen(study._database.engine, "checkout", prepare)
        threading.Timer(1.0, bound.__setitem__, (0, 1_000_000)).start()
        start(study, *range(200), packed="x" * 5_000)
        complete(study, 7, 0.5)
        assert [trial.number for trial in study.trials()] == list(range(200))
        assert study.trials()[7].config == config_of(7)
    assert len(said) == 2 and "disk is full" in said[0] and "is back" in said[1]


def test_a_mistake_is_not_waited_for(tmp_path: Path) -> None:
    said: list[str] = []
    with StudyDriver.open(
        url_of(tmp_path), "s", CONTRACT, blocks=BLOCKS, ranges=RANGES, tell=saying(said)
    ) as study:
        start(study, 0)
        complete(study, 0, 0.5)
        with pytest.raises(ValueError, match="is not running"):
            complete(study, 0, 0.5)
    assert not said


# ---- a server that is away when it is asked for first ----------------------------------------


@pytest.mark.parametrize(
    ("driver", "says", "away"),
    [
        # as psycopg and libpq say it
        ("psycopg", 'connection to server at "::1", port 5432 failed: Connection refused\n\tIs the '
         "server running on that host and accepting TCP/IP connections?", True),
        ("psycopg", 'connection is bad: connection to server on socket "/run/.s.PGSQL.5432" '
         "failed: No such file or directory\n\tIs the server running locally?", True),
        ("psycopg", "connection timeout expired", True),
        ("psycopg", "connection failed: server closed the connection unexpectedly", True),
        ("psycopg", "connection failed: FATAL:  the database system is starting up", True),
        ("psycopg", "connection failed: FATAL:  the database system is shutting down", True),
        ("psycopg", "connection failed: FATAL:  the database system is in recovery mode", True),
        ("psycopg", "terminating connection due to administrator command", True),
        ("psycopg", "connection failed: FATAL:  sorry, too many clients already", True),
        ("psycopg", "[Errno -3] Temporary failure in name resolution", True),
        ("psycopg", "failed to resolve host 'x': [Errno -2] Name or service not known", False),
        ("psycopg", 'connection failed: FATAL:  database "timed" does not exist', False),
        ("psycopg", 'connection failed: FATAL:  password authentication failed for "u"', False),
        ("psycopg", 'connection failed: FATAL:  role "nobody" does not exist', False),
        ("psycopg", "connection failed: server does not support SSL, but SSL was required", False),
        ("psycopg", "could not open certificate file: No such file or directory", False),
        # as PyMySQL and mysqlclient do
        ("pymysql", "(2003, \"Can't connect to MySQL server on 'h' ([Errno 111] Connection "
         "refused)\")", True),
        ("pymysql", "(2003, \"Can't connect to MySQL server on 'h' (timed out)\")", True),
        ("pymysql", "(2003, \"Can't connect to MySQL server on 'h' (113)\")", True),
        ("pymysql", "(2013, 'Lost connection to MySQL server during query')", True),
        ("pymysql", "(2006, 'MySQL server has gone away')", True),
        ("pymysql", "(1040, 'Too many connections')", True),
        ("pymysql", "(2003, \"Can't connect to MySQL server on 'h' ([Errno -2] Name or service "
         "not known)\")", False),
        ("pymysql", "(1049, \"Unknown database 'ztp'\")", False),
        ("pymysql", "(1045, \"Access denied for user 'u'@'h' (using password: YES)\")", False),
        # as SQLite does
        ("sqlite3", "database is locked", False),
        ("sqlite3", "unable to open database file", False),
        ("sqlite3", "database or disk is full", False),
    ],
)  # fmt: skip
def test_a_server_that_is_away_is_told_from_one_that_refuses(
    driver: str, says: str, away: bool
) -> None:
    error = sa.exc.OperationalError("SELECT 'timed out'", None, Exception(says))
    assert outage.is_outage(error) and outage.is_away(error) == away, driver


def test_a_refused_connection_is_known_by_its_type_too() -> None:
    error = sa.exc.InterfaceError("", None, Exception("cannot be had"))
    assert not outage.is_away(error)
    error.orig.__cause__ = ConnectionRefusedError("?")  # type: ignore[union-attr]
    assert outage.is_away(error)


@pytest.mark.server
@pytest.mark.parametrize("variable", SERVERS)
def test_a_study_is_opened_as_soon_as_its_server_answers(variable: str) -> None:
    direct = os.environ.get(variable)
    if not direct:
        pytest.skip(f"{variable} names no database")
    name = f"test-{os.getpid()}-{time.time_ns()}"
    said: list[str] = []
    with behind_proxy(direct) as (url, proxy):
        proxy.up = False
        threading.Timer(1.5, setattr, (proxy, "up", True)).start()
        with StudyDriver.open(
            url, name, CONTRACT, blocks=BLOCKS, ranges=RANGES, tell=saying(said)
        ) as study:
            start(study, 0)
    assert "trying again for 10 minutes" in said[0] and "is back after" in said[1]
    with optuna_study(direct, name) as optunas:
        assert len(optunas.trials) == 1
        optuna.delete_study(study_name=name, storage=optunas._storage)


@pytest.mark.server
@pytest.mark.parametrize("variable", SERVERS)
@pytest.mark.parametrize("wrong", ["database", "username"])
def test_what_a_server_refuses_is_not_waited_for(variable: str, wrong: str) -> None:
    direct = os.environ.get(variable)
    if not direct:
        pytest.skip(f"{variable} names no database")
    said: list[str] = []
    url = sa.make_url(direct).set(**{wrong: "nobody-knows"})
    with pytest.raises(StudyError, match=r"the study database .* cannot be used: .*nobody-knows"):
        StudyDriver.open(
            url.render_as_string(hide_password=False), "s", CONTRACT, blocks=BLOCKS,
            ranges=RANGES, tell=saying(said),
        )  # fmt: skip
    assert not said


def test_nothing_is_waited_for_where_the_database_is_a_file(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "study.db").mkdir()
    with pytest.raises(StudyError, match="cannot be used: unable to open database file"):
        StudyDriver.open(
            url_of(tmp_path), "s", CONTRACT, blocks=BLOCKS, ranges=RANGES, tell=saying(said)
        )
    assert not said
