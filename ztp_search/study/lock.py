"""Locks between processes, each of which dies with the process that took it, however it dies.

For an SQLite database they are files beside it, locked through `filelock`: a child that the
process forks neither holds such a lock nor can release it. For a server, the lock is one of the
server's own, and holds across hosts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import sqlalchemy as sa
from filelock import FileLock, Timeout

from ztp_search.study.url import sqlite_path


@contextmanager
def table_lock(url: sa.URL, options: dict[str, Any]) -> Iterator[None]:
    """Waits for, and holds, the right to create the tables of a database.

    options: of an engine that connects to it.
    """
    database = sqlite_path(url)
    if database is not None:
        with _file_lock(f"{database}.lock"):
            yield
        return
    engine = sa.create_engine(url, **options)
    try:
        with engine.connect() as connection:
            _ask(connection, url, "tables", wait=True)
            yield
    finally:
        engine.dispose()  # which ends the connection, and the lock with it


@dataclass(frozen=True, slots=True)
class StudyLock:
    """The right to drive a study.

    release: gives it back. held: whether it still is this process's; a server's lock is lost with
    its connection.
    """

    release: Callable[[], object]
    held: Callable[[], bool]


def take_study_lock(url: sa.URL, engine: sa.Engine, study: int) -> StudyLock | None:
    """Try, without waiting, to become the study's only driver.

    Args:
        url: the database.
        engine: connects to it.
        study: Optuna's number of the study.

    Returns:
        The lock; None where another driver holds it.
    """
    database = sqlite_path(url)
    if database is not None:
        return _take_file_lock(f"{database}.study{study}.lock")
    return _take_server_lock(url, engine, study)


FOREVER = 3600
"""Seconds: MariaDB wants a number."""


def _file_lock(path: str) -> FileLock:
    # Any thread may release it. A file system that cannot lock is an error: the file that would
    # stand in for a lock outlives its process.
    return FileLock(path, thread_local=False, fallback_to_soft=False)


def _take_file_lock(path: str) -> StudyLock | None:
    lock = _file_lock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return StudyLock(lock.release, lambda: True)


def _take_server_lock(url: sa.URL, engine: sa.Engine, study: int) -> StudyLock | None:
    """The lock lasts as long as the connection that took it.

    So no pooler may share connections between transactions.
    """
    with ExitStack() as held:
        connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        held.callback(connection.close)
        connection.detach()  # closing ends it, instead of giving it back to the pool with its lock
        if not _ask(connection, url, str(study), wait=False):
            return None
        return StudyLock(held.pop_all().close, partial(_answers, connection))


def _ask(connection: sa.Connection, url: sa.URL, name: str, wait: bool) -> bool:
    """Ask a server for a lock; whether it is had. wait: until it is."""
    digest = hashlib.sha256(f"ztp-search {url.database} {name}".encode()).digest()
    key = int.from_bytes(digest[:8], "big", signed=True)
    if url.get_backend_name() == "mysql":  # MariaDB, too, names locks by text alone
        seconds = FOREVER if wait else 0
        query = sa.text("SELECT GET_LOCK(:key, :seconds)")
        return bool(connection.scalar(query, {"key": str(key), "seconds": seconds}))
    if wait:
        connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": key})
        return True
    return bool(connection.scalar(sa.text("SELECT pg_try_advisory_lock(:key)"), {"key": key}))


def _answers(connection: sa.Connection) -> bool:
    try:
        connection.scalar(sa.text("SELECT 1"))
    except sa.exc.SQLAlchemyError:
        return False
    return True
