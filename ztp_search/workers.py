"""Pools of workers that evaluate configurations on image blocks. With cluster.py the only file
importing ray.

A worker holds the model and the images and is dumb: it takes a `Task` and returns its results.
Every pool gives the same results, because what could change them (`Runtime`) is the study's.

    InProcessPool   in this process, one task at a time (--workers 0)
    RayPool         one Ray actor per GPU, per share of one, or per group of CPU cores
"""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import ray
import torch
from ray.exceptions import RayError, RayTaskError
from torch import nn

from ztp_search.cluster import actor_class, connect, disconnect, start_workers
from ztp_search.config import PruningConfig
from ztp_search.data import ImageStore
from ztp_search.errors import WorkerError, ZtpError
from ztp_search.evaluate import BlockResult, Evaluator, Runtime

MAX_DEATHS = 3
"""A task that has taken this many workers down with it is given up."""
CACHE_BYTES, CACHE_SHARE = 10**9, 0.25
"""What a worker keeps for later tasks, and the most of its share of Ray's memory that takes."""
QUEUED_PER_WORKER = 2
"""Tasks a worker has at hand: one running, one waiting, so that it never idles on the driver."""


@dataclass(frozen=True, slots=True)
class Task:
    """Evaluate configurations (None: unpruned) on images start to stop of an image set.

    keys: whose results these are, one (kind, number) per configuration.
    """

    keys: tuple[tuple[str, int], ...]
    configs: tuple[PruningConfig | None, ...]
    image_set: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Failure:
    """What cannot be evaluated: the configuration's fault, or too little memory."""

    reason: str
    out_of_memory: bool = False


Results: TypeAlias = Sequence[BlockResult | Failure]
"""One per configuration of a task."""


@dataclass(frozen=True)
class Job:
    """What every worker holds.

    image_paths: folders of image stores by name of the image set. cache_bytes: of every worker;
    None: CACHE_BYTES, or less where workers share little memory.
    """

    model: nn.Module
    image_paths: Mapping[str, Path]
    mean: Sequence[float]
    std: Sequence[float]
    runtime: Runtime
    cache_bytes: int | None = 0

    def evaluator(self, images: Mapping[str, np.ndarray[Any, Any]] | None = None) -> Evaluator:
        """An evaluator on these images, or on the files, memory-mapped."""
        if images is None:
            images = {n: ImageStore.open(path).images for n, path in self.image_paths.items()}
        return Evaluator(
            self.model, images, self.mean, self.std, self.runtime,
            CACHE_BYTES if self.cache_bytes is None else self.cache_bytes,
        )


class Pool(Protocol):
    """What `search` needs of workers."""

    workers: int

    @property
    def room(self) -> int:
        """How many more tasks can be submitted before all workers have enough at hand."""

    @property
    def free(self) -> int:
        """The worker that has least at hand, counted from 0."""

    def submit(self, task: Task, worker: int) -> None: ...

    def finished(self) -> list[tuple[Task, Results]]:
        """Wait for submitted tasks: one at least, and all that are done by then.

        Raises WorkerError where a worker is lost for good; the pool is then only to be closed.
        """

    def close(self) -> None: ...


def evaluate_task(evaluator: Evaluator, task: Task) -> Results:
    """Run a task; what is a configuration's fault or a lack of memory becomes a Failure.

    Without memory it is tried once more, when what is kept for later tasks has been given back;
    then, as without a fitting configuration, one configuration at a time.
    """
    reason = ""
    for _ in range(2):
        try:
            return evaluator.run(task.configs, task.image_set, task.start, task.stop)
        except ZtpError as error:
            if len(task.configs) == 1:
                return [Failure(str(error))]
            break
        except (MemoryError, RuntimeError) as error:
            if not _lacks_memory(error):
                raise
            reason = str(error).splitlines()[0] if str(error) else "out of memory"
        evaluator.forget()  # out here, as the error's traceback holds on to tensors
    else:
        if len(task.configs) == 1:
            return [Failure(reason, out_of_memory=True)]
    return [
        evaluate_task(evaluator, replace(task, keys=(key,), configs=(config,)))[0]
        for key, config in zip(task.keys, task.configs, strict=True)
    ]


def _lacks_memory(error: Exception) -> bool:
    """PyTorch has an exception of its own on GPUs; on CPUs only its words tell."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or "can't allocate memory" in str(error)


class InProcessPool:
    """The same work in this process."""

    workers = 0

    def __init__(self, job: Job) -> None:
        self._threads = torch.get_num_threads()
        self._evaluator = job.evaluator()
        self._tasks: collections.deque[Task] = collections.deque()

    @property
    def room(self) -> int:
        return 1 - len(self._tasks)

    @property
    def free(self) -> int:
        return 0

    def submit(self, task: Task, worker: int) -> None:
        self._tasks.append(task)

    def finished(self) -> list[tuple[Task, Results]]:
        task = self._tasks.popleft()
        return [(task, evaluate_task(self._evaluator, task))]

    def close(self) -> None:
        torch.set_num_threads(self._threads)


class RayPool:
    """Ray actors, started here or on the cluster at `address`.

    workers: how many actors; None takes one per GPU share, or one per `threads` CPU cores.
    In place of a dead worker comes a new one, and its tasks are given out again: here in the
    driver, as tasks sent to an actor that Ray restarts fail at once until it is up again.
    """

    def __init__(
        self,
        job: Job,
        workers: int | None = None,
        *,
        gpus_per_worker: float = 1.0,
        address: str | None = None,
    ) -> None:
        on_gpu = job.runtime.device != "cpu"
        connect(address, job.runtime.threads, workers if not on_gpu else None)
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
                share_of = "--gpus-per-worker" if on_gpu else "--threads"
                raise ZtpError(
                    f"--workers {self.workers} with {share_of} {need:g} needs "
                    f"{self.workers * need:g} {'GPUs' if on_gpu else 'CPU cores'}, but Ray has "
                    f"{available:g}; use "
                    + (f"--workers {most}" if most else f"a smaller {share_of}")
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
        disconnect()

    def _start(self) -> Any:
        actor = self._class.remote()
        actor.hold.remote(self._job, self._stored)
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
        for reference in mine:
            try:
                ray.get(reference)
            except RayTaskError:
                continue  # for `finished` to raise
            except RayError as error:
                task, _ = self._running.pop(reference)
                if not lost:
                    self._count_death(task, error)
                lost.append(task)
        self._load[worker] -= len(lost)
        for task in lost:
            self.submit(task, worker)

    def _count_death(self, task: Task, error: Exception) -> None:
        self._deaths[task] += 1
        if self._deaths[task] >= MAX_DEATHS:
            lines = str(error).strip().splitlines()
            line = lines[-1 if "creation task" in lines[0] else 0]  # that of its own error
            raise WorkerError(
                f"{MAX_DEATHS} workers died one after the other on {_names(task)} "
                f"(images {task.start} to {task.stop}): {line}"
            )


def _names(task: Task) -> str:
    kind, first = task.keys[0]
    rest = f" and {len(task.keys) - 1} more" if len(task.keys) > 1 else ""
    return f"{kind} {first}{rest}"


def open_pool(
    job: Job,
    workers: int | None,
    *,
    gpus_per_worker: float = 1.0,
    address: str | None = None,
) -> Pool:
    """The pool that --workers asks for: 0 in this process, else Ray actors."""
    if workers == 0:
        return InProcessPool(job)
    return RayPool(job, workers, gpus_per_worker=gpus_per_worker, address=address)
