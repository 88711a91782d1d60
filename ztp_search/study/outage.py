"""Databases that go away for a while, and what is done until they are back."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import sqlalchemy as sa

from ztp_search.errors import OutageError, StudyError
from ztp_search.events import Back, Event, Outage

T = TypeVar("T")

PATIENCE = 600.0
"""Seconds for which a driver waits for its database."""
FIRST_PATIENCE = 60.0
"""Seconds for which a search waits for a server that it has not reached before: its address may be
a wrong one."""
LONGEST_PAUSE = 5.0

_AWAY = re.compile(
    # from the operating system, by name, and by number as MySQL's clients do
    r"connection (refused|reset|timed out)|timed out|timeout expired|no route to host|"
    r"(network is|host is) (unreachable|down)|temporary failure in name resolution|"
    r"is the server running|errno (2|104|110|111|113|115)\]|\((110|111|113|115)\)|"
    # from a server on its way down or up, with too many clients, or what stands before it
    r"the database system is|terminating connection|server shutdown|too many (clients|connections)|"
    r"connection slots are reserved|closed the connection|lost connection|has gone away",
    re.IGNORECASE,
)


class Unreachable(StudyError):
    """The database cannot be reached, or cannot store anything, at the moment.

    away: whether a server does not answer at all, rather than with a refusal.
    """

    def __init__(self, message: str, away: bool = False) -> None:
        super().__init__(message)
        self.away = away


def is_outage(error: BaseException) -> bool:
    """Whether the cause of an error lies in the server, the network or the disk.

    Drivers report as one of these two what is not a program's mistake: lost and refused
    connections, a server on its way down or up, full disks, locks that come too late, deadlocks.
    """
    each: BaseException | None = error
    while each is not None:
        if isinstance(each, sa.exc.OperationalError | sa.exc.InterfaceError):
            return True
        if isinstance(each, sa.exc.DBAPIError) and each.connection_invalidated:
            return True
        each = each.__cause__
    return False


def is_away(error: BaseException) -> bool:
    """Whether an outage is one of a server that is down, on its way up, or out of reach.

    A refusal (of a password, of a database that is not there) is none, and neither is a host that
    nobody knows. Drivers tell them apart in words alone.
    """
    each: BaseException | None = error
    while each is not None:
        if isinstance(each, ConnectionError | TimeoutError):
            return True
        if not isinstance(each, sa.exc.SQLAlchemyError) and _AWAY.search(str(each)):
            return True
        each = getattr(each, "orig", None) or each.__cause__ or each.__context__
    return False


def waited(work: Callable[[], T], tell: Callable[[Event], object]) -> T:
    """What `work` returns, tried again while it finds the database `Unreachable`.

    Args:
        work: may have been done although it failed; it must see to that itself.
        tell: told when waiting begins (`Outage`) and ends (`Back`).

    Raises:
        OutageError: the database did not come back within `PATIENCE`.
    """
    return _waited(work, tell, PATIENCE, lambda error: True)


def opened(work: Callable[[], T], tell: Callable[[Event], object], first: bool = False) -> T:
    """What `work` returns, which opens a study; tried again while its server is away.

    Args:
        work: as for `waited`.
        tell: as for `waited`.
        first: whether nothing has reached the server before.

    Raises:
        OutageError: the server did not answer within `FIRST_PATIENCE`, or within `PATIENCE` where
            it has before.
        StudyError: it refuses what is asked, which no waiting mends.
    """
    patience = FIRST_PATIENCE if first else PATIENCE
    causes = "; the server is away, or `storage` names a wrong host or port" if first else ""
    return _waited(work, tell, patience, lambda error: error.away, causes)


def _waited(
    work: Callable[[], T],
    tell: Callable[[Event], object],
    patience: float,
    waits_for: Callable[[Unreachable], bool],
    causes: str = "",
) -> T:
    began: float | None = None
    for pause in _pauses():
        try:
            result = work()
        except Unreachable as error:
            if not waits_for(error):
                raise
            now = time.monotonic()
            if began is None:
                began = now
                tell(Outage(str(error), patience))
            if now + pause > began + patience:
                gave_up = f"{error}; gave up after {now - began:.0f} s{causes}"
                raise OutageError(gave_up) from None
            time.sleep(pause)
        else:
            if began is not None:
                tell(Back(time.monotonic() - began))
            return result
    raise AssertionError("pauses do not end")


def _pauses() -> Iterator[float]:
    """Seconds before the next try."""
    pause = 0.25
    while True:
        yield pause
        pause = min(LONGEST_PAUSE, 2 * pause)
