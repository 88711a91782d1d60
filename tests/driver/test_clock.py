"""Searches during which the wall clock is set: nothing that is decided or shown goes by it."""

import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from conftest import run_to_its_end
from helpers.driving import search_while_the_clock_jumps
from helpers.running import RACE, attributes, results, stored
from helpers.studies import PROCESSES

PROCESSES.set_forkserver_preload(["ztp_search.driver.run"])  # torch too, once for all

SETTINGS = {**RACE, "images": 32, "batch_size": 16, "workers": 0}
BACK, FORWARD = timedelta(hours=-1), timedelta(days=1)


def search(out: Path, jumps: dict[int, timedelta], **changes: Any) -> None:
    settings = {**SETTINGS, "out": out, **changes}
    driver = PROCESSES.Process(target=search_while_the_clock_jumps, args=(settings, jumps))
    driver.start()
    driver.join()
    assert driver.exitcode == 0


def times(out: Path) -> list[tuple[datetime, datetime]]:
    """When each trial started and ended, as Optuna's tools take it."""
    with closing(sqlite3.connect(out / "studies.db")) as database:
        query = "SELECT datetime_start, datetime_complete FROM trials ORDER BY number"
        return [
            (datetime.fromisoformat(start), datetime.fromisoformat(end))
            for start, end in database.execute(query)
        ]


def test_a_search_goes_by_no_clock_that_can_be_set(tmp_path: Path) -> None:
    # Back while the first trials run, forward while the others do. By the wall clock the time
    # would be up then.
    search(tmp_path / "set", {3: BACK, 20: FORWARD}, timeout=3600)
    run_to_its_end(SETTINGS, tmp_path / "undisturbed")
    assert results(stored(tmp_path / "set")) == results(stored(tmp_path / "undisturbed"))
    assert attributes(tmp_path / "set") == attributes(tmp_path / "undisturbed")
    seconds = [(end - start).total_seconds() for start, end in times(tmp_path / "set")]
    assert min(seconds) == 0  # of trials that would have ended before they started
    assert max(seconds) > 23 * 3600


def test_a_clock_that_is_set_back_does_not_lengthen_the_timeout(tmp_path: Path) -> None:
    search(tmp_path, {1: BACK}, timeout=0.2, trials=1000, racing="off")
    assert len(stored(tmp_path)) < 1000
