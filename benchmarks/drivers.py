"""Many drivers on one PostgreSQL server at a time: how long each waits to store something.

    python benchmarks/drivers.py [--drivers 1 12] [--trials 300] [--task-seconds 0.1]

Each driver is a process that searches in a study of its own, all in one database. Workers are
simulated, one per driver: a task takes them so many seconds, and its results are made up. Sampling,
racing, the database and all else are real. Milliseconds of each transaction that stores something,
its commit and its tries after deadlocks included: median, 99th percentile and the longest. At the
end every study must hold what a driver alone with a database file has stored. The server is started
here, from PostgreSQL's own programs in /usr/lib/postgresql; all of it shares this machine's cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import record
from kills import evidence
from made_up import made_up_results
from postgres import Server

import ztp_search
from ztp_search import SearchSettings
from ztp_search.driver.progress import Progress
from ztp_search.events import Event, Stored

SEARCH = {
    "space": "digits", "budget": "50%", "images": 512, "holdout": 64, "workers": 0, "speed": "off",
    "precision": "fp32", "study": "alone",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--drivers", type=int, nargs="+", default=[1, 12], metavar="N")
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--task-seconds", type=float, default=0.1)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = []
    with tempfile.TemporaryDirectory(prefix="drivers") as scratch:
        out = Path(scratch)
        job = partial(driven, out=out, trials=args.trials, task_seconds=args.task_seconds)
        job({})
        wanted = evidence(f"sqlite:///{out / 'studies.db'}", "alone")
        for drivers in args.drivers:
            (out / f"{drivers}").mkdir()
            server = Server(out / f"{drivers}")
            try:
                rows.append(row(server, drivers, job, wanted))
            finally:
                server.kill()
    record("drivers", {"arguments": vars(args), "rows": rows})


def row(server: Server, drivers: int, job: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """All at once."""
    studies = [f"driver-{number}" for number in range(drivers)]
    began = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(drivers) as pool:
        found = pool.map(
            job, [{"storage": server.url, "study": study} for study in studies], chunksize=1
        )
    seconds = time.perf_counter() - began
    milliseconds = 1000 * np.concatenate(found)
    differing = sum(evidence(server.url, study) != wanted for study in studies)
    median, late, longest = np.percentile(milliseconds, [50, 99, 100])
    print(f"{drivers} drivers, {seconds:.0f} s, {len(milliseconds):,} times something was stored: "
          f"median {median:.1f} ms, 99th percentile {late:.1f} ms, longest {longest:.0f} ms; "
          f"{differing} studies differ from a driver's alone")  # fmt: skip
    return {
        "drivers": drivers, "seconds": seconds, "stores": len(milliseconds), "median_ms": median,
        "percentile_99_ms": late, "longest_ms": longest, "differing": differing,
    }  # fmt: skip


def driven(changes: dict[str, Any], out: Path, trials: int, task_seconds: float) -> list[float]:
    """Search, and return the seconds of each time that something was stored."""
    seconds: list[float] = []

    class Listener(Progress):
        def event(self, study: str | None, event: Event) -> None:
            if isinstance(event, Stored):
                seconds.append(event.seconds)

    settings = SearchSettings(**{**SEARCH, "out": out, "trials": trials, **changes})
    with made_up_results(task_seconds):
        ztp_search.search(settings, Listener())
    return seconds


if __name__ == "__main__":
    main()
