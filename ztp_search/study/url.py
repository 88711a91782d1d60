"""The URL of a study database: which ones will do, and how one is printed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import sqlalchemy as sa

from ztp_search.errors import StudyError

BACKENDS = ("sqlite", "postgresql", "mysql")


def parse_url(storage: str) -> sa.URL:
    """The URL of a storage that can hold studies; that of an SQLite file has an absolute path.

    Raises:
        StudyError: for anything else, without its password.
    """
    example = "sqlite:///ztp-runs/study.db or postgresql://user@host/database"
    try:
        url = sa.make_url(storage)
        backend = url.get_backend_name()
    except (sa.exc.ArgumentError, ValueError):
        raise StudyError(
            f"`storage` must be a database URL such as {example}, but got {redact(storage)!r}"
        ) from None
    if backend not in BACKENDS:
        raise StudyError(f"`storage` must be sqlite, postgresql or mysql, but got {backend!r}")
    if backend != "sqlite":
        return url
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise StudyError(
            f"an SQLite `storage` must name a file that stays, such as "
            f"sqlite:///ztp-runs/study.db, but got {redact(storage)!r}"
        )
    # Absolute, as later connections open it by name again.
    return url.set(database=str(Path(url.database).expanduser().absolute()))


def sqlite_path(url: sa.URL) -> Path | None:
    """The file of an SQLite database; None where the URL names a server."""
    return Path(url.database or "") if url.get_backend_name() == "sqlite" else None


def is_read_only(storage: str) -> bool:
    """Whether the database is an SQLite file that this process may read and not write.

    SQLite writes beside it, too, and so do locks.
    """
    path = sqlite_path(parse_url(storage))
    return (
        path is not None
        and path.is_file()
        and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))
    )


def redact(url: str) -> str:
    """The URL for printing, well-formed or not: no password, no value of its query.

    Example:
        >>> redact("postgresql://user:secret@host/studies")
        'postgresql://user:***@host/studies'
    """
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    if scheme == "sqlite":
        return url  # there is no password, and the path may hold any sign
    user, at, place = rest.rpartition("@")  # a password may hold an unquoted @, a host may not
    user = re.sub("[:?/].*", ":***", user)
    place = re.sub(r"^([^/:[]*):(?!\d+(/|$)).*", r"\1:***", place)  # no port: a lost password
    place = re.sub(r"=[^&]*", "=***", place)
    return scheme + mark + user + at + place
