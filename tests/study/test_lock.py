"""The lock of a study's driver: one at a time, and it dies with its process."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers.driving import hold
from helpers.studies import PROCESSES, open_study, url_of

from ztp_search.errors import StudyError
from ztp_search.study import StudyReader


def test_a_study_has_one_driver(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)):
        with pytest.raises(StudyError) as refused:
            open_study(url_of(tmp_path))
        assert f"process {os.getpid()} on " in str(refused.value)
        assert "\n" not in str(refused.value)
        open_study(url_of(tmp_path), "another").close()
        StudyReader.open(url_of(tmp_path), "s").close()
    open_study(url_of(tmp_path)).close()


def test_the_lock_dies_with_the_driver_though_its_children_live(tmp_path: Path) -> None:
    here, there = PROCESSES.Pipe()
    driver = PROCESSES.Process(target=hold, args=(url_of(tmp_path), there))
    driver.start()
    there.close()
    child = here.recv()
    with pytest.raises(StudyError, match=f"process {driver.pid} on "):
        open_study(url_of(tmp_path))
    driver.kill()
    driver.join()
    try:
        open_study(url_of(tmp_path)).close()
        os.kill(child, 0)  # it is alive
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_child_cannot_release_the_lock(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        child = os.fork()
        if child == 0:
            study._lock.release()
            os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(StudyError, match="a study has one driver"):
            open_study(url_of(tmp_path))


def test_a_refusal_does_not_wait(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)):
        began = time.monotonic()
        with pytest.raises(StudyError, match="a study has one driver"):
            open_study(url_of(tmp_path))
        assert time.monotonic() - began < 2


def test_a_lock_may_be_released_by_another_thread(tmp_path: Path) -> None:
    study = open_study(url_of(tmp_path))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(study.close).result()
    open_study(url_of(tmp_path)).close()


def test_two_that_come_first_create_the_tables_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        for study in pool.map(lambda name: open_study(url_of(tmp_path), name), "abcd"):
            study.close()
