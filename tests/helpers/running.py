"""Searches as a user starts them: in this process or as a process of their own."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ztp_search.study import StoredTrial, StudyReader

TRIALS = 8
SEARCH: Mapping[str, Any] = {
    "space": "digits", "budget": "68%", "trials": TRIALS, "images": 96, "holdout": 64,
    "batch_size": 32, "precision": "fp32", "study": "s", "candidates": 3, "racing": "off",
    "speed": "off",
}  # fmt: skip
"""Settings of a search of four hand-set schedules and four sampled configurations."""
RACE: Mapping[str, Any] = {
    "space": "digits", "budget": "50%", "trials": 12, "images": 256, "holdout": 32,
    "batch_size": 32, "study": "s", "candidates": 3, "speed": "off",
}  # fmt: skip
"""One whose trials climb rungs of 64, 128 and 256 images: four hand-set ones, then eight."""
HAND_SET = ("paper_schedule declining", "paper_schedule constant", "tome declining",
            "tome constant")  # fmt: skip
"""The schedules that are their first trials."""
SECONDS = 180
"""After which a process that should have ended, or got somewhere, is given up."""

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that runs the tests in the background has them, and their processes, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def argv_of(settings: Mapping[str, Any]) -> list[str]:
    """The command line that states these settings of a search."""
    flags = ((f"--{name.replace('_', '-')}", str(value)) for name, value in settings.items())
    return [word for flag in flags for word in flag]


def space_file(folder: Path, **pruning: Any) -> Path:
    """The digits' space with these keys of `pruning` changed, as a file."""
    content = yaml.safe_load(Path("search_spaces/digits.yaml").read_text())
    content["pruning"] |= pruning
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def url_of(out: Path) -> str:
    return f"sqlite:///{out / 'studies.db'}"


def stored(out: Path, study: str = "s") -> list[StoredTrial]:
    with StudyReader.open(url_of(out), study) as each:
        return each.trials()


def attributes(out: Path, study: str = "s") -> dict[str, Any]:
    with StudyReader.open(url_of(out), study) as each:
        return each.attributes()


def results(trials: list[StoredTrial]) -> list[tuple[Any, ...]]:
    """All of every trial that must not depend on how it came about: all but the seconds."""
    return [
        (t.number, t.state, t.value, t.config,
         {k: v for k, v in t.attrs.items() if k != "evaluation_seconds"})
        for t in trials
    ]  # fmt: skip


def ranked(out: Path, study: str = "s") -> list[StoredTrial]:
    """The trials that have a score, highest first; of equals the one of least loss."""
    scores = attributes(out, study)["scores"]
    trials = [trial for trial in stored(out, study) if str(trial.number) in scores]
    return sorted(trials, key=lambda t: (-scores[str(t.number)], t.attrs["loss"]))


def completions(out: Path) -> dict[int, str]:
    """When each complete trial was stored, by number. Reads and nothing else."""
    url = f"file:{out / 'studies.db'}?mode=ro"
    with contextlib.closing(sqlite3.connect(url, uri=True)) as database:
        query = "SELECT number, datetime_complete FROM trials WHERE state = 'COMPLETE'"
        return dict(database.execute(query).fetchall())


@contextlib.contextmanager
def process(*argv: str, console_script: bool = False) -> Iterator[subprocess.Popen[str]]:
    """`ztp-search` as the leader of a process group of its own; killed at the end."""
    command = [sys.executable, "-m", "ztp_search"]
    if console_script:
        command = [str(Path(sys.executable).with_name("ztp-search"))]
    child = subprocess.Popen(
        [*command, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def until(condition: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    """Wait until the condition holds, while the process runs."""
    began = time.monotonic()
    while not condition():
        assert child.poll() is None, f"ended early: {child.communicate()}"
        assert time.monotonic() - began < SECONDS, "nothing came of it"
        time.sleep(0.02)


def complete(out: Path) -> int:
    """How many trials are complete; 0 where there is no study yet."""
    try:
        return len(completions(out))
    except sqlite3.OperationalError:
        return 0


def one_line(text: str) -> str:
    """The message on stderr, which must be one line."""
    lines = text.splitlines()
    assert len(lines) == 1 and lines[0].startswith("ztp-search: "), text
    return lines[0]


def document(text: str) -> dict[str, Any]:
    """stdout, which must be one JSON document."""
    value: dict[str, Any] = json.loads(text)
    return value


def descendants(pid: int) -> dict[int, str]:
    """Command lines of all processes below this one, by process id."""
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it may have ended
            stat = (folder / "stat").read_text()
            parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
            lines[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ").strip()
    below = {pid}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return {each: lines[each] for each in below - {pid} if each in lines}


def ray_workers(pid: int) -> list[int]:
    """The actors that evaluate for the driver `pid`, found from outside: they may be busy."""
    titles = ("ray::Worker", "ray::ztp-worker-")
    return [each for each, line in descendants(pid).items() if line.startswith(titles)]


def gone(pids: Iterable[int]) -> bool:
    """Whether all of these processes end, and soon."""
    began = time.monotonic()
    while any(Path(f"/proc/{pid}/exe").exists() for pid in pids):
        if time.monotonic() - began > SECONDS:
            return False
        time.sleep(0.1)
    return True
