"""How many workers one driver keeps busy: workers that sleep, everything else is real.

    python benchmarks/simulated_pool.py [--workers 64 256 512 1024] [--trials 10000] [--images 2000]
        [--pools plain ray]

The driver samples, builds tasks, takes in results, races and writes to SQLite as in a search;
only a worker's 0.2 s per image range and configuration is a pause. Pools: `plain` keeps the
sleepers in a list, so that the driver alone is measured; `ray` is the search's own pool of Ray
actors, whose sleepers share a few processes, as hundreds do not fit this machine. Busy: the time
workers spend on tasks, of workers times wall time, from the first task to the last; also for the
first rung alone, where every trial is new. Where the driver's own time goes says what gives way
first. To reach: 256 workers 95 % busy.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import itertools
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias, cast

import numpy as np
import ray
import timm
from common import record

from ztp_search.backbones import geometry_of
from ztp_search.backbones.loading import LoadedModel
from ztp_search.driver.evaluator import Evaluator
from ztp_search.driver.progress import Progress, Status
from ztp_search.driver.trials import TrialRunner
from ztp_search.evaluation.model_runner import RangeResult
from ztp_search.evaluation.origin import Origin
from ztp_search.evaluation.ray_cluster import connect
from ztp_search.evaluation.ray_crew import QUEUED_PER_WORKER, Crew
from ztp_search.evaluation.ray_pool import RayPool
from ztp_search.evaluation.runtime import Runtime
from ztp_search.evaluation.tasks import Results, Task
from ztp_search.objectives import Distributions
from ztp_search.pruning.budget import parse_budget
from ztp_search.racing import RACING, first_rung
from ztp_search.settings import WorkerOptions
from ztp_search.space import load_space
from ztp_search.space.decoder import Decoder
from ztp_search.study import StudyDriver

CLASSES = 10
BATCH_SIZE = 64
ORIGIN = Origin("simulated", "fp32", BATCH_SIZE)
SLEEPERS = 128
"""Workers of one process."""


class SleepingPool:
    """Workers that take `seconds` per configuration of a task."""

    def __init__(self, workers: int, seconds: float, labels: np.ndarray[Any, Any]) -> None:
        self.workers = workers
        self.seconds = seconds
        self.labels = labels
        self.busy = 0.0
        self.tasks = 0
        self.began = self.ended = 0.0
        self._free_at = [0.0] * workers
        self._free = [(0.0, w) for w in range(workers)]  # when each will have done all it has
        self._done: list[tuple[float, int, Task]] = []

    def hold_targets(self, image_set: str, targets: Distributions) -> None: ...

    @property
    def room(self) -> int:
        return QUEUED_PER_WORKER * self.workers - len(self._done)

    @property
    def free(self) -> int:
        return self._free[0][1]

    def submit(self, task: Task, worker: int) -> None:
        now = time.perf_counter()
        self.began = self.began or now
        free_at, least = heapq.heappop(self._free)
        assert least == worker
        end = max(now, free_at) + self.seconds * len(task.keys)
        heapq.heappush(self._free, (end, worker))
        self.tasks += 1
        heapq.heappush(self._done, (end, self.tasks, task))

    def finished(self) -> list[tuple[Task, Results]]:
        time.sleep(max(0.0, self._done[0][0] - time.perf_counter()))
        now = time.perf_counter()
        out: list[tuple[Task, Results]] = []
        while self._done and self._done[0][0] <= now:
            end, _, task = heapq.heappop(self._done)
            self.busy += self.seconds * len(task.keys)
            self.ended = end
            out.append((task, results_of(task, self.labels, self.seconds)))
        return out

    def close(self) -> None: ...


class Sleepers:
    """A Ray actor in which many workers sleep, each one task after the other."""

    def __init__(self, workers: int, seconds: float, labels: np.ndarray[Any, Any]) -> None:
        self.seconds = seconds
        self.labels = labels
        self.turn = [asyncio.Lock() for _ in range(workers)]

    async def run(self, worker: int, task: Task) -> Results:
        async with self.turn[worker]:
            end = time.perf_counter() + self.seconds * len(task.keys)
            results = results_of(task, self.labels, self.seconds)
            await asyncio.sleep(end - time.perf_counter())
            return results


class SleepingRayPool(RayPool):
    """The search's pool on such actors."""

    def __init__(self, workers: int, seconds: float, labels: np.ndarray[Any, Any]) -> None:
        self._connected = connect(None, 1, None)
        self._tell = print
        self._seat = None
        self._lock = threading.RLock()
        self.seconds = seconds
        self.busy = 0.0
        self.tasks = 0
        self.began = self.ended = 0.0
        actor = ray.remote(num_cpus=0, max_concurrency=QUEUED_PER_WORKER * SLEEPERS)(Sleepers)
        hubs = [actor.remote(SLEEPERS, seconds, labels) for _ in range(0, workers, SLEEPERS)]
        actors = [
            SimpleNamespace(
                run=SimpleNamespace(remote=partial(hubs[w // SLEEPERS].run.remote, w % SLEEPERS))
            )
            for w in range(workers)
        ]
        ray.get([hub.__ray_ready__.remote() for hub in hubs])
        self._running = {}
        self._looked = time.monotonic()
        self._crew = Crew({"num_cpus": 1}, lambda _: None)
        self._crew.begin(actors, placed=True)

    def submit(self, task: Task, worker: int) -> None:
        self.began = self.began or time.perf_counter()
        self.tasks += 1
        super().submit(task, worker)

    def finished(self) -> list[tuple[Task, Results]]:
        out = super().finished()
        self.busy += self.seconds * sum(len(task.keys) for task, _ in out)
        self.ended = time.perf_counter()
        return out


def results_of(task: Task, labels: np.ndarray[Any, Any], seconds: float) -> Results:
    """A configuration's accuracy follows from its number, so racing has something to decide."""
    out = []
    for _, number in task.keys:
        generator = np.random.default_rng([number, task.images.start])
        wrong = generator.random(len(task.images)) < 0.05 + 0.1 * ((number * 37 % 100) / 100)
        right = labels[task.images.start : task.images.stop]
        predictions = np.where(wrong, (right + 1) % CLASSES, right).astype(np.int32)
        losses = np.where(wrong, 30_000, generator.integers(0, 3_000, len(wrong)))
        out.append(RangeResult(predictions, 0, seconds, ORIGIN, losses.astype(np.uint16)))
    return out


Simulated: TypeAlias = SleepingPool | SleepingRayPool
POOLS: dict[str, type[Simulated]] = {"plain": SleepingPool, "ray": SleepingRayPool}


class Timed:
    """Adds up the processor time of calls by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def wrap(self, owner: Any, method: str, name: str) -> None:
        plain: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return plain(*args, **kwargs)
            finally:
                spent = time.thread_time() - began
                self.seconds[name] = self.seconds.get(name, 0.0) + spent

        setattr(owner, method, timed)


class FirstRung(Progress):
    """Notes how busy workers were on the first rung of the last cohort.

    The hand-set schedules are a cohort of their own before it, too few to keep anybody busy.
    """

    def __init__(self, pool: Simulated) -> None:
        self.pool = pool
        self.busy: float | None = None
        self._on_it = False
        self._since = (0.0, 0.0)

    def trials(self, status: Status) -> None:
        busy, now = self.pool.busy, time.perf_counter()
        if status.rung == 1 and not self._on_it:
            self._since = busy, now
        if status.rung > 1 and self._on_it:
            busy_before, began = self._since
            self.busy = (busy - busy_before) / (self.pool.workers * (now - began))
        self._on_it = status.rung == 1


class SleepingEvaluator(Evaluator):
    """The search's own evaluator on such a pool, with labels in place of images."""

    def __init__(
        self, pool: Simulated, model: Any, labels: np.ndarray[Any, Any], progress: Progress
    ) -> None:
        sources: Any = None
        images: Any = SimpleNamespace(search=labels, holdout=labels)
        loaded = LoadedModel(model, {}, "")
        runtime = Runtime("cpu", "fp32", BATCH_SIZE)
        super().__init__(
            sources, loaded, images, runtime, "top1", WorkerOptions(), progress, "total-variation"
        )
        self.sleeping = pool
        wrong = np.random.default_rng(1).random(len(labels)) < 0.05
        self.use_unpruned("search", np.where(wrong, -1, labels).astype(np.int32))

    def pool(self) -> Simulated:
        return self.sleeping

    def hold_targets(self) -> None:
        """Losses are made up."""

    def labels(self, image_set: str) -> np.ndarray[Any, Any]:
        labels: Any = self.images.search
        return cast(np.ndarray[Any, Any], labels)


def simulate(
    kind: str, workers: int, seconds: float, trials: int, images: int, racing: str
) -> dict[str, Any]:
    """A search of so many trials with so many sleeping workers."""
    space = load_space("deit_small")
    model = timm.create_model("deit_small_patch16_224")
    geometry = geometry_of(model)
    decoder = Decoder(space, geometry, parse_budget("67%", geometry))
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, images)
    pool = POOLS[kind](workers, seconds, labels)
    progress = FirstRung(pool)
    evaluator = SleepingEvaluator(pool, model, labels, progress)
    timed = Timed()
    with tempfile.TemporaryDirectory() as folder:
        study = StudyDriver.open(
            f"sqlite:///{Path(folder) / 'studies.db'}", "simulated", {},
            blocks=[block.block for block in decoder.blocks], ranges=decoder.parameter_ranges(),
        )  # fmt: skip
        settings: Any = SimpleNamespace(
            trials=trials, refine=0, sampler="monte-carlo", racing=racing, candidates=5,
            enqueued={}, sources=SimpleNamespace(seed=0), max_failures=None,
        )  # fmt: skip
        first = first_rung(BATCH_SIZE, losses=True, on_cpu=False)
        rungs = RACING[racing].rungs(images, first)
        search = TrialRunner(settings, evaluator, study, decoder, rungs, None)
        timed.wrap(study, "start", "database")
        timed.wrap(study, "update", "database")
        timed.wrap(search.samplers["monte-carlo"], "propose", "sampling")
        timed.wrap(pool, "submit", "giving out tasks")
        timed.wrap(pool, "finished", "taking in results")
        began = time.thread_time()
        search.run()
        driver = time.thread_time() - began
        study.close()
    pool.close()
    wall = pool.ended - pool.began
    spent = {**timed.seconds, "all else": driver - sum(timed.seconds.values())}
    return {
        "pool": kind,
        "workers": workers,
        "seconds_per_range": seconds,
        "trials": trials,
        "racing": racing,
        "tasks": pool.tasks,
        "ranges": round(pool.busy / seconds),
        "wall_seconds": wall,
        "busy": pool.busy / (workers * wall),
        "busy_first_rung": progress.busy,
        "driver_busy": driver / wall,
        "driver_ms_per_range": {
            name: 1e3 * each * seconds / pool.busy for name, each in sorted(spent.items())
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[64, 256, 512, 1024])
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--racing", default="both")
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=list(POOLS))
    args = parser.parse_args()
    rows = []
    for kind, workers in itertools.product(args.pools, args.workers):
        row = simulate(kind, workers, args.seconds, args.trials, args.images, args.racing)
        rows.append(row)
        first = row["busy_first_rung"]
        print(f"{kind:5} {workers:5} workers: {row['busy']:.1%} busy"
              + (f" ({first:.1%} on the first rung)" if first else "")
              + f", driver {row['driver_busy']:.0%} busy, ms per range: "
              + ", ".join(f"{k} {v:.2f}" for k, v in row["driver_ms_per_range"].items()),
              flush=True)  # fmt: skip
    record("simulated_pool", {"arguments": vars(args), "rows": rows})


if __name__ == "__main__":
    main()
