"""How searches share the workers of a cluster: max-min fair. Imports neither torch nor ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

TINY = 1e-6
"""Of a core or a GPU; a third of one is there three times."""

Nodes = tuple[tuple[float, ...], ...]
"""What each node has of a resource, in pieces that a worker's share does not cross: a node's CPU
cores are one piece, each of its GPUs is one."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What a search wants.

    Attributes:
        need: CPU cores or GPUs of one worker.
        most: workers at most; None: as many as there is room for.
    """

    need: float
    most: int | None = None


@lru_cache(maxsize=64)
def fair_shares(demands: tuple[Demand, ...], nodes: Nodes) -> tuple[int, ...]:
    """How many workers each search may have.

    The search that has least, counted in cores or GPUs, is given a worker more, until nobody wants
    or can have one; of equals the first. So all have a worker before anybody has two, and where
    there is room for no more, the last ones have none.

    Args:
        demands: in the order in which searches have come.
        nodes: of the cluster.
    """
    free = [list(node) for node in nodes]
    shares = [0] * len(demands)
    hungry = {index for index, demand in enumerate(demands) if demand.most != 0}
    while hungry:
        index = min(hungry, key=lambda each: (shares[each] * demands[each].need, each))
        demand = demands[index]
        if _placed(demand.need, free):
            shares[index] += 1
            if shares[index] == demand.most:
                hungry.discard(index)
        else:  # nor will there be room later
            hungry.discard(index)
    return tuple(shares)


def room_for(need: float, nodes: Nodes) -> int:
    """How many workers of such a need the nodes have room for."""
    return fair_shares((Demand(need),), nodes)[0]


def _placed(need: float, free: Sequence[list[float]]) -> bool:
    """Take a worker's need where it fits best; whether there is room for it."""
    fitting = [
        (piece, node, index)
        for node in free for index, piece in enumerate(node) if piece >= need - TINY
    ]  # fmt: skip
    if fitting:
        _, node, index = min(fitting, key=lambda each: each[0])
        node[index] -= need
        return True
    for node in free:  # several GPUs
        whole = [index for index, piece in enumerate(node) if piece >= 1 - TINY]
        if len(whole) > 1 and len(whole) >= need:
            for index in whole[: round(need)]:
                node[index] = 0.0
            return True
    return False
