"""The connection to the database of studies: its settings, its transactions, its errors.

Studies and their attributes go through Optuna's public interface here, trials through `rows`.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage
from optuna.storages._rdb import models

from ztp_search.errors import StudyError
from ztp_search.events import Event, Stored
from ztp_search.study.lock import table_lock
from ztp_search.study.outage import Unreachable, is_away, is_outage, waited
from ztp_search.study.rows import to_json
from ztp_search.study.url import parse_url, redact, sqlite_path

T = TypeVar("T")
STUDIES = models.StudyModel.__table__
ATTRS = models.StudyUserAttributeModel.__table__

WAL = "journal_mode=WAL"
"""Readers and the writer do not block each other; needs a local disk, and to write to the file."""


class Database:
    """A database of studies, connected.

    Whatever it refuses, now or later, is a StudyError of one line without the password.

    Attributes:
        url: where it is.
        shown: the URL for printing.
        optuna: Optuna's storage on it.
        engine: SQLAlchemy's engine of that storage.
    """

    def __init__(self, url: sa.URL, storage: RDBStorage) -> None:
        self.url = url
        self.shown = _shown(url)
        self.optuna = storage
        self.engine: sa.Engine = storage.engine
        self._closed = False
        self._tell: Callable[[Event], object] | None = None
        self._guard: Callable[[bool], None] | None = None

    @classmethod
    def create(cls, storage: str) -> Database:
        """Connect, and create the file and the tables where there are none yet."""
        url = parse_url(storage)
        path = sqlite_path(url)
        options = _options(url, path, WAL)
        with explained(url):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            # Two that come first at the same time would both create the tables.
            with table_lock(url, options):
                return cls(url, _optuna_storage(url, options, create=True))

    @classmethod
    def find(cls, storage: str) -> Database | None:
        """Connect to read; None where there are no tables of Optuna's. Creates nothing."""
        url = parse_url(storage)
        path = sqlite_path(url)
        with explained(url):
            if path is not None and not path.exists():
                return None
            options = _frozen_options(path) if path and _is_frozen(path) else _options(url, path)
            if not _has_tables(url, options):
                return None
            return cls(url, _optuna_storage(url, options, create=False))

    @classmethod
    def open(cls, storage: str, awaits: bool = False) -> Database:
        """As `find`, but a StudyError where there are no tables.

        awaits: whether the first study may come later. On a server, tables are then created where
            there are none; a file that is missing or empty is a wrong name all the same.
        """
        database = cls.find(storage)
        if database is None:
            path = sqlite_path(parse_url(storage))
            if path is None and awaits:
                return cls.create(storage)
            if path is not None and not path.exists():
                raise StudyError(f"{storage} does not exist; run a search first, or name another")
            raise no_study(redact(storage))
        return database

    def starts(self) -> dict[str, str]:
        """When the driver of each study started, by the study's name."""
        query = sa.select(STUDIES.c.study_name, ATTRS.c.value_json).join_from(STUDIES, ATTRS)
        query = query.where(ATTRS.c.key == "driver")
        rows = self.read(lambda connection: connection.execute(query).all())
        return {name: json.loads(text)["started"] for name, text in rows}

    def study_id(self, name: str) -> int:
        """Optuna's number of a study that exists."""
        return self.call(lambda: self.optuna.get_study_id_from_name(name))

    def attributes(self, study: int) -> dict[str, Any]:
        """All attributes of a study, the reserved ones too."""
        return self.call(lambda: self.optuna.get_study_user_attrs(study))

    def set_attribute(self, study: int, key: str, value: Any) -> None:
        """Store a JSON value over what stood there."""
        to_json(value)  # refuses NaN, which Optuna would store
        self.call(lambda: self.optuna.set_study_user_attr(study, key, value), writes=True)

    def read(self, work: Callable[[sa.Connection], T]) -> T:
        """What `work` reads over a connection on which nothing changes between its queries."""

        def once() -> T:
            with self.snapshot() as connection:
                return work(connection)

        return self.call(once)

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """The connection that `read` reads over, for who waits for no outage."""
        with self.explained(), self.engine.connect() as connection:
            if self.url.get_backend_name() == "sqlite":
                connection.exec_driver_sql("BEGIN")  # which Python leaves out before a SELECT
            else:
                connection.execution_options(isolation_level="REPEATABLE READ")
            yield connection

    def write(self, work: Callable[[sa.Connection, bool], T]) -> T:
        """What `work` returns, whose changes are all stored at its end, or none.

        Args:
            work: of a connection and whether it was tried before. Then an outage came between,
                and what it was to store may be there: the commit, or the word of it, was lost.
        """
        tries = 0

        def once() -> T:
            nonlocal tries
            tries += 1
            with self.engine.begin() as connection:
                return work(connection, tries > 1)

        return self.call(once, writes=True)

    def call(self, work: Callable[[], T], writes: bool = False) -> T:
        """What `work` returns; what the database raises is a StudyError.

        Where outages are waited for, `work` is tried again after one, so it must be one whose
        second time changes nothing.
        """
        tries = 0

        def once() -> T:
            nonlocal tries
            tries += 1
            with self.explained():
                if writes and self._guard is not None:
                    self._guard(tries > 1)
                began = time.perf_counter()
                result = work()
            if writes and self._tell is not None:
                self._tell(Stored(time.perf_counter() - began))
            return result

        return once() if self._tell is None else waited(once, self._tell)

    def wait_for_outages(
        self, tell: Callable[[Event], object], guard: Callable[[bool], None]
    ) -> None:
        """Wait for the database from now on where it goes away, instead of raising.

        Args:
            tell: told when waiting begins and ends, and how long it took to store something.
            guard: called before everything that is written, with whether an outage came before;
                raises where this process has lost the right to.
        """
        self._tell, self._guard = tell, guard

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turns what the database raises into a StudyError."""
        if self._closed:
            raise ValueError(f"the study database {self.shown} was closed before")
        with explained(self.url):
            yield

    def close(self) -> None:
        """Disconnect."""
        self._closed = True
        self.optuna.remove_session()
        self.engine.dispose()


def no_study(shown: str) -> StudyError:
    return StudyError(f"{shown} holds no study yet; run a search first")


@contextmanager
def explained(url: sa.URL) -> Iterator[None]:
    """Turns what the database or its driver raises into one line without a password.

    It is a StudyError: `Unreachable` where the database may come back.
    """
    try:
        yield
    except ImportError as error:
        module = getattr(error.__cause__ or error, "name", None)
        raise StudyError(
            f"{_shown(url)} needs the Python module {module}, which is not installed; install it, "
            f"or name another driver in the URL"
        ) from None
    except (sa.exc.SQLAlchemyError, optuna.exceptions.OptunaError, OSError, RuntimeError) as error:
        cause: BaseException = error
        while inner := getattr(cause, "orig", None) or cause.__cause__:
            cause = inner
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        for secret in (url.password, *url.query.values()):
            reason = reason.replace(str(secret), "***") if secret else reason
        message = f"the study database {_shown(url)} cannot be used: {reason}"
        if is_outage(error):
            raise Unreachable(message, is_away(error)) from None
        raise StudyError(message) from None


def _shown(url: sa.URL) -> str:
    return redact(url.render_as_string(hide_password=False))


def _optuna_storage(url: sa.URL, options: dict[str, Any], create: bool) -> RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # the search says itself what matters
    text = url.render_as_string(hide_password=False)
    return RDBStorage(text, engine_kwargs=options, skip_table_creation=not create)


def _has_tables(url: sa.URL, options: dict[str, Any]) -> bool:
    """Whether Optuna's tables are there, all of them: it stores their version last."""
    engine = sa.create_engine(url, **options)
    try:
        with engine.connect() as connection:
            there = sa.inspect(connection).has_table("alembic_version")
            query = sa.text("SELECT count(*) FROM alembic_version")
            return there and bool(connection.scalar(query))
    finally:
        engine.dispose()


def _options(url: sa.URL, path: Path | None, *pragmas: str) -> dict[str, Any]:
    """Options of the engine; pragmas: more of them for every connection to an SQLite file."""
    if path is None:
        return {"pool_pre_ping": True, "connect_args": _connect_args(url)}
    every = ("busy_timeout=60000", *pragmas, "synchronous=NORMAL")  # commits wait for no disk
    return {"pool_events": [(partial(_set_pragmas, every), "connect")]}


def _connect_args(url: sa.URL) -> dict[str, Any]:
    """So that a server that has vanished is noticed in a minute or two, not in two hours.

    What the URL itself says comes first.
    """
    if not url.get_driver_name().startswith("psycopg"):
        return {}
    wanted = {
        "connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10,
        "keepalives_count": 3, "tcp_user_timeout": 60_000,
    }  # fmt: skip
    return {name: value for name, value in wanted.items() if name not in url.query}


def _set_pragmas(pragmas: tuple[str, ...], connection: Any, _: object) -> None:
    cursor = connection.cursor()
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _is_frozen(path: Path) -> bool:
    """Whether a file can only be read as one that nobody writes to.

    To read one that is written to, SQLite wants to write beside it: to files that a driver at
    work, or one that died, has left there.
    """
    how = os.access in os.supports_effective_ids
    return not (os.access(path.parent, os.W_OK, effective_ids=how) or Path(f"{path}-wal").exists())


def _frozen_options(path: Path) -> dict[str, Any]:
    uri = f"{path.as_uri()}?immutable=1"
    return {"creator": partial(sqlite3.connect, uri, uri=True, check_same_thread=False)}
