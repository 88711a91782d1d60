"""Searches killed at random moments, and whether anything is lost: kill -9 of all that can die.

    python benchmarks/kills.py [--driver 100] [--worker 60] [--raylet 20] [--database 20]
                               [--down-seconds 3] [--name kills]

Each number is of kills. Searches of the embedded model are killed again and again until they have
ended: the driver (in whatever it does: importing, sampling, storing, confirming, measuring; the
command is given again), one of two Ray workers, the raylet of the search's own Ray, or all
processes of a PostgreSQL server, which is started again after some seconds (the search goes on by
itself after these). What each search has stored at its end is compared with an undisturbed search:
every trial with all that is stored of it but for seconds, the evaluation on holdout, the scores.

A kill is survived where the search ends so. Trials are lost where one is missing or differs, and
doubled where two have one number or one configuration. PostgreSQL's own programs are looked for in
/usr/lib/postgresql.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from common import record
from postgres import Server

from ztp_search.errors import StudyError
from ztp_search.evaluation.ray_cluster import WORKER

SEARCH = {
    "space": "digits", "budget": "50%", "trials": "48", "images": "256", "holdout": "128",
    "batch-size": "32", "precision": "fp32", "candidates": "3", "study": "s", "speed-repeats": "1",
}  # fmt: skip
NOT_COMPARED = {"evaluation_seconds", "image_evaluations"}
"""Seconds, and how often images were evaluated: what a killed driver has evaluated of the unpruned
model lies on disk, stored or not."""
PATIENCE = 600.0
"""Seconds after which a search that has not ended counts as not survived."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind, number in (("driver", 100), ("worker", 60), ("raylet", 20), ("database", 20)):
        parser.add_argument(f"--{kind}", type=int, default=number, metavar="KILLS")
    parser.add_argument("--down-seconds", type=float, default=3.0, help="of a database server")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="kills", help="of the file under benchmarks/results")
    args = parser.parse_args()
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory(prefix="kills") as scratch:
        folder = Path(scratch)
        began = time.monotonic()
        wanted = undisturbed(folder / "undisturbed")
        whole = time.monotonic() - began
        rows = []
        for kind, kill in kinds(args.down_seconds).items():
            if most := getattr(args, kind):
                rows.append(row(kind, kill, most, chance, folder, wanted, whole))
                record(args.name, {"arguments": vars(args), "search": SEARCH, "rows": rows})


def command(out: Path, workers: int, storage: str | None = None) -> list[str]:
    stated = {**SEARCH, "out": str(out), "workers": str(workers)}
    if storage is not None:
        stated["storage"] = storage
    flags = [word for name, value in stated.items() for word in (f"--{name}", value)]
    return [sys.executable, "-m", "ztp_search", *flags, "--json"]


def undisturbed(out: Path) -> dict[str, Any]:
    out.mkdir()
    subprocess.run(command(out, 0), check=True, capture_output=True)
    return evidence(f"sqlite:///{out / 'studies.db'}")


def evidence(storage: str, study: str = SEARCH["study"]) -> dict[str, Any]:
    """All of a study that must not depend on what happened."""
    import ztp_search

    with ztp_search.load_study(storage, study) as stored:
        trials = stored.trials()
        attributes = stored.attributes()
    return {
        "trials": [
            (each.number, each.state, each.value, each.config.digest(),
             compared(each.attrs))
            for each in trials
        ],
        **{name: compared(attributes.get(name)) for name in ("holdout", "reference")},
        **{name: attributes.get(name) for name in ("scores", "cohorts")},
    }  # fmt: skip


def compared(record: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: v for name, v in (record or {}).items() if name not in NOT_COMPARED}


# ---- what is killed ------------------------------------------------------------------------

Kill = Callable[[subprocess.Popen[str], "Place"], bool]
"""Kills something of a search; whether it was there to be killed."""


class Place:
    """Where a search is: its folder, its command, its database server where it has one."""

    def __init__(self, kind: str, out: Path) -> None:
        self.storage = f"sqlite:///{out / 'studies.db'}"
        self.server: Server | None = None
        if kind == "database":
            self.server = Server(out)
            self.storage = self.server.url
        given = self.storage if self.server is not None else None
        self.command = command(out, 2 if kind in ("worker", "raylet") else 0, given)

    def close(self) -> None:
        if self.server is not None:
            self.server.kill()


def kill_driver(child: subprocess.Popen[str], _: Place) -> bool:
    child.kill()
    return True


def kill_worker(child: subprocess.Popen[str], _: Place) -> bool:
    return _kill_one_below(child, lambda line: line.startswith(("ray::Worker", f"ray::{WORKER}")))


def kill_raylet(child: subprocess.Popen[str], _: Place) -> bool:
    return _kill_one_below(child, lambda line: "raylet/raylet " in line)


def kill_database(seconds: float, _: subprocess.Popen[str], place: Place) -> bool:
    assert place.server is not None
    place.server.kill()
    time.sleep(seconds)
    place.server.start()
    return True


def _kill_one_below(child: subprocess.Popen[str], is_it: Callable[[str], bool]) -> bool:
    found = []
    with contextlib.suppress(psutil.Error):
        for each in psutil.Process(child.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if is_it(" ".join(each.cmdline())):
                    found.append(each)
        if found:
            random.choice(found).kill()
    return bool(found)


def kinds(down_seconds: float) -> dict[str, Kill]:
    return {
        "driver": kill_driver, "worker": kill_worker, "raylet": kill_raylet,
        "database": partial(kill_database, down_seconds),
    }  # fmt: skip


# ---- searches that are killed --------------------------------------------------------------


def row(
    kind: str, kill: Kill, kills: int, chance: random.Random, folder: Path,
    wanted: dict[str, Any], whole: float,
) -> dict[str, Any]:  # fmt: skip
    """Kill until it was done so often. whole: seconds of an undisturbed search."""
    count: Counter[str] = Counter()
    said: Counter[str] = Counter()
    number = 0
    while count["kills"] < kills:
        number += 1
        out = folder / f"{kind}-{number}"
        out.mkdir()
        place = Place(kind, out)
        try:
            made, ended = killed_again_and_again(
                place, kill, kills - count["kills"], chance, whole, said
            )
            count += Counter(kills=made, searches=1)
            compare(place, wanted, made, ended, count)
        finally:
            place.close()
            shutil.rmtree(out, ignore_errors=True)
        print(f"{kind}: {dict(count)}", flush=True)
    return {"kind": kind, **count, "lost": count["lost"], "doubled": count["doubled"],
            "statuses": dict(said)}  # fmt: skip


def killed_again_and_again(
    place: Place, kill: Kill, most: int, chance: random.Random, whole: float, said: Counter[str]
) -> tuple[int, bool]:
    """How often a search was killed until it ended, and whether it did."""
    made = 0
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        with started(place.command) as child:
            while child.poll() is None and time.monotonic() < limit:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(chance.uniform(0.0, whole / 2))
                if child.poll() is None and made < most and kill(child, place):
                    made += 1
                    if kill is kill_driver:
                        break
            status = child.wait(max(1.0, limit - time.monotonic()))
        if kill is not kill_driver or status != -signal.SIGKILL:
            said[str(status)] += 1
            if status == 0:
                return made, True
            if kill is not kill_driver and status != 1:  # 1: the same command again goes on
                return made, False
    return made, False


@contextlib.contextmanager
def started(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def compare(
    place: Place, wanted: dict[str, Any], made: int, ended: bool, count: Counter[str]
) -> None:
    """Count what is as it would have been."""
    try:
        found = evidence(place.storage)
    except StudyError:  # it ended before there was a study
        count["not begun"] += made
        return
    trials = found["trials"]
    count["lost"] += sum(each not in trials for each in wanted["trials"])
    count["doubled"] += len(trials) - len({each[0] for each in trials})
    count["doubled"] += len(trials) - len({each[3] for each in trials})
    if ended and found == wanted:
        count["survived"] += made


if __name__ == "__main__":
    main()
