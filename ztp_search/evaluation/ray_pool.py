"""Tasks evaluated by Ray actors: one per GPU, per share of one, or per group of CPU cores."""

from __future__ import annotations

import collections
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from ztp_search.data import ImageStore
from ztp_search.errors import OutageError, WorkerError, ZtpError
from ztp_search.evaluation.ray_cluster import (
    abandon,
    connect,
    disconnect,
    is_of_this_process,
    start_workers,
    what_is_lost,
)
from ztp_search.evaluation.ray_crew import Crew
from ztp_search.evaluation.ray_seat import Seat, Share, what_nodes_have
from ztp_search.evaluation.shares import room_for
from ztp_search.evaluation.tasks import CACHE_BYTES, Job, Results, Task
from ztp_search.events import Event, Joined, Restarted, Retry, Shared
from ztp_search.objectives import Distributions

MAX_DEATHS = 3
"""A task that has taken this many workers down with it is given up."""
CACHE_SHARE = 0.25
"""The most of a worker's share of Ray's memory that CACHE_BYTES takes."""
RESOURCES = {"num_cpus": "CPU", "num_gpus": "GPU"}
"""What Ray calls the whole of which a worker takes a share."""
LOOK_SECONDS = 2.0
"""How often it is seen to whether Ray is still there."""
PATIENCE = 30.0
"""Seconds after which a cluster that does not answer is given up: Ray's client ends the process
after a minute."""
MAX_RESTARTS = 3
"""A Ray of our own that dies so often is given up."""


class RayPool:
    """Ray actors, started here or on the cluster at `address`.

    A dead worker is replaced by a new one and its tasks are given out again. That is done here
    rather than by Ray: with `max_task_retries=0`, tasks that are sent to an actor while Ray
    restarts it fail at once. Until the new one is there, which on a cluster that has lost a node
    may take long, the others do its work. A Ray that was started here and dies is started again.

    On a cluster at `address`, which other searches may use too, it has as many workers as are this
    search's share at the time. It learns that in a thread, and follows it there.

    Args:
        job: what every worker holds.
        workers: how many actors; None starts one per share of a GPU, or per `threads` CPU cores.
        gpus_per_worker: share of a GPU that one worker takes.
        address: of a running Ray cluster; None starts one here.
        tell: told of workers that have died or joined, and of the share.

    Raises:
        ZtpError: the cluster does not answer, or has no room for so many workers.
    """

    def __init__(
        self,
        job: Job,
        workers: int | None = None,
        *,
        gpus_per_worker: float = 1.0,
        address: str | None = None,
        tell: Callable[[Event], object] = lambda _: None,
    ) -> None:
        self._tell = tell
        on_gpu = job.runtime.device != "cpu"
        self._address = address
        self._started_with = job.runtime.threads, workers if not on_gpu else None
        self._lock = threading.RLock()  # of what follows, as shares change at any time
        self._targets: dict[str, Distributions] = {}
        self._running: dict[Any, tuple[Task, int]] = {}
        self._deaths: collections.Counter[Task] = collections.Counter()
        self._restarts = 0
        self._looked = time.monotonic()
        self._lost_since: float | None = None
        self._share: Share | None = None
        self._seat: Seat | None = None
        self._takes = {"num_gpus": gpus_per_worker} if on_gpu else {"num_cpus": job.runtime.threads}
        self._crew = Crew(self._takes, self._furnish)
        ((name, need),) = self._takes.items()
        self._connected = connect(address, *self._started_with)
        try:
            nodes = what_nodes_have(RESOURCES[name])
            room = room_for(need, nodes)
            if workers is not None and workers > room:  # Ray would wait for ever
                if lost := what_is_lost():
                    raise OutageError(f"Ray is gone: {lost.what}")
                share_of = "`gpus_per_worker`" if on_gpu else "`threads`"
                raise ZtpError(
                    f"`workers` {workers} with {share_of} {need:g} needs "
                    f"{workers * need:g} {'GPUs' if on_gpu else 'CPU cores'}, but Ray has "
                    f"{sum(map(sum, nodes)):g}{f' on {len(nodes)} nodes' if len(nodes) > 1 else ''}"
                    "; use " + (f"`workers` {room}" if room else f"a smaller {share_of}")
                )
            count = max(1, room) if workers is None else workers
            if job.cache_bytes is None:
                beside = count if address is None else max(1, room)  # those of other searches too
                each = ray.cluster_resources().get("memory", math.inf) / beside
                job = replace(job, cache_bytes=int(min(CACHE_BYTES, CACHE_SHARE * each)))
            self._job = job
            if address is not None:
                self._seat = Seat(RESOURCES[name], need, workers, self._follow)
                count = self._first_share(self._seat, count)
            self._hand_out(count)
        except BaseException:
            self.close()
            raise

    def _first_share(self, seat: Seat, alone: int) -> int:
        """Wait for a worker, where searches have come before; how many there are to begin with.

        alone: how many where nobody tells.
        """
        patience = time.monotonic() + PATIENCE
        while True:
            share = seat.wait(LOOK_SECONDS)
            self._tell_share(share)
            if share is None:
                if time.monotonic() > patience:
                    return alone
            elif share.workers or not share.room:  # a cluster without room may make some
                return max(1, share.workers)
            else:
                start_workers(0, **self._takes)  # those that were started early take none's place
            self._look()

    def _hand_out(self, count: int) -> None:
        """Start all workers, and have them hold what they need."""
        self._kept = ray.put(self._job)  # a worker may have to be made again
        self._stored: dict[str, Any] = {}
        if len(ray.nodes()) > 1 or self._address is not None:  # other machines have no such files
            self._stored = {
                name: ray.put(np.array(ImageStore.open(path).images))
                for name, path in self._job.image_paths.items()
            }
        self._kept_targets = {name: ray.put(each) for name, each in self._targets.items()}
        self._crew = Crew(self._takes, self._furnish)
        self._crew.begin(start_workers(count, **self._takes), placed=self._seat is None)

    @property
    def workers(self) -> int:
        return self._crew.size

    @property
    def room(self) -> int:
        return self._crew.room

    @property
    def free(self) -> int:
        return self._crew.free

    def hold_targets(self, image_set: str, targets: Distributions) -> None:
        self._targets[image_set] = targets
        self._kept_targets[image_set] = ray.put(targets)
        with self._lock:
            for actor in self._crew.living:
                actor.hold_targets.remote(image_set, self._kept_targets[image_set])

    def submit(self, task: Task, worker: int) -> None:
        with self._lock:
            if not self._crew.takes(worker):  # any more
                worker = self.free
            reference = self._crew.actors[worker].run.remote(task)
            self._running[reference] = (task, worker)
            self._crew.load[worker] += 1

    def finished(self) -> list[tuple[Task, Results]]:
        done: list[tuple[Task, Results]] = []
        while not done:
            waiting = list(self._running)
            ready, _ = ray.wait(waiting, num_returns=1, timeout=LOOK_SECONDS)
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
            with self._lock:
                self._welcome()
                done = self._taken_in(ready)
            if not done or time.monotonic() > self._looked + LOOK_SECONDS:
                self._look()
        return done

    def _taken_in(self, ready: Sequence[Any]) -> list[tuple[Task, Results]]:
        """The results of tasks that have ended; what died is replaced."""
        done: list[tuple[Task, Results]] = []
        for reference in ready:
            task, worker = self._running.get(reference, (None, 0))
            if task is None:  # given out again, as its worker died or left
                continue
            try:
                results: Results = ray.get(reference)
            except RayTaskError as error:
                cause = error.cause if isinstance(error.cause, Exception) else error
                raise WorkerError(
                    f"evaluating {_names(task)} failed: "
                    f"{type(cause).__name__}: {(str(cause).splitlines() or ['no message'])[0]}"
                ) from error
            except RayError:  # worker or node died, memory ran out, object lost
                if what_is_lost():
                    break
                self._replace(worker)
            else:
                del self._running[reference]
                self._crew.load[worker] -= 1
                done.append((task, results))
        return done

    def pids(self) -> list[int]:
        """Process ids of the workers."""
        pids: list[int] = ray.get([actor.pid.remote() for actor in self._crew.living])
        return pids

    def close(self) -> None:
        """End the workers, and Ray where this pool has connected to it."""
        if self._seat is not None:
            self._seat.leave(wait=what_is_lost() is None)
        if self._connected:
            disconnect()
        else:
            self._crew.end()

    def _look(self) -> None:
        """See to a Ray that is lost.

        A Ray that was started here is started again, and all tasks are given out again. A cluster
        may come back; its workers go on for a while without its head.

        Raises:
            OutageError: the cluster stays away, or Ray dies again and again.
        """
        lost = what_is_lost()
        now = self._looked = time.monotonic()
        if lost is None:
            self._lost_since = None
            return
        if not is_of_this_process():
            self._lost_since = self._lost_since or now
            if not lost.for_good and now < self._lost_since + PATIENCE:
                return
            abandon()
            self._connected, self._crew = False, Crew(self._takes, self._furnish)
            raise OutageError(f"the Ray cluster is gone: {lost.what}")
        self._restarts += 1
        if self._restarts >= MAX_RESTARTS:
            raise OutageError(f"Ray died {MAX_RESTARTS} times: {lost.what}")
        disconnect()
        connect(None, *self._started_with)
        tasks = list(self._running.values())
        self._running.clear()
        self._hand_out(self.workers)
        self._tell(Restarted(len(tasks), lost.what))
        for task, worker in tasks:
            self.submit(task, worker)

    def _welcome(self) -> None:
        """Take in workers that have come, and tell of the share."""
        if self._seat is not None:
            self._tell_share(self._seat.share)
        for worker in self._crew.welcome():
            self._tell(Joined(worker, self._crew.present))

    def _follow(self, share: Share) -> None:
        """Have as many workers as are this search's share: one at least, as it has begun.

        Called in another thread, now and then: a driver that is busy with something else keeps no
        worker that has nothing to do from other searches.
        """
        with self._lock:
            if not self._crew.size:  # it has not begun, or it has ended
                return
            for worker in self._crew.resize(max(1, share.workers)):
                self._crew.load[worker] = 0
                for reference, (task, at) in list(self._running.items()):
                    if at == worker:
                        del self._running[reference]
                        self.submit(task, self.free)
            ended: set[Any] = set()
            if running := list(self._running):
                ended.update(ray.wait(running, num_returns=len(running), timeout=0)[0])
            self._crew.dismiss({self._running[each][1] for each in running if each not in ended})

    def _tell_share(self, share: Share | None) -> None:
        before, self._share = self._share, share
        if share is not None and share != before:
            if share.searches > 1 or (before is not None and before.searches > 1):
                self._tell(Shared(share.workers, share.room, share.searches))

    def _furnish(self, actor: Any) -> None:
        """Have a worker hold model, images and targets."""
        actor.hold.remote(self._kept, self._stored)
        for image_set, targets in self._kept_targets.items():
            actor.hold_targets.remote(image_set, targets)

    def _replace(self, worker: int) -> None:
        """Start a worker in place of a dead one; others are given what that did not finish.

        Tasks run in the order of submission, so the first that failed is the one that ran.
        """
        self._crew.replace(worker)
        mine = [ref for ref, (_, at) in self._running.items() if at == worker]
        ray.wait(mine, num_returns=len(mine))
        lost: list[Task] = []
        reason = ""
        for reference in mine:
            try:
                ray.get(reference)
            except RayTaskError:
                continue  # for `finished` to raise
            except RayError as error:
                task, _ = self._running.pop(reference)
                if not lost:
                    reason = _line(error)
                    self._count_death(task, reason)
                lost.append(task)
        self._crew.load[worker] -= len(lost)
        for task in lost:
            self.submit(task, self.free)
        if lost:
            kind, number = lost[0].keys[0]
            trial = number if kind == "trial" else None
            self._tell(Retry(trial, len(lost), worker, self._deaths[lost[0]], reason))

    def _count_death(self, task: Task, line: str) -> None:
        self._deaths[task] += 1
        if self._deaths[task] >= MAX_DEATHS:
            raise WorkerError(
                f"{MAX_DEATHS} workers died one after the other on {_names(task)} "
                f"(images {task.images.start} to {task.images.stop}): {line}"
            )


def _line(error: Exception) -> str:
    """What Ray says of a death, in a line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1 if "creation task" in lines[0] else 0]  # that of its own error


def _names(task: Task) -> str:
    kind, first = task.keys[0]
    rest = f" and {len(task.keys) - 1} more" if len(task.keys) > 1 else ""
    return f"{kind} {first}{rest}"
