"""Databases that go away for a while, and what is done until they are back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import sqlalchemy as sa

from ztp_search.errors import OutageError, StudyError
from ztp_search.events import Back, Event, Outage

T = TypeVar("T")

PATIENCE = 600.0
"""Seconds for which a driver waits for its database."""
LONGEST_PAUSE = 5.0


class Unreachable(StudyError):
    """The database cannot be reached, or cannot store anything, at the moment."""


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


def waited(work: Callable[[], T], tell: Callable[[Event], object]) -> T:
    """What `work` returns, tried again while it finds the database `Unreachable`.

    Args:
        work: may have been done although it failed; it must see to that itself.
        tell: told when waiting begins (`Outage`) and ends (`Back`).

    Raises:
        OutageError: the database did not come back within `PATIENCE`.
    """
    began: float | None = None
    for pause in _pauses():
        try:
            result = work()
        except Unreachable as error:
            now = time.monotonic()
            if began is None:
                began = now
                tell(Outage(str(error), PATIENCE))
            if now + pause > began + PATIENCE:
                raise OutageError(f"{error}; gave up after {now - began:.0f} s") from None
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
