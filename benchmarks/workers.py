"""What a second worker brings on two cores: wall time of the same search with one and with two.

    python benchmarks/workers.py [--trials 512] [--images 2000] [--rounds 3] [--racing both]

The real command on digits at a budget of 50 %, rounds in turns; from the start of the first trial
to the end of the last, as the database has them. Every worker compiles its own kernels for token
counts that are new to it, over a second in all, so the searches are not the shortest. To reach:
two workers 1.85 times one.

Beside it, what the machine itself gives: the same search in one process without Ray, alone and two
of them at once (`two_processes`). Two workers can hardly do better than that. 256 workers are
simulated in simulated_pool.py.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from common import record
from searching import Running, Searched, search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=512)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--budget", default="50%")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--racing", nargs="+", default=["both"])
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as out:
        run = Runs(Path(out), args)
        run("decoding", workers=0, trials=1)
        rows = {racing: compare(run, racing, args.rounds) for racing in args.racing}
    record("workers", {"arguments": vars(args), "racing": rows})


class Runs:
    """Searches that differ in name, workers and racing alone; images are decoded once."""

    def __init__(self, out: Path, args: argparse.Namespace) -> None:
        self._out = out
        self._options = ("--budget", args.budget, "--images", args.images, "--holdout", 0)
        self._trials: int = args.trials

    def __call__(
        self, study: str, *, workers: int, racing: str = "both", trials: int | None = None
    ) -> Searched:
        return search(self._out, *self._words(study, workers, racing, trials))

    def two_at_once(self, study: str, racing: str) -> list[Searched]:
        """Each in a folder of its own, so that they share no database."""
        running = []
        for name in ("left", "right"):
            out = self._out / name
            if not out.exists():
                search(out, *self._words("decoding", 0, racing, 1))
            running.append(Running(out, *self._words(study, 0, racing, None)))
        return [each.finish() for each in running]

    def _words(
        self, study: str, workers: int, racing: str, trials: int | None
    ) -> tuple[object, ...]:
        return (
            *self._options, "--study", study, "--workers", workers, "--racing", racing,
            "--trials", trials or self._trials,
        )  # fmt: skip


def compare(run: Runs, racing: str, rounds: int) -> dict[str, Any]:
    """Seconds of one worker, of two, of one process alone and of two at once, in turns."""
    seconds: dict[str, list[float]] = {}
    winners = set()
    for round_ in range(rounds):
        study = f"{racing}-{round_}"
        for workers in (1, 2, 0):
            searched = run(f"{study}-{workers}", workers=workers, racing=racing)
            winners.add(str(searched.document["best"]["config"]))
            name = f"{workers}_workers" if workers else "one_process"
            seconds.setdefault(name, []).append(searched.seconds)
        both = run.two_at_once(study, racing)
        # While both run: two searches in the time from the first's start to the last's end.
        span = max(each.last for each in both) - min(each.first for each in both)
        seconds.setdefault("two_processes", []).append(span)
    if len(winners) != 1:
        raise SystemExit(f"the winner depends on the number of workers: {winners}")
    row = {
        "seconds": seconds,
        "two_workers_against_one": ratio(seconds["1_workers"], seconds["2_workers"]),
        "two_processes_against_one": 2 * ratio(seconds["one_process"], seconds["two_processes"]),
    }
    print(f"racing {racing}: two workers are {row['two_workers_against_one']:.3f} times one "
          f"(two processes at once {row['two_processes_against_one']:.3f} times one alone); "
          f"medians {statistics.median(seconds['1_workers']):.1f} and "
          f"{statistics.median(seconds['2_workers']):.1f} s", flush=True)  # fmt: skip
    return row


def ratio(of: list[float], to: list[float]) -> float:
    """The median over rounds."""
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


if __name__ == "__main__":
    main()
