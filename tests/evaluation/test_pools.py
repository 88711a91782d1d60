"""Pools of workers: the same results from every one of them, whatever happens to a worker."""

import contextlib
import os
import signal
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import ray
import torch
from conftest import Digits
from helpers.running import ray_workers

import ztp_search.evaluation.ray_pool
from ztp_search.errors import ConfigError, OutageError, WorkerError
from ztp_search.evaluation import ray_cluster, ray_seat
from ztp_search.evaluation.image_range import ImageRange
from ztp_search.evaluation.local_pool import LocalPool
from ztp_search.evaluation.model_runner import RangeResult
from ztp_search.evaluation.origin import Origin
from ztp_search.evaluation.pools import open_pool
from ztp_search.evaluation.ray_pool import RayPool
from ztp_search.evaluation.tasks import Failure, Job, Pool, Task, evaluate_task
from ztp_search.events import Event, Joined, Retry, Shared
from ztp_search.pruning.config import PruningConfig, PruningLayer

slow = pytest.mark.slow  # Ray takes seconds to start, and so does every worker

CONFIGS = (
    None,
    PruningConfig((PruningLayer(2, 0.8, 3, 5),), v_min=0.0, v_max=1e6),
    PruningConfig((PruningLayer(1, 0.5, 4, 9), PruningLayer(5, 0.4, 0, 1)), v_min=0.1, v_max=3.0),
    PruningConfig((PruningLayer(3, 0.6, 0, 2), PruningLayer(7, 0.5, 5, 1)), v_min=0.5, v_max=0.7),
)
BLOCKS = (("search", 0, 64), ("search", 64, 80), ("holdout", 0, 32))  # in batches of 32
TOO_DEEP = PruningConfig((PruningLayer(8, 0.5),))
Plain = dict[tuple[int, str, int], tuple[bytes, int, bytes] | Failure]
"""By number of the configuration, image set and start."""


class Deadly:
    """Stands where a configuration does, and ends the worker that unpacks it."""

    def __reduce__(self) -> Any:
        return os._exit, (1,)


def tasks(*groups: tuple[int, ...]) -> list[Task]:
    """Every block once with each group of configurations, by their numbers."""
    return [
        Task(
            tuple(("trial", i) for i in group),
            tuple(CONFIGS[i] for i in group),
            ImageRange(*block),
        )
        for group in groups
        for block in BLOCKS
    ]


TARGETS = np.random.default_rng(0).dirichlet(np.ones(10), 200).astype(np.float32)
"""What outputs on search images are compared with, (images, classes)."""
SINGLE = tasks((0,), (1,), (2,), (3,))
SEVERAL = tasks((2, 0), (1,), (3,)) + tasks((1, 3, 2))[:1]


def collected(pool: Pool, tasks: Sequence[Task], kill_after: int | None = None) -> Plain:
    """Results of all tasks; all workers are killed once so many tasks have come in."""
    pool.hold_targets("search", TARGETS)
    waiting, in_flight, came = list(tasks), 0, 0
    out: Plain = {}
    while waiting or in_flight:
        while waiting and pool.room > 0:
            pool.submit(waiting.pop(0), pool.free)
            in_flight += 1
        if kill_after is not None and came >= kill_after:
            assert in_flight > 2 and kill_workers() == 2  # each had something at hand
            kill_after = None
        finished = pool.finished()
        assert finished
        for task, results in finished:
            in_flight -= 1
            came += 1
            assert len(results) == len(task.configs)
            for (_, number), result in zip(task.keys, results, strict=True):
                at = number, task.images.image_set, task.images.start
                assert at not in out or out[at] == plain(result)
                out[at] = plain(result)
    assert came == len(tasks) and kill_after is None
    return out


def plain(result: RangeResult | Failure) -> tuple[bytes, int, bytes] | Failure:
    if isinstance(result, Failure):
        return result
    losses = b"" if result.losses is None else result.losses.tobytes()
    return result.predictions.tobytes(), result.fallbacks, losses


def kill_workers() -> int:
    """SIGKILL for every worker of this process; how many there were."""
    pids = ray_workers(os.getpid())
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return len(pids)


@pytest.fixture(scope="module")
def expected(digits: Digits) -> Plain:
    return collected(LocalPool(digits.job(batch_size=32)), SINGLE)


# --- one task, without a pool ----------------------------------------------------------------


class Held:
    """What a run takes memory for."""


class Fake:
    """A model runner that runs out of memory at first; predicts how many layers there are.

    lacks: how often it does, and how that is said. refused: so many layers do not fit. fits: so
    many images at a time are what there is memory for, said by `lacking`.
    """

    lacking: type[Exception] = MemoryError

    def __init__(
        self, *lacks: Exception, refused: int = -1, batch_size: int = 1, fits: int = 1
    ) -> None:
        self.batch_size = batch_size
        self.fits = fits
        self.lacks = list(lacks)
        self.refused = refused
        self.log: list[Any] = []
        self.held: list[weakref.ref[Held]] = []
        self.still_held = 0  # at the beginning of later runs

    def run(self, configs: Any, images: ImageRange) -> list[RangeResult]:
        self.still_held += sum(each() is not None for each in self.held)
        held = Held()
        self.held.append(weakref.ref(held))
        numbers = [len(config.layers) for config in configs]
        self.log.append(numbers)
        if self.lacks:
            raise self.lacks.pop(0)
        if self.refused in numbers:
            raise ConfigError(f"{self.refused} does not fit")
        if self.batch_size > self.fits:
            raise self.lacking(f"{self.batch_size} images do not fit")
        ones = np.ones(len(images), np.int32)
        origin = Origin("fake", "fp32", self.batch_size)
        return [RangeResult(number * ones, number, 0.5, origin) for number in numbers]

    def halve_batches(self) -> bool:
        self.batch_size //= 2
        self.log.append(self.batch_size)
        return self.batch_size > 0

    def clear_cache(self) -> None:
        self.log.append("clear_cache")


def task_of(*numbers: int) -> Task:
    """Configurations that have so many layers."""
    configs = [
        PruningConfig(tuple(PruningLayer(b) for b in range(1, number + 1))) for number in numbers
    ]
    keys = tuple(("trial", number) for number in numbers)
    return Task(keys, tuple(configs), ImageRange("search", 4, 7))


def evaluated(fake: Any, task: Task) -> list[Any]:
    return [
        result if isinstance(result, Failure) else (result.predictions.tolist(), result.fallbacks)
        for result in evaluate_task(fake, task)
    ]


def test_results_come_in_the_order_of_the_configurations() -> None:
    fake = Fake()
    assert evaluated(fake, task_of(3, 1, 2)) == [([3, 3, 3], 3), ([1, 1, 1], 1), ([2, 2, 2], 2)]
    assert fake.log == [[3, 1, 2]]


def test_one_configuration_that_does_not_fit_fails_and_the_others_of_its_task_do_not() -> None:
    fake = Fake(refused=1)
    failure = Failure("1 does not fit")
    assert evaluated(fake, task_of(3, 1, 2)) == [([3, 3, 3], 3), failure, ([2, 2, 2], 2)]
    assert fake.log == [[3, 1, 2], [3], [1], [2]]
    assert evaluated(fake, task_of(1)) == [failure]
    assert evaluated(fake, task_of(1, 1)) == [failure, failure]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_lack_of_memory_is_tried_once_more_and_then_one_by_one(error: type[Exception]) -> None:
    once = Fake(error("16 GiB\nasked for"))
    assert evaluated(once, task_of(2, 1)) == [([2, 2, 2], 2), ([1, 1, 1], 1)]
    assert once.log == [[2, 1], "clear_cache", [2, 1]]
    twice = Fake(error("12 GiB"), error("16 GiB\nasked for"))
    assert evaluated(twice, task_of(2, 1)) == [([2, 2, 2], 2), ([1, 1, 1], 1)]
    assert twice.log == [[2, 1], "clear_cache", [2, 1], "clear_cache", [2], [1]]
    always = Fake(*[error("16 GiB\nasked for")] * 6)
    failure = Failure("out of memory on one image: 16 GiB", out_of_memory=True)
    assert evaluated(always, task_of(2, 1)) == [failure] * 2
    silent = Fake(error(), error())
    failure = Failure("out of memory on one image: out of memory", out_of_memory=True)
    assert evaluated(silent, task_of(2)) == [failure]


def test_batches_are_halved_until_they_fit_and_stay_so() -> None:
    fake = Fake(batch_size=50, fits=13)
    (result,) = evaluate_task(fake, task_of(2))
    assert isinstance(result, RangeResult) and result.origin.batch_size == 12
    assert fake.log == [[2], "clear_cache", [2], "clear_cache", 25, [2], "clear_cache", 12, [2]]
    fake.log.clear()
    assert evaluated(fake, task_of(3, 1)) == [([3, 3, 3], 3), ([1, 1, 1], 1)]
    assert fake.log == [[3, 1]]


def test_what_pytorch_says_where_a_cpu_lacks_memory_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    (failure,) = evaluated(Fake(caught.value, caught.value), task_of(2))
    assert isinstance(failure, Failure) and failure.out_of_memory


def test_another_error_of_pytorch_is_not_taken_for_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        evaluated(Fake(RuntimeError("shapes do not match")), task_of(2))


def test_what_lacked_memory_has_let_go_of_its_own_when_it_is_tried_again() -> None:
    fake = Fake(MemoryError())
    evaluated(fake, task_of(2, 1))
    assert fake.log == [[2, 1], "clear_cache", [2, 1]] and fake.still_held == 0


def test_a_configuration_that_does_not_fit_is_told_after_lack_of_memory_too() -> None:
    fake = Fake(MemoryError("16 GiB"), refused=1)
    assert evaluated(fake, task_of(3, 1)) == [([3, 3, 3], 3), Failure("1 does not fit")]
    assert fake.log == [[3, 1], "clear_cache", [3, 1], [3], [1]]


# --- this process ---------------------------------------------------------------------------


def test_tasks_of_several_give_what_tasks_of_one_give(digits: Digits, expected: Plain) -> None:
    for cache_bytes in (0, 1 << 40):
        pool = LocalPool(digits.job(batch_size=32, cache_bytes=cache_bytes))
        assert collected(pool, SEVERAL) == expected


def test_this_process_takes_one_task_at_a_time(digits: Digits, expected: Plain) -> None:
    pool = LocalPool(digits.job(batch_size=32))
    assert (pool.workers, pool.room) == (0, 1)
    pool.submit(SEVERAL[2], pool.free)
    assert pool.room == 0
    ((task, results),) = pool.finished()
    assert task is SEVERAL[2] and pool.room == 1
    assert [plain(result) for result in results] == [expected[i, "holdout", 0] for i in (2, 0)]


def test_what_this_process_has_kept_goes_when_the_pool_is_closed(digits: Digits) -> None:
    pool = LocalPool(digits.job(batch_size=32, cache_bytes=1 << 40))
    collected(pool, SEVERAL)
    assert pool._runner.cached_bytes > 0
    pool.close()
    assert pool._runner.cached_bytes == 0


# --- Ray ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_ray() -> Iterator[None]:
    """Ray as a search starts it, for all pools of this file but the last: it takes seconds."""
    assert ray_cluster.connect(None, threads=1, workers=2)
    yield
    ray_cluster.disconnect()


@pytest.fixture(scope="module")
def two_workers(digits: Digits, one_ray: None) -> Iterator[RayPool]:
    pool = RayPool(digits.job(batch_size=32, cache_bytes=50_000_000), 2)
    yield pool
    pool.close()


@pytest.fixture
def alone(two_workers: RayPool) -> None:
    two_workers.close()  # no test after this one may use it


@contextlib.contextmanager
def opened(job: Job, workers: int | None) -> Iterator[RayPool]:
    pool = open_pool(job, workers)
    try:
        assert isinstance(pool, RayPool) and workers in (None, pool.workers)
        yield pool
    finally:
        pool.close()


@slow
def test_ray_workers_give_what_this_process_gives(two_workers: RayPool, expected: Plain) -> None:
    assert two_workers.workers == 2 and len(set(two_workers.pids())) == 2
    assert two_workers.room == 4
    assert collected(two_workers, SINGLE) == expected
    assert collected(two_workers, SEVERAL) == expected
    assert two_workers.room == 4


@slow
def test_all_that_is_done_comes_in_together(two_workers: RayPool, expected: Plain) -> None:
    for task in SEVERAL[:4]:
        two_workers.submit(task, two_workers.free)
    assert two_workers.room == 0
    ray.wait(list(two_workers._running), num_returns=4)
    came = two_workers.finished()
    assert sorted(map(repr, (task for task, _ in came))) == sorted(map(repr, SEVERAL[:4]))
    assert two_workers.room == 4


@slow
def test_killed_workers_cost_a_retry_and_nothing_else(
    two_workers: RayPool, expected: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr(two_workers, "_tell", told.append)
    before = set(two_workers.pids())
    assert set(ray_workers(os.getpid())) == before
    assert collected(two_workers, SEVERAL, kill_after=1) == expected
    retries = [event for event in told if isinstance(event, Retry)]
    assert sorted(event.worker for event in retries) == [0, 1]
    for event in retries:  # the second of them may have been given what the first had
        assert event.deaths == 1 and event.tasks in (1, 2, 3, 4)
        assert event.trial in range(len(CONFIGS)) and len(event.reason.splitlines()) == 1
    assert len(set(two_workers.pids()) - before) == 2
    assert collected(two_workers, SINGLE[:3]) == {at: expected[at] for at in expected if at[0] == 0}


@slow
def test_a_ray_that_dies_again_and_again_is_given_up(
    two_workers: RayPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(two_workers, "_restarts", 2)
    lost = ray_cluster.Lost("its raylet died", for_good=True)
    monkeypatch.setattr(ztp_search.evaluation.ray_pool, "what_is_lost", lambda: lost)
    with pytest.raises(OutageError, match="^Ray died 3 times: its raylet died$"):
        two_workers._look()


@slow
@pytest.mark.parametrize("for_good", [False, True])
def test_a_cluster_that_is_gone_is_waited_for_where_it_may_come_back(
    for_good: bool, two_workers: RayPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ztp_search.evaluation.ray_pool
    for name in ("_connected", "_crew", "_looked", "_lost_since"):
        monkeypatch.setattr(two_workers, name, getattr(two_workers, name))
    monkeypatch.setattr(pool, "abandon", lambda: None)
    monkeypatch.setattr(pool, "is_of_this_process", lambda: False)
    lost = ray_cluster.Lost("its head does not answer", for_good)
    left = iter([*[lost] * 29, None, *[lost] * 31])
    monkeypatch.setattr(pool, "what_is_lost", lambda: next(left))
    seconds = iter(range(100, 200))  # one passes each time
    monkeypatch.setattr(pool, "time", mock.Mock(monotonic=lambda: float(next(seconds))))
    with pytest.raises(OutageError, match="^the Ray cluster is gone: its head does not answer$"):
        while True:
            two_workers._look()
    assert len(list(left)) == (60 if for_good else 0)


@slow
def test_what_this_ray_has_lost_is_found_out(two_workers: RayPool) -> None:
    node = ray._private.worker._global_node
    assert ray_cluster.what_is_lost() is None and ray_cluster.is_of_this_process()
    with mock.patch.object(type(node), "raylet_socket_name", "/no/socket"):
        lost = ray_cluster.what_is_lost()
        assert lost is not None and lost.for_good and "raylet on this machine" in lost.what
    with mock.patch.object(type(node), "gcs_address", "127.0.0.1:1"):
        lost = ray_cluster.what_is_lost()
        assert lost is not None and not lost.for_good
        assert lost.what.startswith("its head at 127.0.0.1:1 does not answer (")


@slow
def test_a_configuration_that_does_not_fit_fails_alone(
    two_workers: RayPool, digits: Digits, expected: Plain
) -> None:
    keys = ("trial", 1), ("trial", 7), ("trial", 2)
    mixed = Task(keys, (CONFIGS[1], TOO_DEEP, CONFIGS[2]), ImageRange("holdout", 0, 32))
    results = collected(two_workers, [SINGLE[3], mixed, SINGLE[4]])
    failure = results.pop((7, "holdout", 0))
    assert isinstance(failure, Failure) and not failure.out_of_memory
    assert "after_block=8" in failure.reason and "\n" not in failure.reason
    others = {(1, *BLOCKS[0][:2]), (1, *BLOCKS[1][:2]), (1, "holdout", 0), (2, "holdout", 0)}
    assert results == {at: expected[at] for at in others}
    assert collected(LocalPool(digits.job(batch_size=32)), [mixed])[7, "holdout", 0] == failure


@slow
def test_a_ray_of_its_own_is_shared_with_nobody(two_workers: RayPool) -> None:
    named = ray.util.list_named_actors(all_namespaces=True)
    assert {each["namespace"] for each in named}.isdisjoint({ray_seat.NAMESPACE})


@slow
def test_workers_map_the_images_and_do_not_copy_them(two_workers: RayPool, digits: Digits) -> None:
    for pid in two_workers.pids():
        mapped = Path(f"/proc/{pid}/maps").read_text()
        assert str(digits.sets.search.path / "images.npy") in mapped
        assert str(digits.sets.holdout.path / "images.npy") in mapped


@slow
def test_a_task_that_kills_every_worker_is_given_up_and_the_others_are_not(
    two_workers: RayPool, expected: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    # each costs the start of a worker
    monkeypatch.setattr(ztp_search.evaluation.ray_pool, "MAX_DEATHS", 2)
    keys = ("trial", 66), ("trial", 67), ("trial", 68)
    configs: Any = None, Deadly(), None
    deadly = Task(keys, configs, ImageRange("search", 0, 64))
    for task in (deadly, SINGLE[0], SINGLE[1]):  # the last one waits behind the deadly one
        two_workers.submit(task, two_workers.free)
    came: list[Task] = []
    with pytest.raises(WorkerError) as caught:
        while len(came) < 3:
            came += [task for task, _ in two_workers.finished()]
    assert str(caught.value).startswith(
        "2 workers died one after the other on trial 66 and 2 more (images 0 to 64): "
    )
    assert "\n" not in str(caught.value)
    while len(came) < 2:
        came += [task for task, _ in two_workers.finished()]
    assert sorted(task.images.start for task in came) == [0, 64]


@slow
def test_one_worker_in_bf16_gives_what_this_process_gives(alone: None, digits: Digits) -> None:
    expected = collected(LocalPool(digits.job("bf16", 32)), SINGLE)
    with opened(digits.job("bf16", 32), 1) as pool:
        assert collected(pool, SEVERAL) == expected
        unknown = Task((("trial", 5), ("trial", 6)), (None, None), ImageRange("no such set", 0, 64))
        pool.submit(unknown, pool.free)
        said = "evaluating trial 5 and 1 more failed: KeyError: 'no such set'"
        with pytest.raises(WorkerError, match=said):  # our own fault: one line, not tried again
            pool.finished()


@slow
def test_a_worker_that_cannot_start_is_said_in_one_line(
    alone: None, digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ztp_search.evaluation.ray_pool, "MAX_DEATHS", 1)
    with opened(digits.job(gone=tmp_path / "gone"), 1) as pool:
        pool.submit(SINGLE[0], pool.free)
        with pytest.raises(WorkerError, match="image store .*gone is damaged") as caught:
            pool.finished()
        assert "\n" not in str(caught.value)


@slow
def test_a_worker_may_have_more_threads_than_there_are_cores(
    alone: None, digits: Digits, expected: Plain
) -> None:
    ray_cluster.disconnect()
    job = digits.job(batch_size=32)
    threads = (os.cpu_count() or 1) + 1
    with opened(replace(job, runtime=replace(job.runtime, threads=threads)), None) as pool:
        assert pool.workers == 1
        assert collected(pool, SINGLE[:1]).keys() == {(0, *BLOCKS[0][:2])}
    assert not ray.is_initialized() and not ray_workers(os.getpid())


@slow
def test_nodes_may_join_and_leave(alone: None, digits: Digits, expected: Plain) -> None:
    from ray.cluster_utils import Cluster

    ray_cluster.disconnect()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    said: list[Event] = []
    job = digits.job(batch_size=32)
    with mock.patch.object(ray_seat, "BEAT_SECONDS", 0.2):
        pool = RayPool(job, None, address=cluster.address, tell=said.append)
        try:
            assert pool.workers == 1
            node = cluster.add_node(num_cpus=1)
            while len(said) < 2:  # until the new one works too
                assert collected(pool, SEVERAL) == expected
            assert said == [Joined(0, 1), Joined(1, 2)] and pool.workers == 2
            pool.hold_targets("search", TARGETS)
            for task in SEVERAL[:4]:
                pool.submit(task, pool.free)
            cluster.remove_node(node, allow_graceful=False)
            came = 0
            while came < 4:
                came += len(pool.finished())
            assert collected(pool, SEVERAL) == expected
            assert isinstance(said[2], Retry) and len(said) == 3
            assert pool.free == 0 and pool.room == 2
        finally:
            pool.close()
            cluster.shutdown()


@slow
def test_a_pool_has_its_share_whoever_comes_goes_or_dies(
    alone: None, digits: Digits, expected: Plain
) -> None:
    from ray.cluster_utils import Cluster

    ray_cluster.disconnect()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    said: list[Event] = []

    def rival(name: str) -> None:
        """Another search says that it wants a worker, and has one."""
        ray.get(ray_seat._table().say.remote(name, "CPU", 1.0, 1, 1))

    def leaves(name: str) -> None:
        ray.get(ray_seat._table().leave.remote(name))

    def tell(event: Event) -> None:
        said.append(event)
        if event == Shared(0, 2, 3):
            leaves("one")

    def until(condition: Callable[[], bool]) -> None:
        while not condition():
            assert collected(pool, SEVERAL) == expected

    assert ray_cluster.connect(cluster.address, 1, None)
    with mock.patch.object(ray_seat, "BEAT_SECONDS", 0.2):
        rival("one")
        rival("two")
        early = ray_cluster.start_workers(2, num_cpus=1)
        pool = RayPool(digits.job(batch_size=32), None, address=cluster.address, tell=tell)
        try:
            assert said == [Shared(0, 2, 3), Shared(1, 2, 2)]
            assert pool.workers == 1 and len(early) == 2
            assert ray.util.list_named_actors() == ["ztp-worker-0"]
            said.clear()
            leaves("two")
            until(lambda: len(said) == 3)
            assert Shared(2, 2, 1) in said and said[-1] == Joined(1, 2)
            for task in SEVERAL[:4]:
                pool.submit(task, pool.free)
            rival("three")
            while len(pool._crew.living) > 1:  # nobody asks the pool for anything
                time.sleep(0.1)
            came = 0
            while came < 4:
                came += len(pool.finished())
            ray.kill(ray_seat._table())
            rival("three")
            assert collected(pool, SEVERAL) == expected
            assert said[3:] == [Shared(1, 2, 2)] and pool.workers == 1
            leaves("three")
            until(lambda: len(said) == 6)
            assert said[4:] == [Shared(2, 2, 1), Joined(1, 2)]
            pool.close()
            assert not ray.util.list_named_actors(all_namespaces=True)  # the table went with it
        finally:
            pool.close()
            ray_cluster.disconnect()
            cluster.shutdown()
