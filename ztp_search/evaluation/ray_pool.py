"""Tasks evaluated by Ray actors: one per GPU, per share of one, or per group of CPU cores."""

from __future__ import annotations

import collections
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from ztp_search.data import ImageStore
from ztp_search.errors import WorkerError, ZtpError
from ztp_search.evaluation.ray_cluster import (
    actor_class,
    connect,
    disconnect,
    end_workers,
    start_workers,
)
from ztp_search.evaluation.tasks import CACHE_BYTES, Job, Results, Task
from ztp_search.events import Event, Retry
from ztp_search.objectives import Distributions

MAX_DEATHS = 3
"""A task that has taken this many workers down with it is given up."""
CACHE_SHARE = 0.25
"""The most of a worker's share of Ray's memory that CACHE_BYTES takes."""
QUEUED_PER_WORKER = 2
"""Tasks a worker has at hand: one running, one waiting, so that it never idles on the driver."""


class RayPool:
    """Ray actors, started here or on the cluster at `address`.

    A dead worker is replaced by a new one and its tasks are given out again. That is done here
    rather than by Ray: with `max_task_retries=0`, tasks that are sent to an actor while Ray
    restarts it fail at once.

    Args:
        job: what every worker holds.
        workers: how many actors; None starts one per share of a GPU, or per `threads` CPU cores.
        gpus_per_worker: share of a GPU that one worker takes.
        address: of a running Ray cluster; None starts one here.
        tell: told of workers that have died.

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
        self._actors: list[Any] = []
        self._connected = connect(address, job.runtime.threads, workers if not on_gpu else None)
        try:
            resources = ray.cluster_resources()
            share = {"num_gpus": gpus_per_worker} if on_gpu else {"num_cpus": job.runtime.threads}
            available = resources.get("GPU" if on_gpu else "CPU", 0.0)
            need = gpus_per_worker if on_gpu else float(job.runtime.threads)
            if need < 1:  # a worker's share lies on one GPU
                most = int(available) * int(1 / need + 1e-9)
            else:
                most = int(available / need + 1e-9)
            self.workers = max(1, most) if workers is None else workers
            if self.workers > most:  # Ray would wait for ever
                share_of = "`gpus_per_worker`" if on_gpu else "`threads`"
                raise ZtpError(
                    f"`workers` {self.workers} with {share_of} {need:g} needs "
                    f"{self.workers * need:g} {'GPUs' if on_gpu else 'CPU cores'}, but Ray has "
                    f"{available:g}; use "
                    + (f"`workers` {most}" if most else f"a smaller {share_of}")
                )
            if job.cache_bytes is None:
                each = resources.get("memory", math.inf) / self.workers
                job = replace(job, cache_bytes=int(min(CACHE_BYTES, CACHE_SHARE * each)))
            self._job = ray.put(job)  # kept here: a worker may have to be made again
            stored: dict[str, Any] = {}
            if len(ray.nodes()) > 1 or address is not None:  # other machines have no such files
                stored = {
                    name: ray.put(np.array(ImageStore.open(path).images))
                    for name, path in job.image_paths.items()
                }
            self._stored = stored
            self._targets: dict[str, Any] = {}  # in Ray's object store
            self._class = actor_class(**share)
            self._actors = start_workers(self.workers, **share)
            for actor in self._actors:
                actor.hold.remote(self._job, self._stored)
            self._running: dict[Any, tuple[Task, int]] = {}
            self._load = np.zeros(self.workers, np.int64)
            self._deaths: collections.Counter[Task] = collections.Counter()
        except BaseException:
            self.close()
            raise

    @property
    def room(self) -> int:
        return QUEUED_PER_WORKER * self.workers - len(self._running)

    @property
    def free(self) -> int:
        return int(self._load.argmin())

    def hold_targets(self, image_set: str, targets: Distributions) -> None:
        self._targets[image_set] = ray.put(targets)
        for actor in self._actors:
            actor.hold_targets.remote(image_set, self._targets[image_set])

    def submit(self, task: Task, worker: int) -> None:
        reference = self._actors[worker].run.remote(task)
        self._running[reference] = (task, worker)
        self._load[worker] += 1

    def finished(self) -> list[tuple[Task, Results]]:
        done: list[tuple[Task, Results]] = []
        while not done:
            waiting = list(self._running)
            ready, _ = ray.wait(waiting, num_returns=1)
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
            for reference in ready:
                task, worker = self._running.get(reference, (None, 0))
                if task is None:  # given out again, as its worker died
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
                    self._replace(worker)
                else:
                    del self._running[reference]
                    self._load[worker] -= 1
                    done.append((task, results))
        return done

    def pids(self) -> list[int]:
        """Process ids of the workers."""
        pids: list[int] = ray.get([actor.pid.remote() for actor in self._actors])
        return pids

    def close(self) -> None:
        """End the workers, and Ray where this pool has connected to it."""
        if self._connected:
            disconnect()
        else:
            end_workers(self._actors)

    def _start(self) -> Any:
        actor = self._class.remote()
        actor.hold.remote(self._job, self._stored)
        for image_set, targets in self._targets.items():
            actor.hold_targets.remote(image_set, targets)
        return actor

    def _replace(self, worker: int) -> None:
        """Start a worker in place of a dead one; what that did not finish is given out again.

        Tasks run in the order of submission, so the first that failed is the one that ran.
        """
        ray.kill(self._actors[worker])  # where it was only out of reach
        self._actors[worker] = self._start()
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
        self._load[worker] -= len(lost)
        for task in lost:
            self.submit(task, worker)
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
