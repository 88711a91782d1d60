"""How many workers one driver keeps busy: workers that sleep, everything else is real.

    python benchmarks/simulated_pool.py [--workers 64 256 512 1024] [--trials 10000] [--images 2000]

The driver samples, builds tasks, takes in results, races and writes to SQLite as in a search;
only a worker's 0.2 s per image block and configuration is a pause. Busy: the time workers spend
on tasks, of workers times wall time, from the first task to the last; also for the first rung
alone, where every trial is new. Where the driver's own time goes says what gives way first.
To reach: 256 workers 95 % busy.
"""

from __future__ import annotations

import argparse
import heapq
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import timm
from common import record

from ztp_search.backbones import geometry_of
from ztp_search.budget import parse_budget
from ztp_search.cost import Geometry
from ztp_search.decode import Decoder
from ztp_search.evaluate import BlockResult, Runtime
from ztp_search.measuring import Measuring
from ztp_search.progress import Progress, Status
from ztp_search.space import load_space
from ztp_search.study import Study
from ztp_search.trials import Trials, Wanted
from ztp_search.workers import QUEUED_PER_WORKER, Results, Task

CLASSES = 10
BATCH_SIZE = 64


class SleepingPool:
    """Workers that take `seconds` per configuration of a task, and answer at random.

    A configuration's accuracy follows from its number, so racing has something to decide.
    """

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
            out.append((task, [self._result(task, key[1]) for key in task.keys]))
        return out

    def close(self) -> None: ...

    def _result(self, task: Task, number: int) -> BlockResult:
        generator = np.random.default_rng([number, task.start])
        wrong = generator.random(task.stop - task.start) < 0.05 + 0.1 * ((number * 37 % 100) / 100)
        labels = self.labels[task.start : task.stop]
        return BlockResult(np.where(wrong, -1, labels).astype(np.int32), 0, self.seconds)


class Timed:
    """Adds up the time of calls by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def wrap(self, owner: Any, method: str, name: str) -> None:
        plain: Callable[..., Any] = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return plain(*args, **kwargs)
            finally:
                spent = time.perf_counter() - began
                self.seconds[name] = self.seconds.get(name, 0.0) + spent

        setattr(owner, method, timed)


class FirstRung(Progress):
    """Notes how busy workers were until the first rung was left."""

    def __init__(self, pool: SleepingPool) -> None:
        self.pool = pool
        self.busy: float | None = None

    def trials(self, status: Status) -> None:
        if status.rung > 1 and self.busy is None:
            self.busy = self.pool.busy / (
                self.pool.workers * (self.pool.ended - self.pool.began)
            )


def simulate(workers: int, seconds: float, trials: int, images: int, racing: str) -> dict[str, Any]:
    """A search of so many trials with so many sleeping workers."""
    space = load_space("deit_small")
    geometry = geometry_of(timm.create_model("deit_small_patch16_224"))
    decoder = Decoder(space, geometry, parse_budget("67%", geometry))
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, images)
    pool = SleepingPool(workers, seconds, labels)
    progress = FirstRung(pool)
    measuring = _measuring(pool, labels, geometry, progress)
    timed = Timed()
    with tempfile.TemporaryDirectory() as folder:
        study = Study.open(
            f"sqlite:///{Path(folder) / 'studies.db'}", "simulated", {},
            blocks=[block.block for block in decoder.blocks], ranges=decoder.parameter_ranges(),
        )  # fmt: skip
        wanted = Wanted(trials, "monte-carlo", 0, racing, 5)
        search = Trials(wanted, measuring, study, decoder)
        timed.wrap(study, "start", "database")
        timed.wrap(study, "update", "database")
        timed.wrap(search.samplers["monte-carlo"], "propose", "sampling")
        timed.wrap(pool, "finished", "waiting for workers")
        timed.wrap(pool, "submit", "the simulation itself")
        search.run()
        study.close()
    wall = pool.ended - pool.began
    driver = {k: v for k, v in timed.seconds.items() if k != "waiting for workers"}
    driver["all else"] = wall - sum(timed.seconds.values())
    return {
        "workers": workers,
        "seconds_per_block": seconds,
        "trials": trials,
        "racing": racing,
        "tasks": pool.tasks,
        "blocks": round(pool.busy / seconds),
        "wall_seconds": wall,
        "busy": pool.busy / (workers * wall),
        "busy_first_rung": progress.busy,
        "driver_busy": 1.0 - timed.seconds["waiting for workers"] / wall,
        "driver_ms_per_block": {
            name: 1e3 * spent * seconds / pool.busy for name, spent in sorted(driver.items())
        },
    }


def _measuring(
    pool: SleepingPool, labels: np.ndarray[Any, Any], geometry: Geometry, progress: Progress
) -> Measuring:
    store = labels
    session: Any = SimpleNamespace(
        store=lambda _set: store, labels=lambda _set: labels, geometry=geometry
    )
    workers: Any = SimpleNamespace(pool=lambda *_: pool)
    measuring = Measuring(session, workers, Runtime("cpu", "fp32", BATCH_SIZE), "top1", progress)
    generator = np.random.default_rng(1)
    wrong = generator.random(len(labels)) < 0.05
    measuring.know("search", np.where(wrong, -1, labels).astype(np.int32))
    return measuring


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[64, 256, 512, 1024])
    parser.add_argument("--seconds", type=float, default=0.2)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--racing", default="both")
    args = parser.parse_args()
    rows = []
    for workers in args.workers:
        row = simulate(workers, args.seconds, args.trials, args.images, args.racing)
        rows.append(row)
        first = row["busy_first_rung"]
        print(f"{workers:5} workers: {row['busy']:.1%} busy"
              + (f" ({first:.1%} on the first rung)" if first else "")
              + f", driver {row['driver_busy']:.0%} busy, ms per block: "
              + ", ".join(f"{k} {v:.2f}" for k, v in row["driver_ms_per_block"].items()),
              flush=True)  # fmt: skip
    record("simulated_pool", {"arguments": vars(args), "rows": rows})


if __name__ == "__main__":
    main()
