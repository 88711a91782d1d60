"""What tests run in a process of its own: a driver that is killed, a reader without rights."""

import multiprocessing.connection
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Any

import sqlalchemy as sa
from helpers.studies import PROCESSES, open_study, start

from ztp_search.study import StudyDriver, StudyReader, Update

TRIALS, RUNGS = 12, (100, 200, 300)


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


def reported_until_killed(url: str, messages: int, name: str = "s") -> set[tuple[int, int]]:
    """What a driver said it had stored before it was killed, after so many messages or later."""
    here, there = PROCESSES.Pipe()
    driver = PROCESSES.Process(target=drive, args=(url, there, name))
    driver.start()
    there.close()
    reported: set[tuple[int, int]] = set()
    try:
        for _ in range(messages):
            reported |= set(here.recv())
        driver.kill()
        driver.join()
        while here.poll():  # sent before it died
            reported |= set(here.recv())
    except EOFError:  # it got to its end
        driver.join()
    return reported


def die_at_commit(url: str, last_words: str) -> None:
    """Die in the commit of what is stored last: of new trials ("start") or of updates."""
    with open_study(url) as study:
        start(study, 0, 1, images=0)
        study.update([Update(1, "running", 0.25, {"images": 100}, 100)])
        sa.event.listen(study._database.engine, "commit", lambda _: os.kill(os.getpid(), 9))
        if last_words == "start":
            start(study, 2, 3, images=0)
        study.update([
            Update(0, "pruned", 0.5, {"images": 100}, 100),
            Update(1, "complete", 0.5, {"images": 200}, 200),
        ])  # fmt: skip


def hold(url: str, pipe: multiprocessing.connection.Connection) -> None:
    """A driver with a forked child, until killed."""
    with open_study(url):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        pipe.send(child)
        time.sleep(60)


def values_as_another_user(url: str, any_study: str) -> list[float | None]:
    StudyReader.open(any_study).close()  # all is imported that the other user may not read
    if os.geteuid() == 0:
        os.seteuid(65534)  # in a process of its own, which ends with this
    with StudyReader.open(url, "s") as study:
        return [trial.value for trial in study.trials()]


def die_in_search(settings: dict[str, Any], method: str, key: str | None, nth: int) -> None:
    """Search, and die at the n-th call of a study's method, before it or, if negative, after it.

    key: count only the calls that store this attribute.
    """
    import ztp_search

    sound: Callable[..., Any] = getattr(StudyDriver, method)
    calls = 0

    def deadly(self: StudyDriver, given: Any, *rest: Any) -> None:
        nonlocal calls
        calls += key in (None, given)
        this = key in (None, given) and calls == abs(nth)
        if this and nth > 0:
            os.kill(os.getpid(), signal.SIGKILL)
        sound(self, given, *rest)
        if this:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(StudyDriver, method, deadly)
    ztp_search.search(ztp_search.SearchSettings(**settings))


def search_while_the_clock_jumps(
    settings: dict[str, Any], jumps: Mapping[int, timedelta]
) -> None:
    """Search; when trials are updated for the n-th time, the wall clock is moved by so much."""
    import ztp_search
    import ztp_search.driver.run

    real, moved = time.time, 0.0
    time.time = lambda: real() + moved

    class Moved(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(time.time(), tz)

    for name, module in list(sys.modules.items()):
        if name.startswith("ztp_search") and hasattr(module, "datetime"):
            module.datetime = Moved
    calls, sound = 0, StudyDriver.update

    def update(self: StudyDriver, updates: Sequence[Update]) -> None:
        nonlocal calls, moved
        calls += 1
        moved += jumps.get(calls, timedelta()).total_seconds()
        sound(self, updates)

    StudyDriver.update = update  # type: ignore[method-assign]
    ztp_search.search(ztp_search.SearchSettings(**settings))
