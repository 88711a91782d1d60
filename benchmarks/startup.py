"""Seconds from the command to the start of the first trial, on digits.

    python benchmarks/startup.py [--workers 2] [--rounds 3]

Runs the real command in a fresh process and folder until its database holds a trial (workers are
up then and the unpruned model has been measured), and again with images decoded already. To
reach: 15 s with Ray.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", default="2")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    fresh, again = [], []
    for round_ in range(args.rounds):
        with tempfile.TemporaryDirectory() as out:
            fresh.append(_first_trial(out, args.workers, f"first{round_}"))
            again.append(_first_trial(out, args.workers, f"second{round_}"))
    result = {
        "arguments": vars(args),
        "seconds_to_first_trial": statistics.median(fresh),
        "seconds_to_first_trial_images_decoded": statistics.median(again),
        "all": {"fresh": fresh, "again": again},
    }
    for key, value in result.items():
        print(f"{key}: {value}")
    record("startup", result)


def _first_trial(out: str, workers: str, study: str) -> float:
    command = [
        sys.executable, "-m", "ztp_search.cli.main", "--space", "digits", "--budget", "68%",
        "--workers", workers, "--out", out, "--study", study,
    ]  # fmt: skip
    began = time.perf_counter()
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, stderr=silent, stdout=silent) as process:
        while not _has_trial(Path(out) / "studies.db", study):
            if process.poll() is not None:
                raise SystemExit("the search ended before its first trial")
            time.sleep(0.05)
        seconds = time.perf_counter() - began
        process.send_signal(signal.SIGINT)
    return seconds


def _has_trial(path: Path, study: str) -> bool:
    if not path.exists():
        return False
    query = "SELECT 1 FROM trials JOIN studies USING (study_id) WHERE study_name = ?"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        with contextlib.suppress(sqlite3.OperationalError):  # its tables are being made
            return connection.execute(query, (study,)).fetchone() is not None
    return False


if __name__ == "__main__":
    main()
