"""How searches share a cluster, by hand, against the water level, and by what fair means."""

import itertools
import random

import pytest

from ztp_search.evaluation.shares import Demand, fair_shares, room_for


def shares(nodes: list[list[float]], *demands: tuple[float, int | None]) -> list[int]:
    asked = tuple(Demand(need, most) for need, most in demands)
    return list(fair_shares(asked, tuple(map(tuple, nodes))))


@pytest.mark.parametrize(
    "nodes, demands, expected",
    [
        ([[4]], [], []),
        ([[4]], [(1, None)], [4]),
        ([[4]], [(1, None), (1, None)], [2, 2]),
        ([[5]], [(1, None), (1, None)], [3, 2]),  # the first that came has what is left over
        ([[8]], [(1, None), (1, 1), (1, None)], [4, 1, 3]),
        ([[2]], [(1, None), (1, None), (1, None)], [1, 1, 0]),  # the last one waits
        ([[4]], [(1, None), (1, 0)], [4, 0]),
        ([[]], [(1, None)], [0]),
        ([[0.5]], [(1, None)], [0]),
        ([[6]], [(1, None), (2, None)], [4, 1]),  # after 2 and 2 cores the first one's turn
        ([[8]], [(1, None), (2, None)], [4, 2]),  # in cores, not workers
        ([[3], [3]], [(2, None)], [2]),  # no worker is on two nodes
        ([[3], [3]], [(2, None), (2, None)], [1, 1]),
        ([[1, 1]], [(0.25, None), (1, None)], [4, 1]),  # GPUs
        ([[1]], [(0.3, None), (0.3, None)], [2, 1]),  # no worker is on two GPUs
        ([[1, 1, 1], [1]], [(2, None)], [1]),
        ([[1] * 4], [(2, None), (1, None)], [1, 2]),
        ([[1]], [(1 / 3, None)], [3]),
    ],
)
def test_shares_by_hand(
    nodes: list[list[float]], demands: list[tuple[float, int | None]], expected: list[int]
) -> None:
    assert shares(nodes, *demands) == expected


@pytest.mark.parametrize(
    "need, nodes, room",
    [(1, [[2], [3]], 5), (4, [[2], [3]], 0), (0.25, [[1, 1], []], 8), (0.3, [[1, 1]], 6)],
)
def test_room_by_hand(need: float, nodes: list[list[float]], room: int) -> None:
    assert room_for(need, tuple(map(tuple, nodes))) == room


@pytest.mark.parametrize("seed", range(100))
def test_equal_workers_stand_at_the_water_level(seed: int) -> None:
    """The level is the highest that all up to it can have; what is left goes to the first."""
    draw = random.Random(seed)
    room = draw.randrange(30)
    most = [draw.choice([None, draw.randrange(1, 12)]) for _ in range(draw.randrange(1, 7))]
    bounds = [room if each is None else min(each, room) for each in most]
    level = max(each for each in range(room + 1) if sum(min(b, each) for b in bounds) <= room)
    expected = [min(bound, level) for bound in bounds]
    for index, bound in enumerate(bounds):
        if expected[index] < bound and sum(expected) < room:
            expected[index] += 1
    assert shares([[room]], *((1, each) for each in most)) == expected


@pytest.mark.parametrize("seed", range(100))
def test_nobody_can_have_more_but_from_who_has_no_more_than_a_worker_above(seed: int) -> None:
    draw = random.Random(1000 + seed)
    cores = draw.randrange(1, 24)
    demands = [
        (draw.randrange(1, 5), draw.choice([None, draw.randrange(1, 6)]))
        for _ in range(draw.randrange(1, 6))
    ]
    given = shares([[cores]], *demands)
    taken = [share * need for share, (need, _) in zip(given, demands, strict=True)]
    left = cores - sum(taken)
    assert left >= 0
    hungry = []
    for index, (need, most) in enumerate(demands):
        assert most is None or given[index] <= most
        if most is None or given[index] < most:
            assert left < need
            hungry.append(index)
    for poor, rich in itertools.permutations(range(len(demands)), 2):
        if poor in hungry and taken[rich] - demands[rich][0] > taken[poor]:
            # the rich one's last worker was given when there was no room for the poor one's next
            assert left + demands[rich][0] < demands[poor][0]


@pytest.mark.parametrize("seed", range(50))
def test_all_have_a_worker_where_there_is_room_and_only_the_last_have_none(seed: int) -> None:
    draw = random.Random(2000 + seed)
    nodes = [[draw.randrange(5)] for _ in range(draw.randrange(1, 5))]
    room = sum(node[0] for node in nodes)
    searches = draw.randrange(1, 10)
    given = shares(nodes, *[(1, None)] * searches)
    assert [share > 0 for share in given] == [index < room for index in range(searches)]
    assert sum(given) == room
