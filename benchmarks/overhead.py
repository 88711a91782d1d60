"""How much of a search is not evaluation: driver, database and Ray at about 2 s a trial.

    python benchmarks/overhead.py [--trials 192] [--seconds 2] [--rounds 3]

The real command on digits at 50 %, every trial in full (--racing off), with so many images that a
trial takes `--seconds` of one core. From the start of the first trial to the end of the last (a
worker may still be a second or two from its first task then, so the search is not the shortest):

    idle    1 - evaluation seconds of all trials / (workers x wall time): workers wait, or unpack
    beside  CPU seconds of driver and Ray's own processes / (workers x wall time): on a machine
            without a core to spare these lengthen the evaluations themselves

With --workers 0 the driver is the worker, and `idle` is all there is. overhead is idle + beside,
which counts twice what the driver does while a worker waits for it. To reach: 2 %.
Milliseconds of database per trial are in database.py.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from common import record
from searching import Searched, search

BATCH_SIZE = 64
CALIBRATION_IMAGES = 512
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=192)
    parser.add_argument("--seconds", type=float, default=2.0, help="one trial, on one core")
    parser.add_argument("--images", type=int, help="instead of as many as take --seconds")
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 0])
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        images = args.images or images_of(Path(out) / "calibration", args.seconds, args.trials)
        rounds: dict[int, list[dict[str, float]]] = {workers: [] for workers in args.workers}
        run(Path(out) / "measured", images, 1, 0, "decoding")
        for round_ in range(args.rounds):
            for workers in args.workers:
                study = f"{workers}-{round_}"
                row = shares(
                    *run(Path(out) / "measured", images, args.trials, workers, study), workers
                )
                rounds[workers].append(row)
                print(f"--workers {workers}: " + ", ".join(f"{k} {v:.4g}" for k, v in row.items()),
                      flush=True)  # fmt: skip
    median = {
        workers: {key: statistics.median(row[key] for row in rows) for key in rows[0]}
        for workers, rows in rounds.items()
    }
    for workers, row in median.items():
        print(f"--workers {workers}: {row['overhead']:.2%} of the time is not evaluation "
              f"({row['idle']:.2%} idle, {row['beside']:.2%} CPU beside), "
              f"{row['seconds_per_trial']:.2f} s a trial")  # fmt: skip
    result = {"arguments": vars(args), "images": images, "by_workers": median, "rounds": rounds}
    record("overhead", result)


def images_of(out: Path, seconds: float, trials: int) -> int:
    """So many images that a trial's evaluation takes about `seconds`: a whole number of batches."""
    searched, _ = run(out, CALIBRATION_IMAGES, trials, 0, "calibration")
    per_image = searched.evaluation_seconds / searched.image_evaluations
    return max(1, round(seconds / per_image / BATCH_SIZE)) * BATCH_SIZE


def run(
    out: Path, images: int, trials: int, workers: int, study: str
) -> tuple[Searched, list[Sample]]:
    samples: list[Sample] = []
    searched = search(
        out, "--budget", "50%", "--racing", "off", "--trials", trials, "--images", images,
        "--holdout", 0, "--batch-size", BATCH_SIZE, "--workers", workers, "--study", study,
        watch=lambda pid: samples.append((time.time(), cpu_seconds_beside(pid))),
    )  # fmt: skip
    return searched, samples


def shares(searched: Searched, samples: list[Sample], workers: int) -> dict[str, float]:
    """What of the time from the first trial to the last is not evaluation."""
    held = searched.seconds * max(1, workers)
    idle = 1.0 - searched.evaluation_seconds / held
    beside = 0.0
    if workers:
        times, spent = zip(*samples, strict=True)
        first, last = np.interp([searched.first, searched.last], times, spent)
        beside = float(last - first) / held
    return {
        "seconds": searched.seconds,
        "seconds_per_trial": searched.evaluation_seconds / len(searched.trials),
        "idle": idle,
        "beside": beside,
        "overhead": idle + beside,
    }


Sample = tuple[float, float]
"""Unix seconds, and CPU seconds of driver and Ray until then."""


def cpu_seconds_beside(driver: int) -> float:
    """CPU seconds of a process and all below it, without Ray's workers."""
    parents: dict[int, list[int]] = {}
    spent: dict[int, float] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it has ended
            # The name in brackets may hold spaces: state is the first field behind it.
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            parents.setdefault(int(fields[1]), []).append(int(folder.name))
            spent[int(folder.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    total, below = 0.0, [driver]
    while below:
        pid = below.pop()
        below += parents.get(pid, [])
        if not _is_worker(pid):
            total += spent.get(pid, 0.0)
    return total


def _is_worker(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().startswith(b"ray::")
    except OSError:
        return True


if __name__ == "__main__":
    main()
