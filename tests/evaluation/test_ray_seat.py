"""The table at which searches learn their shares of a cluster, without Ray."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest

from ztp_search.evaluation import ray_seat
from ztp_search.evaluation.ray_seat import LEASE_SECONDS, YOUNG_SECONDS, Table, what_nodes_have

CORES: dict[str, Any] = {"CPU": ((4.0,),), "GPU": ((1.0,), (1.0,))}


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(ray_seat, "time", clock)
    monkeypatch.setattr(ray_seat, "what_nodes_have", CORES.get)
    return clock


Say = Callable[..., tuple[int, int, int]]


@pytest.fixture
def say(clock: Clock) -> Say:
    """A search says to an old table what it wants, and that it has heard its share before."""
    table = Table()
    clock.now += YOUNG_SECONDS

    def said(
        search: str, most: int | None = None, held: int | None = 1, **other: Any
    ) -> tuple[int, int, int]:
        answer = table.say(search, other.get("resource", "CPU"), 1.0, most, held)
        assert answer is not None
        return answer

    return said


def test_searches_share_as_they_come_and_go(say: Say, clock: Clock) -> None:
    assert say("a", held=None) == (4, 4, 1)
    assert say("b", held=None) == (2, 4, 2)
    assert say("a") == (2, 4, 2)
    assert say("c", most=1, held=None) == (1, 4, 3)
    assert say("a") == (2, 4, 3) and say("b") == (1, 4, 3)  # the first has what is left over
    clock.now += LEASE_SECONDS - 0.1
    assert say("b") == (1, 4, 3)
    clock.now += 0.1  # nothing was heard of the others
    assert say("b") == (4, 4, 1)


def test_a_resource_is_shared_by_those_that_want_it(say: Say) -> None:
    assert say("a", held=None) == (4, 4, 1)
    assert say("b", held=None, resource="GPU") == (2, 2, 1)
    assert say("a") == (4, 4, 1)


def test_who_waits_stays_behind_who_has_workers(say: Say, clock: Clock) -> None:
    for name in "abcd":
        assert say(name, held=None)[0] == 4 // ("abcd".index(name) + 1)
    assert say("late", held=None) == (0, 4, 5)
    assert say("later", held=None) == (0, 4, 6)
    clock.now += LEASE_SECONDS
    assert say("late", held=0) == (4, 4, 1)  # all that came before have ended
    assert say("later", held=0) == (2, 4, 2)


def test_a_new_table_tells_nobody_to_have_more_before_it_has_heard_of_all(clock: Clock) -> None:
    table = Table()
    assert table.say("waits", "CPU", 1.0, None, 0) is None
    assert table.say("a", "CPU", 1.0, None, 1) is None  # has one, from the table before
    for name, known in zip("bcd", [3, 4, 5], strict=True):
        assert table.say(name, "CPU", 1.0, None, 1) == (1, 4, known)
    assert table.say("waits", "CPU", 1.0, None, 0) == (0, 4, 5)
    clock.now += YOUNG_SECONDS
    assert table.say("waits", "CPU", 1.0, None, 0) == (0, 4, 5)
    assert table.say("a", "CPU", 1.0, None, 1) == (1, 4, 5)


def test_the_last_to_leave_takes_the_table_with_it(clock: Clock) -> None:
    table = Table()
    table.say("a", "CPU", 1.0, None, None)
    table.say("b", "CPU", 1.0, None, None)
    with mock.patch("ray.actor.exit_actor") as ended:
        table.leave("a")
        table.leave("a")
        assert not ended.called
        assert table.say("b", "CPU", 1.0, None, 4) == (4, 4, 1)
        table.leave("b")
        assert ended.called


def test_what_nodes_have_is_of_those_that_live(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0, "memory": 1e9}},
        {"Alive": False, "Resources": {"CPU": 16.0}},
        {"Alive": True, "Resources": {"CPU": 3.0}},
        {"Alive": True, "Resources": {}},
    ]
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    assert what_nodes_have("CPU") == ((8.0,), (3.0,), (0.0,))
    assert what_nodes_have("GPU") == ((1.0, 1.0), (), ())
