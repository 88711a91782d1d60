"""The database under a study: its URL, its settings, its errors and the lock of its driver."""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from optuna.storages import RDBStorage

from ztp_search.errors import StudyError


def redact(url: str) -> str:
    """The URL for printing, well-formed or not: no password, no value of its query."""
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    if scheme == "sqlite":
        return url  # there is no password, and the path may hold any sign
    user, at, place = rest.rpartition("@")  # a password may hold an unquoted @, a host may not
    user = re.sub("[:?/].*", ":***", user)
    place = re.sub(r"^([^/:[]*):(?!\d+(/|$)).*", r"\1:***", place)  # no port: a lost password
    place = re.sub(r"=[^&]*", "=***", place)
    return scheme + mark + user + at + place


def connect(storage: str, create: bool) -> tuple[sa.URL, RDBStorage]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # the search says itself what matters
    url = parse_url(storage)
    options: dict[str, Any] = {"pool_pre_ping": True}
    with explained(url), ExitStack() as held:
        if url.database is not None and url.get_backend_name() == "sqlite":
            path = Path(url.database)
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
            elif not path.exists():
                raise StudyError(f"{storage} does not exist; run a search first, or name another")
            # Two that come first at the same time, be it to read, would both create the tables.
            _flock(held, f"{path}.lock", fcntl.LOCK_EX)
            options = {"pool_events": [(_set_pragmas, "connect")]}
        return url, RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=options)


def dashboard_storage(storage: str) -> RDBStorage:
    """The database as Optuna's own tools take it; StudyError where there is none."""
    return connect(storage, create=False)[1]


def parse_url(storage: str) -> sa.URL:
    """The URL of a storage that can hold studies; StudyError, without its password, else."""
    example = "sqlite:///ztp-runs/study.db or postgresql://user@host/database"
    try:
        url = sa.make_url(storage)
        backend = url.get_backend_name()
    except (sa.exc.ArgumentError, ValueError):
        raise StudyError(
            f"storage must be a database URL such as {example}, but got {redact(storage)!r}"
        ) from None
    if backend not in ("sqlite", "postgresql", "mysql"):
        raise StudyError(f"storage must be sqlite, postgresql or mysql, but got {backend!r}")
    if backend != "sqlite":
        return url
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise StudyError(
            f"an SQLite storage must name a file that stays, such as sqlite:///ztp-runs/study.db, "
            f"but got {redact(storage)!r}"
        )
    # Absolute, as later connections open it by name again.
    return url.set(database=str(Path(url.database).expanduser().absolute()))


def _set_pragmas(connection: Any, _: object) -> None:
    """Per connection: readers and the writer do not block each other, commits wait for no disk.

    WAL needs a local disk.
    """
    cursor = connection.cursor()
    for pragma in ("busy_timeout=60000", "journal_mode=WAL", "synchronous=NORMAL"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


@contextmanager
def explained(url: sa.URL) -> Iterator[None]:
    """Turn what the database or its driver raises into one line without a password."""
    shown = redact(url.render_as_string(hide_password=False))
    try:
        yield
    except ImportError as error:
        module = getattr(error.__cause__ or error, "name", None)
        raise StudyError(
            f"{shown} needs the Python module {module}, which is not installed; install it, or "
            f"name another driver in the URL"
        ) from None
    except (sa.exc.SQLAlchemyError, optuna.exceptions.OptunaError, OSError, RuntimeError) as error:
        cause: BaseException = error
        while inner := getattr(cause, "orig", None) or cause.__cause__:
            cause = inner
        reason = (str(cause) or type(cause).__name__).splitlines()[0]
        for secret in (url.password, *url.query.values()):
            reason = reason.replace(str(secret), "***") if secret else reason
        raise StudyError(f"the study database {shown} cannot be used: {reason}") from None


@contextmanager
def snapshot(url: sa.URL, engine: sa.Engine) -> Iterator[sa.Connection]:
    """A connection to read with, on which nothing changes between its queries."""
    with engine.connect() as connection:
        if url.get_backend_name() == "sqlite":
            connection.exec_driver_sql("BEGIN")  # which Python leaves out before a SELECT
        else:
            connection.execution_options(isolation_level="REPEATABLE READ")
        yield connection


def starts_of(url: sa.URL, backend: RDBStorage) -> dict[str, str]:
    """When the driver of each study started, by name."""
    with explained(url):
        studies = backend.get_all_studies()
    return {
        each.study_name: each.user_attrs["driver"]["started"]
        for each in studies
        if "driver" in each.user_attrs
    }


def take_lock(held: ExitStack, url: sa.URL, engine: sa.Engine, study: int) -> bool:
    """Take the study's lock until `held` closes or this process dies, however it dies.

    SQLite: a lock on a file beside it. A server, across hosts: a lock of the server's own that
    lasts as long as the connection that took it (so no pooler that shares connections between
    transactions). Where a connection is lost, `start` still refuses a second driver's trials.
    """
    if url.get_backend_name() == "sqlite":
        return _flock(held, f"{url.database}.study{study}.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
    digest = hashlib.sha256(f"ztp-search {url.database} {study}".encode()).digest()
    mysql = url.get_backend_name() == "mysql"
    take = "GET_LOCK(:key, 0)" if mysql else "pg_try_advisory_lock(:key)"
    connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
    held.callback(connection.close)
    connection.detach()  # closing ends it, instead of giving it back to the pool with its lock
    key = int.from_bytes(digest[:8], "big", signed=True)
    named = str(key) if mysql else key  # MariaDB names locks by text alone
    return bool(connection.scalar(sa.text(f"SELECT {take}"), {"key": named}))


_LOCKS: set[int] = set()  # descriptors; global because what happens at a fork is


def _flock(held: ExitStack, path: str, how: int) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    _LOCKS.add(descriptor)
    held.callback(_unlock, descriptor)
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    return True


def _unlock(descriptor: int) -> None:
    if descriptor in _LOCKS:
        _LOCKS.remove(descriptor)
        os.close(descriptor)


def _unlock_all() -> None:
    for descriptor in list(_LOCKS):
        _unlock(descriptor)


# A lock dies with its driver, not with the last child that the driver forked.
os.register_at_fork(after_in_child=_unlock_all)
