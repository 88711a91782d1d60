"""One pass of configurations over images: everything once, and no trace of how it was spread."""

from __future__ import annotations

import collections
import itertools
import math
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest
from conftest import Digits

from ztp_search.errors import WorkerError
from ztp_search.evaluation.image_range import ImageRange
from ztp_search.evaluation.local_pool import LocalPool
from ztp_search.evaluation.model_runner import RangeResult
from ztp_search.evaluation.origin import Origin
from ztp_search.evaluation.scheduler import (
    RANGE_IMAGES,
    TASK_IMAGES,
    TASKS_PER_WORKER,
    Outcome,
    Scheduler,
)
from ztp_search.evaluation.tasks import Failure, Pool, Results, Task
from ztp_search.evaluation.work_queue import Key
from ztp_search.pruning.config import PruningConfig, PruningLayer

ORIGIN = Origin("made up", "fp32", 64)
Configs = dict[Key, PruningConfig | None]
Plain = tuple[list[int], int, float] | Failure


def predicted(number: int, image: int) -> int:
    return (31 * number + 7 * image) % 1009


def result_of(number: int, start: int, stop: int) -> RangeResult:
    """What a configuration gives on a block: two numbers in 64 are fallbacks, 1/8 s an image."""
    predictions = np.array([predicted(number, image) for image in range(start, stop)], np.int32)
    fallbacks = int((predictions % 64 < 2).sum())
    return RangeResult(predictions, fallbacks, (stop - start) / 8, ORIGIN)


@dataclass
class Fake:
    """A pool in memory that finishes what it was given in random order, some tasks at a time.

    fails: (number, start) of blocks on which a configuration fails.
    log: in order, tasks submitted, and lists of what was finished.
    """

    workers: int
    seed: int = 0
    fails: frozenset[tuple[int, int]] = frozenset()
    log: list[Task | list[tuple[Task, Results]]] = field(default_factory=list)
    in_flight: list[Task] = field(default_factory=list)
    given: list[tuple[int, Task]] = field(default_factory=list)  # worker and task, in order

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    @property
    def room(self) -> int:
        return max(1, 2 * self.workers) - len(self.in_flight)

    @property
    def tasks(self) -> list[Task]:
        return [entry for entry in self.log if isinstance(entry, Task)]

    @property
    def free(self) -> int:
        at_hand = collections.Counter(
            worker for worker, task in self.given if any(task is each for each in self.in_flight)
        )
        return min(range(max(1, self.workers)), key=lambda worker: (at_hand[worker], worker))

    def submit(self, task: Task, worker: int) -> None:
        assert self.room > 0 and worker == self.free
        assert len(task.keys) == len(task.configs) == len(set(task.keys)) > 0
        self.in_flight.append(task)
        self.given.append((worker, task))
        self.log.append(task)

    def finished(self) -> list[tuple[Task, Results]]:
        assert self.in_flight, "would wait for ever"
        done = self.rng.sample(self.in_flight, self.rng.randint(1, len(self.in_flight)))
        self.in_flight = [task for task in self.in_flight if not any(task is d for d in done)]
        came = [(task, self.results(task)) for task in done]
        self.log.append(came)
        return came

    def results(self, task: Task) -> Results:
        return [
            Failure(f"{number} fails")
            if (number, task.images.start) in self.fails
            else result_of(number, task.images.start, task.images.stop)
            for _, number in task.keys
        ]

    def close(self) -> None:
        raise AssertionError("not for the scheduler to do")


@dataclass
class Round:
    """One call of `Scheduler.evaluate`, and what it reported."""

    pool: Fake
    chunks: list[Configs]
    start: int
    stop: int
    batch_size: int
    coming: int = 0  # about how many configurations the scheduler is told to expect
    reported: list[dict[Key, Plain]] = field(default_factory=list)
    images: int = 0

    def play(self, source: Iterable[Configs] | None = None) -> Round:
        scheduler = Scheduler(lambda: self.pool, self.batch_size)
        for completed in scheduler.evaluate(
            self.chunks if source is None else source,
            ImageRange("search", self.start, self.stop),
            self.coming,
        ):
            self.images += completed.image_evaluations
            assert completed.running == sum(len(task.keys) for task in self.pool.in_flight)
            if completed.outcomes:
                self.finished(completed.outcomes)
        assert not self.pool.in_flight
        return self

    def finished(self, outcomes: Mapping[Key, Outcome | Failure]) -> None:
        assert outcomes
        self.reported.append({key: plain(outcome) for key, outcome in outcomes.items()})

    @property
    def outcomes(self) -> dict[Key, Plain]:
        out: dict[Key, Plain] = {}
        for outcomes in self.reported:
            assert not out.keys() & outcomes.keys(), "reported twice"
            out |= outcomes
        return out

    @property
    def keys(self) -> list[Key]:
        return [key for chunk in self.chunks for key in chunk]

    @property
    def expected(self) -> dict[Key, Plain]:
        """One image after the other, without blocks."""
        failing = {number for number, start in self.pool.fails if self.start <= start < self.stop}
        return {key: expected_of(key[1], self.start, self.stop, failing) for key in self.keys}


def expected_of(number: int, start: int, stop: int, failing: set[int]) -> Plain:
    if number in failing:
        return Failure(f"{number} fails")
    predictions = [predicted(number, image) for image in range(start, stop)]
    return predictions, sum(p % 64 in (0, 1) for p in predictions), (stop - start) / 8


def plain(outcome: Outcome | Failure) -> Plain:
    if isinstance(outcome, Failure):
        return outcome
    assert outcome.predictions.dtype == np.int32
    return outcome.predictions.tolist(), outcome.fallbacks, outcome.seconds


def config(first: int) -> PruningConfig:
    return PruningConfig((PruningLayer(first, 0.5), PruningLayer(first + 2, 0.5)))


def chunks_of(rng: random.Random, count: int) -> list[Configs]:
    """So many configurations in chunks of all sizes, empty ones among them."""
    every: list[PruningConfig | None] = [
        rng.choice([None, PruningConfig(), *map(config, range(1, 9))]) for _ in range(count)
    ]
    numbered = list(zip((("trial", number) for number in range(count)), every, strict=True))
    rng.shuffle(numbered)
    chunks = []
    while numbered:
        size = rng.choice([0, 1, 3, 17, 100])
        chunks.append(dict(numbered[:size]))
        del numbered[:size]
    return chunks


def drawn(seed: int, failures: bool = False, workers: int | None = None) -> Round:
    """A round of any kind; `workers` changes nothing else of it."""
    rng = random.Random(seed)
    batch_size = (1, 7, 32, 64, 100, 128, 200, 600)[seed % 8]
    start = rng.choice([0, 0, 13, 256, 1000])
    stop = start + (1, 64, 129, 500, 1300)[seed // 8 % 5]
    chunks = chunks_of(rng, rng.randint(1, 40))
    numbers = [number for chunk in chunks for _, number in chunk]
    size = batch_size * max(1, RANGE_IMAGES // batch_size)
    blocks = [(n, s) for n in numbers if n % 3 == 0 for s in range(start, stop, size)]
    fails = frozenset(rng.sample(blocks, (len(blocks) + 1) // 2)) if failures else frozenset()
    drawn_workers = rng.choice([0, 1, 2, 5, 16])
    pool = Fake(drawn_workers if workers is None else workers, seed, fails)
    return Round(pool, chunks, start, stop, batch_size)


SEEDS = range(40)  # every size of a batch with every number of images

# --- what is reported ---------------------------------------------------------------------------


@pytest.mark.parametrize("seed", SEEDS)
def test_every_configuration_is_reported_once_with_its_predictions_in_order(seed: int) -> None:
    done = drawn(seed).play()
    assert done.outcomes == done.expected
    assert done.images == len(done.keys) * (done.stop - done.start)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_what_waits_is_what_no_worker_has_been_given(workers: int) -> None:
    pool = Fake(workers)
    configs: Configs = {("trial", number): None for number in range(40)}
    seen = []
    for completed in Scheduler(lambda: pool, 64).evaluate([configs], ImageRange("search", 0, 512)):
        given = sum(len(task.keys) for task in pool.tasks)
        assert completed.waiting == 40 * 512 // RANGE_IMAGES - given
        seen.append(completed.waiting)
    assert seen[0] > 0 and (completed.waiting, completed.running) == (0, 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_neither_workers_nor_the_order_of_completion_change_what_is_reported(seed: int) -> None:
    first = drawn(seed, failures=True).play()
    for workers, pool_seed in ((0, 1), (1, 2), (2, 3), (2, 4), (7, 5), (64, 6)):
        again = drawn(seed, failures=True, workers=workers)
        again.pool.rng.seed(pool_seed)
        again.coming = 100 * pool_seed
        assert again.play().outcomes == first.outcomes == first.expected


@pytest.mark.parametrize("seed", SEEDS)
def test_a_configuration_that_fails_is_reported_once_and_not_asked_for_again(seed: int) -> None:
    done = drawn(seed, failures=True).play()
    assert done.outcomes == done.expected
    failed: set[Key] = set()
    images = 0
    for entry in done.pool.log:
        if isinstance(entry, Task):
            assert not failed & set(entry.keys)
            continue
        for task, results in entry:
            for key, result in zip(task.keys, results, strict=True):
                failed |= {key} if isinstance(result, Failure) else set()
                images += len(task.images) if key not in failed else 0
    assert failed == {key for key, told in done.outcomes.items() if isinstance(told, Failure)}
    assert done.images == images


def test_the_first_failure_is_the_one_that_is_reported_and_stops_the_blocks_behind_it() -> None:
    chunk: Configs = {("trial", 0): None, ("trial", 1): None}
    pool = Fake(0, fails=frozenset({(1, 256), (1, 512)}))
    done = Round(pool, [chunk], 0, 10 * 128, 64).play()
    starts = [task.images.start for task in pool.tasks for key in task.keys if key == ("trial", 1)]
    assert starts == [0, 128, 256]
    assert done.reported[0] == {("trial", 1): Failure("1 fails")}
    assert done.outcomes == done.expected
    assert done.images == 1280 + 256


def test_outcomes_are_reported_as_soon_as_the_last_block_is_in() -> None:
    chunks: list[Configs] = [{("trial", number): None} for number in range(5)]
    done = Round(Fake(0), chunks, 0, 300, 64)
    blocks_in: list[int] = []

    scheduler = Scheduler(lambda: done.pool, 64)
    for completed in scheduler.evaluate(chunks, ImageRange("search", 0, 300)):
        if completed.outcomes:
            blocks_in.append(sum(isinstance(entry, list) for entry in done.pool.log))
    assert blocks_in == [3, 6, 9, 12, 15]  # three blocks each, one after the other


def test_workers_that_are_lost_for_good_are_an_error() -> None:
    class Lost(Fake):
        def finished(self) -> list[tuple[Task, Results]]:
            raise WorkerError("3 workers died")

    with pytest.raises(WorkerError, match="3 workers died"):
        Round(Lost(2), [{("trial", 0): None}], 0, 64, 64).play()


# --- how it is cut into tasks ---------------------------------------------------------------


@pytest.mark.parametrize("failures", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_every_block_of_a_configuration_is_whole_batches_and_submitted_once(
    seed: int, failures: bool
) -> None:
    done = drawn(seed, failures).play()
    configs = {key: each for chunk in done.chunks for key, each in chunk.items()}
    blocks: dict[Key, list[tuple[int, int]]] = {key: [] for key in configs}
    for task in done.pool.tasks:
        images = task.images
        assert images.image_set == "search"
        assert done.start <= images.start < images.stop <= done.stop
        assert (images.start - done.start) % done.batch_size == 0
        assert (images.stop - done.start) % done.batch_size == 0 or images.stop == done.stop
        for key, each in zip(task.keys, task.configs, strict=True):
            assert each == configs[key]
            blocks[key].append((images.start, images.stop))
    for key, mine in blocks.items():
        assert len(set(mine)) == len(mine)
        if not isinstance(done.outcomes[key], Failure):
            covered = [image for start, stop in sorted(mine) for image in range(start, stop)]
            assert covered == list(range(done.start, done.stop))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_task_is_bigger_than_is_said(seed: int) -> None:
    done = drawn(seed).play()
    for task in done.pool.tasks:
        images = len(task.images)
        assert images <= max(RANGE_IMAGES, done.batch_size)
        assert images * len(task.configs) <= TASK_IMAGES or len(task.configs) == 1


@pytest.mark.parametrize(("workers", "count"), [(1, 1), (1, 9), (2, 40), (5, 11), (16, 300)])
def test_there_is_enough_for_all_workers_to_do(workers: int, count: int) -> None:
    chunk: Configs = {("trial", number): config(1 + number % 5) for number in range(count)}
    done = Round(Fake(workers), [chunk], 0, 256, 64).play()
    assert done.outcomes == done.expected
    assert len(done.pool.tasks) >= min(TASKS_PER_WORKER * workers, 2 * count)  # of two blocks


@pytest.mark.parametrize(("workers", "chunks"), [(1, 1), (3, 1), (3, 5), (8, 20)])
def test_tasks_grow_smaller_towards_the_end(workers: int, chunks: int) -> None:
    count = 400 // chunks
    source: list[Configs] = [
        {("trial", count * chunk + number): config(2) for number in range(count)}
        for chunk in range(chunks)
    ]
    done = Round(Fake(workers), source, 0, 512, 64, coming=400).play()
    assert done.outcomes == done.expected
    left = 400 * 4  # configurations on blocks
    sizes = [len(task.configs) for task in done.pool.tasks]
    for size in sizes:
        assert size == 1 or left / size >= TASKS_PER_WORKER * workers
        left -= size
    assert left == 0
    assert sizes[0] == TASK_IMAGES // RANGE_IMAGES
    assert set(sizes[-TASKS_PER_WORKER * workers :]) == {1}


def test_tasks_are_as_big_as_all_that_will_come_makes_them() -> None:
    chunks: list[Configs] = [
        {("trial", 8 * chunk + number): config(3) for number in range(8)} for chunk in range(5)
    ]
    alone = Round(Fake(4), chunks, 0, 256, 64).play()
    assert {len(task.configs) for task in alone.pool.tasks} == {1}  # 16 blocks for 4 workers
    assert RANGE_IMAGES == 128 and TASK_IMAGES // RANGE_IMAGES == 4
    many = Round(Fake(4), chunks, 0, 256, 64, coming=10_000).play()
    assert {len(task.configs) for task in many.pool.tasks} == {4}
    assert alone.outcomes == many.outcomes == many.expected


def test_what_shares_most_comes_together_and_a_worker_stays_with_its_block() -> None:
    rng = random.Random(0)
    firsts = [*range(1, 9)] * 5
    rng.shuffle(firsts)
    chunk: Configs = {("trial", number): config(first) for number, first in enumerate(firsts)}
    chunk |= {("reference", 0): None, ("reference", 1): PruningConfig()}
    done = Round(Fake(2), [chunk], 100, 356, 32, coming=1000).play()
    assert {task.images.start for task in done.pool.tasks} == {100, 228}
    for worker, start in ((0, 100), (1, 228)):
        starts = [task.images.start for at, task in done.pool.given if at == worker]
        own = list(itertools.takewhile(lambda each, start=start: each == start, starts))
        assert len(own) > 2 and start not in starts[len(own) :]  # helps elsewhere only at the end
    for start in (100, 228):
        # From the one end by its worker, from the other by who helps: what lies between is whole.
        mine = [task for task in done.pool.tasks if task.images.start == start]
        for task in mine:
            assert shared_blocks(task) == sorted(shared_blocks(task))
        everything = [blocks for task in mine for blocks in shared_blocks(task)]
        assert sorted(everything) == [0, 0, *sorted(firsts)]
        given = [(at, task) for at, task in done.pool.given if task.images.start == start]
        own = [task for at, task in given if at == start // 200]
        order = [blocks for task in own for blocks in shared_blocks(task)]
        assert order == [0, 0, *sorted(firsts)][: len(order)]
    assert max(len(task.configs) for task in done.pool.tasks) > 1


def shared_blocks(task: Task) -> list[int]:
    """Of each configuration, the block that its first pruning layer follows, or 0."""
    return [each.layers[0].after_block if each and each.layers else 0 for each in task.configs]


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_few_blocks_are_taken_up_by_several_workers(workers: int) -> None:
    """What a worker has at hand of a block is of use to no other."""
    chunks: list[Configs] = [
        {("trial", 20 * chunk + number): config(1 + number % 6) for number in range(20)}
        for chunk in range(4)
    ]
    done = Round(Fake(workers, seed=workers), chunks, 0, 24 * 128, 64).play()
    assert done.outcomes == done.expected
    workers_of: dict[int, set[int]] = {}
    for worker, task in done.pool.given:
        workers_of.setdefault(task.images.start, set()).add(worker)
    assert len(workers_of) == 24
    more = sum(len(each) - 1 for each in workers_of.values())
    assert more <= 24 * (workers - 1) / 4  # without a plan it is nearly 24 (workers - 1)


# --- when it asks ---------------------------------------------------------------------------


def unopened() -> Pool:
    raise AssertionError("opened")


@pytest.mark.parametrize("source", [[], [{}], [{}, {}, {}]])
def test_the_pool_is_not_opened_when_there_is_nothing_to_evaluate(source: list[Configs]) -> None:
    assert list(Scheduler(unopened, 32).evaluate(source, ImageRange("search", 0, 64))) == []


def test_the_pool_is_opened_once_there_is_something_to_evaluate() -> None:
    class Opened(Exception):
        pass

    def pool() -> Pool:
        raise Opened

    asked: list[int] = []

    def source() -> Iterator[Configs]:
        for number in range(3):
            asked.append(number)
            yield {("trial", number): None} if number == 1 else {}

    with pytest.raises(Opened):
        list(Scheduler(pool, 32).evaluate(source(), ImageRange("search", 0, 64)))
    assert asked == [0, 1]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("seed", range(10))
def test_the_source_is_asked_only_when_the_pool_has_room(workers: int, seed: int) -> None:
    done = drawn(seed, workers=workers)
    block = done.batch_size * max(1, RANGE_IMAGES // done.batch_size)
    blocks = math.ceil((done.stop - done.start) / block)
    asked = 0

    def source() -> Iterator[Configs]:
        nonlocal asked
        for chunk in done.chunks:
            asked += 1
            assert done.pool.room > 0
            submitted = collections.Counter(key for task in done.pool.tasks for key in task.keys)
            earlier = {key for before in done.chunks[: asked - 1] for key in before}
            assert submitted == dict.fromkeys(earlier, blocks)  # nothing is left to hand out
            yield chunk
        assert done.pool.room > 0

    done.play(source())
    assert asked == len(done.chunks) and done.outcomes == done.expected


@pytest.mark.parametrize("failures", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_workers_have_work_again_before_anything_is_reported(seed: int, failures: bool) -> None:
    done = drawn(seed, failures)
    given: list[Configs] = []

    def source() -> Iterator[Configs]:
        for chunk in done.chunks:
            yield chunk
            given.append(chunk)

    class Telling(Round):
        def finished(self, outcomes: Mapping[Key, Outcome | Failure]) -> None:
            assert self.pool.room == 0 or given == self.chunks
            super().finished(outcomes)

    telling = Telling(done.pool, done.chunks, done.start, done.stop, done.batch_size)
    assert telling.play(source()).outcomes == telling.expected


@pytest.mark.parametrize(("workers", "ahead"), [(0, 1), (1, 3), (4, 15)])
def test_the_source_may_learn_from_what_was_reported(workers: int, ahead: int) -> None:
    done = Round(Fake(workers), [], 0, 128, 64)
    behind: list[int] = []

    def source() -> Iterator[Configs]:
        for number in range(30):
            behind.append(number - len(done.outcomes))
            yield {("trial", number): None}

    done.play(source())
    # Two for each worker are under way, and as many have come in but the last is asked for first.
    assert max(behind) <= ahead


def test_a_source_that_ends_early_still_gets_all_that_it_asked_for() -> None:
    done = Round(Fake(2), [], 0, 300, 64)

    def source() -> Iterator[Configs]:
        number = 0
        while len(done.outcomes) < 10:  # as when the time is up
            done.chunks.append({("trial", number): None})
            yield done.chunks[-1]
            number += 1

    done.play(source())
    assert len(done.chunks) >= 10 and done.outcomes == done.expected


# --- with real work -------------------------------------------------------------------------


def test_a_pool_of_this_process_gives_what_its_model_runner_gives_on_all_images(
    digits: Digits,
) -> None:
    too_deep = PruningConfig((PruningLayer(8, 0.5),))
    configs: Configs = {
        ("reference", 0): None,
        ("trial", 0): PruningConfig((PruningLayer(2, 0.6, 3, 5),), v_min=0.4, v_max=0.8),
        ("trial", 1): too_deep,
        ("trial", 2): PruningConfig((PruningLayer(3, 0.6), PruningLayer(7, 0.5, 5, 1))),
    }
    told: dict[Key, Outcome | Failure] = {}
    evaluations = 0
    images = ImageRange("search", 10, 130)
    job = digits.job(batch_size=48, cache_bytes=50_000_000)
    pool = LocalPool(job)
    for completed in Scheduler(lambda: pool, 48).evaluate([configs], images):
        told |= completed.outcomes
        evaluations += completed.image_evaluations
    assert evaluations == 3 * 120
    failure = told.pop(("trial", 1))
    assert isinstance(failure, Failure) and "after_block=8" in failure.reason
    for key, outcome in told.items():
        (whole,) = digits.job(batch_size=48).model_runner().run([configs[key]], images)
        assert isinstance(outcome, Outcome)
        assert outcome.predictions.tobytes() == whole.predictions.tobytes()
        assert outcome.fallbacks == whole.fallbacks
