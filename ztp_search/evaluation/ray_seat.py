"""A search's seat at the table where all that use a Ray cluster learn their shares of its workers.

The table is a named actor that holds nothing but what each search wants, and until when that is
believed: searches say it again and again. So it may die at any time, and whoever misses it first
makes another. Imports neither torch nor timm, as the table is made on any node.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

from ztp_search.evaluation.ray_cluster import what_is_lost
from ztp_search.evaluation.shares import Demand, Nodes, fair_shares, room_for

NAME = NAMESPACE = "ztp-search"
BEAT_SECONDS = 2.0
"""How often a search says what it wants, and learns what it may have."""
LEASE_SECONDS = 15.0
"""For how long the table believes it."""
YOUNG_SECONDS = 3 * BEAT_SECONDS
"""For so long a table may not have heard of all searches, and tells nobody to have more."""
ANSWER_SECONDS = 10.0
"""In which the table answers, unless it is lost."""


@dataclass(frozen=True, slots=True)
class Share:
    """What a search may have of a cluster.

    Attributes:
        workers: how many; none where it has to wait for another search to end.
        room: how many of its workers the cluster has room for.
        searches: how many there are that want the same resource, this one included.
    """

    workers: int
    room: int
    searches: int


class Seat:
    """Says in a thread of its own what a search wants, until it is left.

    A driver says so while it does other things than evaluate, too: what it holds stays its own.

    Args:
        resource: "CPU" or "GPU".
        need: of one worker.
        most: workers at most; None: as many as there is room for.
        follow: called in that thread with every answer.

    Attributes:
        share: as it was said last; None before the first answer.
    """

    def __init__(
        self, resource: str, need: float, most: int | None, follow: Callable[[Share], None]
    ) -> None:
        self.share: Share | None = None
        self._follow = follow
        self._claim = uuid.uuid4().hex, resource, need, most
        self._placed = threading.Event()
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> Share | None:
        """The share, after so many seconds or as soon as there is a worker in it."""
        self._placed.wait(seconds)
        return self.share

    def leave(self, wait: bool = True) -> None:
        """Give the share back. wait: until that is said; no use where the cluster is gone."""
        self._left.set()
        if wait:
            self._thread.join(ANSWER_SECONDS)

    def _keep(self) -> None:
        table: Any = None
        while not self._left.is_set():
            try:
                table = table or _table()
                held = self.share.workers if self.share else None
                answer = ray.get(table.say.remote(*self._claim, held), timeout=ANSWER_SECONDS)
            except Exception:  # the table or its node died, or nothing answers: asked again
                table = None
            else:
                self.share = Share(*answer) if answer else self.share
                if self.share:
                    self._heard(self.share)
            self._left.wait(BEAT_SECONDS)
        if table is not None and _is_connected():
            with contextlib.suppress(Exception):  # it will be found out
                ray.get(table.leave.remote(self._claim[0]), timeout=BEAT_SECONDS)

    def _heard(self, share: Share) -> None:
        if share.workers:
            self._placed.set()
        with contextlib.suppress(RayError):  # for the driver to find out
            self._follow(share)


class Table:
    """The Ray actor: tells every search its share of what the cluster has."""

    def __init__(self) -> None:
        self._born = time.monotonic()
        self._claims: dict[str, tuple[str, Demand, bool, float]] = {}
        """Resource, demand, whether it has any worker, and until when that is believed."""

    def say(
        self, search: str, resource: str, need: float, most: int | None, held: int | None
    ) -> tuple[int, int, int] | None:
        """A search wants so many workers.

        Args:
            search: any name that no other one has.
            resource, need, most: as for `Seat`.
            held: the share that it was told last; None where this is the first time.

        Returns:
            What a `Share` is made of; None where it is not known yet whether it may have more.
        """
        now = time.monotonic()
        self._claims[search] = resource, Demand(need, most), bool(held), now + LEASE_SECONDS
        self._claims = {name: each for name, each in self._claims.items() if each[3] > now}
        # In the order in which they came, but who waits stays behind who has workers: a new table
        # does not know who came first.
        rivals = sorted(
            (name for name, each in self._claims.items() if each[0] == resource),
            key=lambda name: not self._claims[name][2],
        )
        nodes = what_nodes_have(resource)
        shares = fair_shares(tuple(self._claims[name][1] for name in rivals), nodes)
        workers = shares[rivals.index(search)]
        if held is not None and workers > held and now < self._born + YOUNG_SECONDS:
            return None
        return workers, room_for(need, nodes), len(rivals)

    def leave(self, search: str) -> None:
        """A search wants nothing any more; the last one takes the table with it."""
        self._claims.pop(search, None)
        if not self._claims:
            ray.actor.exit_actor()


def what_nodes_have(resource: str) -> Nodes:
    """What each living node has of a resource, "CPU" or "GPU"."""
    amounts = [n["Resources"].get(resource, 0.0) for n in ray.nodes() if n["Alive"]]
    if resource == "CPU":
        return tuple((amount,) for amount in amounts)
    return tuple((1.0,) * int(amount) for amount in amounts)


def _table() -> Any:
    """The table of this cluster, made where there is none.

    Raises:
        ConnectionError: the cluster is lost, or left: Ray would wait, or start one here.
    """
    if not _is_connected():
        raise ConnectionError
    return (
        ray.remote(Table)
        .options(
            name=NAME, namespace=NAMESPACE, lifetime="detached", get_if_exists=True, num_cpus=0
        )
        .remote()
    )


def _is_connected() -> bool:
    return ray.is_initialized() and what_is_lost() is None
