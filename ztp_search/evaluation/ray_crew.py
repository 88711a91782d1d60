"""The Ray actors of a pool: which of them are there, and how much each has in hand."""

from __future__ import annotations

import collections
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from ztp_search.evaluation.ray_cluster import actor_class, end_workers

MAX_FAILED_STARTS = 3
"""A worker that fails so often when it starts is started no more."""
QUEUED_PER_WORKER = 2
"""Tasks a worker has at hand: one running, one waiting, so that it never idles on the driver."""


class Crew:
    """Workers, by number.

    Some are absent: they are yet to start, or the cluster has no place for them. Some are leaving:
    they are given no more tasks, and end when they have nothing in hand. The number of a worker
    that has ended is given to another.

    Args:
        share: what a worker takes of the machine (num_cpus or num_gpus).
        furnish: has an actor hold what tasks need.

    Attributes:
        actors: by number; None where a worker has ended.
        load: tasks in hand, by number.
    """

    def __init__(self, share: Mapping[str, float], furnish: Callable[[Any], None]) -> None:
        self.actors: list[Any] = []
        self.load = np.zeros(0, np.int64)
        self._absent: dict[int, Any] = {}  # answers that are waited for
        self._nodes: dict[int, str] = {}  # where they are, as far as they have told
        self._leaving: set[int] = set()
        self._failed_starts: collections.Counter[int] = collections.Counter()
        self._class = actor_class(**share)
        self._furnish = furnish
        self._count()

    def begin(self, actors: Sequence[Any], placed: bool) -> None:
        """Begin with actors that have been started.

        placed: the cluster has a place for all of them, so that they are there as good as now.
        """
        self.actors = list(actors)
        self.load = np.zeros(len(actors), np.int64)
        for worker, actor in enumerate(actors):
            self._furnish(actor)
            if not placed:
                self._absent[worker] = actor.node.remote()
        self._count()

    @property
    def living(self) -> list[Any]:
        """Those that have not ended."""
        return [actor for actor in self.actors if actor is not None]

    @property
    def size(self) -> int:
        """How many there are, absent ones too, without those that are leaving."""
        return len(self._staying)

    @property
    def present(self) -> int:
        """How many of these are not absent."""
        return len(self._staying) - len(self._absent)

    @property
    def room(self) -> int:
        """How many more tasks there are hands for; one in all where nobody has come yet."""
        usable = self._usable  # which another thread may change
        return (QUEUED_PER_WORKER * self.present or 1) - int(self.load[usable].sum())

    @property
    def free(self) -> int:
        """The worker with least in hand; an absent one where all are."""
        usable = self._usable
        return int(usable[self.load[usable].argmin()])

    def takes(self, worker: int) -> bool:
        """Whether it may be given a task now."""
        return bool((self._usable == worker).any())

    def welcome(self) -> Iterator[int]:
        """Those that have come since the last time."""
        for worker, answer in list(self._absent.items()):
            if not ray.wait([answer], timeout=0)[0]:
                continue
            try:
                self._nodes[worker] = ray.get(answer)
            except RayError:
                if self.load[worker]:  # it was all there was; its tasks say what is wrong
                    del self._absent[worker]
                    self._count()
                elif self._failed_starts[worker] < MAX_FAILED_STARTS:
                    self._failed_starts[worker] += 1
                    self._start(worker)
            else:
                del self._absent[worker]
                self._count()
                yield worker

    def resize(self, size: int) -> list[int]:
        """Start workers, or have some leave, so that `size` stay: at least one.

        Returns:
            Those that had not come yet, are ended now and have tasks in hand.
        """
        surplus = max(0, self.size - size)
        leaving = self._first_to_go()[:surplus]
        ended = [worker for worker in leaving if worker in self._absent]
        self._leaving.update(leaving)
        for worker in ended:
            self._end(worker)
        self._count()
        while self.size < size:
            if self._leaving:
                self._leaving.remove(min(self._leaving))
                self._count()
            else:
                self._start(self._unused())
        return [worker for worker in ended if self.load[worker]]

    def dismiss(self, busy: Collection[int]) -> None:
        """End those that are leaving, but for those that are busy."""
        for worker in self._leaving.difference(busy):
            self._end(worker)

    def replace(self, worker: int) -> None:
        """A worker has died: start another in its place, unless it was leaving or has left."""
        if self.actors[worker] is None:
            return
        ray.kill(self.actors[worker])  # where it was only out of reach
        if worker in self._leaving:
            self._end(worker)
        else:
            self._start(worker)

    def end(self) -> None:
        """End them all."""
        end_workers(self.living)

    def _start(self, worker: int) -> None:
        """Start a worker; it is absent until it answers."""
        actor = self.actors[worker] = self._class.remote()
        self._furnish(actor)
        self._absent[worker] = actor.node.remote()
        self._count()

    def _end(self, worker: int) -> None:
        end_workers([self.actors[worker]])
        self.actors[worker] = None
        self._absent.pop(worker, None)
        self._leaving.discard(worker)

    def _first_to_go(self) -> list[int]:
        """Who stays now, those first that have not come; then node by node, those with fewest
        first, so that there is room for workers that take more of a node."""
        present = [worker for worker in self._staying.tolist() if worker not in self._absent]
        on_node = collections.Counter(self._nodes.get(worker, "") for worker in present)

        def order(worker: int) -> tuple[int, str, int]:
            node = self._nodes.get(worker, "")
            return on_node[node], node, -worker

        return sorted(self._absent, reverse=True) + sorted(present, key=order)

    def _unused(self) -> int:
        if None not in self.actors:
            self.actors.append(None)
            self.load = np.append(self.load, 0)
        return self.actors.index(None)

    def _count(self) -> None:
        """Who stays, and who of these is there; all of them where nobody is."""
        staying = [
            worker for worker, actor in enumerate(self.actors)
            if actor is not None and worker not in self._leaving
        ]  # fmt: skip
        present = [worker for worker in staying if worker not in self._absent]
        self._staying = np.array(staying, np.int64)
        self._usable = np.array(present or staying, np.int64)
