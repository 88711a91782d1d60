"""Pools of workers: the same results from every one of them, whatever happens to a worker."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Digits
from running import ray_workers

import ztp_search.workers
from ztp_search.config import PruningConfig, PruningLayer
from ztp_search.errors import WorkerError
from ztp_search.evaluate import BlockResult
from ztp_search.workers import Failure, InProcessPool, Pool, RayPool, Task, open_pool

pytestmark = pytest.mark.slow  # Ray takes seconds to start, and so does every worker

CONFIGS = (
    None,
    PruningConfig((PruningLayer(2, 0.8, 3, 5),), v_min=0.0, v_max=1e6),
    PruningConfig((PruningLayer(1, 0.5, 4, 9), PruningLayer(5, 0.4, 0, 1)), v_min=0.1, v_max=3.0),
    PruningConfig((PruningLayer(3, 0.6, 0, 2), PruningLayer(7, 0.5, 5, 1)), v_min=0.5, v_max=0.7),
)
TASKS = [
    Task(("trial", i), config, image_set, start, stop)
    for i, config in enumerate(CONFIGS)
    for image_set, start, stop in (("search", 0, 128), ("search", 128, 160), ("holdout", 0, 64))
]
TOO_DEEP = Task(("trial", 7), PruningConfig((PruningLayer(8, 0.5),)), "search", 0, 64)
Plain = dict[Task, tuple[bytes, int] | Failure]


class Deadly:
    """Stands where a configuration does, and ends the worker that unpacks it."""

    def __reduce__(self) -> Any:
        return os._exit, (1,)


@pytest.fixture(scope="module")
def expected(digits: Digits) -> Plain:
    return collected(InProcessPool(digits.job()), TASKS)


@pytest.fixture(scope="module")
def two_workers(digits: Digits) -> Iterator[RayPool]:
    pool = RayPool(digits.job(), 2)
    yield pool
    pool.close()


def collected(pool: Pool, tasks: list[Task], kill_after: tuple[int, ...] = ()) -> Plain:
    """Results of all tasks; all workers are killed whenever so many results have come in."""
    waiting, in_flight = list(tasks), 0
    out: Plain = {}
    while waiting or in_flight:
        while waiting and pool.room > 0:
            pool.submit(waiting.pop(0))
            in_flight += 1
        if len(out) in kill_after:
            assert kill_workers() == 2
        task, result = pool.next()
        in_flight -= 1
        assert task not in out
        out[task] = plain(result)
    return out


def plain(result: BlockResult | Failure) -> tuple[bytes, int] | Failure:
    if isinstance(result, Failure):
        return result
    return result.predictions.tobytes(), result.fallbacks


def kill_workers() -> int:
    """SIGKILL for every worker of this process; how many there were."""
    pids = ray_workers(os.getpid())
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return len(pids)


def test_ray_workers_give_what_this_process_gives(two_workers: RayPool, expected: Plain) -> None:
    assert two_workers.workers == 2 and len(set(two_workers.pids())) == 2
    assert collected(two_workers, TASKS) == expected


def test_killed_workers_cost_a_retry_and_nothing_else(
    two_workers: RayPool, expected: Plain
) -> None:
    before = set(two_workers.pids())
    assert set(ray_workers(os.getpid())) == before
    assert collected(two_workers, TASKS, kill_after=(1, 6)) == expected
    assert len(set(two_workers.pids()) - before) == 2
    assert collected(two_workers, TASKS) == expected


def test_a_configuration_that_does_not_fit_fails_its_task_only(
    two_workers: RayPool, digits: Digits, expected: Plain
) -> None:
    results = collected(two_workers, [TASKS[3], TOO_DEEP, TASKS[4]])
    failure = results.pop(TOO_DEEP)
    assert isinstance(failure, Failure) and not failure.out_of_memory
    assert "after_block=8" in failure.reason and "\n" not in failure.reason
    assert results == {task: expected[task] for task in (TASKS[3], TASKS[4])}
    assert collected(InProcessPool(digits.job()), [TOO_DEEP]) == {TOO_DEEP: failure}


def test_what_is_dropped_never_comes_back(two_workers: RayPool, expected: Plain) -> None:
    two_workers.drop()  # nothing at hand
    while two_workers.room > 0:
        two_workers.submit(TASKS[0])
    two_workers.drop()
    assert two_workers.room == 4
    assert collected(two_workers, TASKS[5:7]) == {task: expected[task] for task in TASKS[5:7]}


def test_a_task_that_kills_every_worker_is_given_up_and_the_others_are_not(
    two_workers: RayPool, expected: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ztp_search.workers, "MAX_DEATHS", 2)  # each costs the start of a worker
    deadly = Task(("trial", 66), Deadly(), "search", 0, 64)  # type: ignore[arg-type]
    two_workers.submit(deadly)
    two_workers.submit(TASKS[0])
    two_workers.submit(TASKS[1])  # waits behind the deadly one
    with pytest.raises(WorkerError) as caught:
        for _ in range(3):
            two_workers.next()
    assert str(caught.value).startswith("2 workers died one after the other on trial 66 (images 0")
    assert "\n" not in str(caught.value)
    two_workers.drop()
    assert collected(two_workers, TASKS) == expected


def test_an_error_in_our_own_code_is_one_line_and_not_retried(two_workers: RayPool) -> None:
    unknown = Task(("trial", 5), None, "no such set", 0, 64)
    two_workers.submit(unknown)
    with pytest.raises(WorkerError, match="evaluating trial 5 failed: KeyError: 'no such set'"):
        two_workers.next()
    two_workers.drop()


def test_workers_map_the_images_and_do_not_copy_them(two_workers: RayPool, digits: Digits) -> None:
    for pid in two_workers.pids():
        mapped = Path(f"/proc/{pid}/maps").read_text()
        assert str(digits.sets.search.path / "images.npy") in mapped
        assert str(digits.sets.holdout.path / "images.npy") in mapped


def test_one_worker_in_bf16_gives_what_this_process_gives(
    two_workers: RayPool, digits: Digits
) -> None:
    two_workers.close()  # one Ray per process
    job = digits.job("bf16")
    expected = collected(InProcessPool(job), TASKS)
    pool = open_pool(digits.job("bf16"), 1)
    try:
        assert isinstance(pool, RayPool) and pool.workers == 1
        assert collected(pool, TASKS) == expected
    finally:
        pool.close()
    assert not ray_workers(os.getpid())


def test_a_worker_that_cannot_start_is_said_in_one_line(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ztp_search.workers, "MAX_DEATHS", 1)
    pool = RayPool(digits.job(gone=tmp_path / "gone"), 1)
    try:
        pool.submit(TASKS[0])
        with pytest.raises(WorkerError, match="image store .*gone is damaged") as caught:
            pool.next()
        assert "\n" not in str(caught.value)
    finally:
        pool.close()


def test_lack_of_memory_is_told_apart(digits: Digits) -> None:
    pool = InProcessPool(digits.job())

    class Hungry:
        @property
        def layers(self) -> tuple[PruningLayer, ...]:
            raise MemoryError("16 GiB\nasked for")

    pool.submit(Task(("trial", 1), Hungry(), "search", 0, 64))  # type: ignore[arg-type]
    assert pool.next()[1] == Failure("16 GiB", out_of_memory=True)
