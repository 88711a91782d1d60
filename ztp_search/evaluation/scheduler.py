"""Spreads configurations and images over the workers of a pool.

A task is one image range with several configurations (see `WorkQueue`). How configurations are
put into tasks, and which worker gets them, changes no result, so it may depend on the number of
workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ztp_search.evaluation.image_range import ImageRange
from ztp_search.evaluation.model_runner import RangeResult
from ztp_search.evaluation.origin import Origins, joined
from ztp_search.evaluation.tasks import Failure, Pool, Task
from ztp_search.evaluation.work_queue import Key, WorkQueue
from ztp_search.objectives import Distributions, Predictions
from ztp_search.pruning.config import PruningConfig
from ztp_search.racing import Losses

Configs = Mapping[Key, PruningConfig | None]
"""Configurations to evaluate, by whose result it is; None is the unpruned model."""

RANGE_IMAGES = 128
"""Images of a range, about; a whole number of batches."""
TASK_IMAGES = 512
"""Images times configurations of a task, at most about: tenths of a second on one core."""
TASKS_PER_WORKER = 4
"""The queue is cut into at least so many tasks per worker, where it is long enough: tasks shrink
towards the end, so that all workers end together."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a configuration gave on all images asked for.

    Attributes:
        predictions: what the objective reads off the logits, (images,).
        fallbacks: images for which the head filter left no head.
        seconds: of forward passes, over all workers.
        origins: of how many images the results come from where.
        losses: how far outputs are from their targets, (images,), where workers have any.
        distributions: the unpruned model's outputs, (images, classes), where it was evaluated.
    """

    predictions: Predictions
    fallbacks: int
    seconds: float
    origins: Origins
    losses: Losses | None = None
    distributions: Distributions | None = None


@dataclass(frozen=True, slots=True)
class Completed:
    """What has come in since the last time.

    Attributes:
        outcomes: of configurations whose last image range came in, or which failed.
        image_evaluations: images times configurations that came in.
        waiting, running: evaluations of a configuration on a range of images that no worker has
            been given yet, of those that have come from the source, and that workers have.
    """

    outcomes: Mapping[Key, Outcome | Failure]
    image_evaluations: int
    waiting: int = 0
    running: int = 0


class Scheduler:
    """Evaluates configurations on images by the workers of a pool.

    Args:
        pool: returns the pool; called once there is something to evaluate.
        batch_size: images per forward; ranges are whole batches.
    """

    def __init__(self, pool: Callable[[], Pool], batch_size: int) -> None:
        self._pool = pool
        self._range_images = batch_size * max(1, RANGE_IMAGES // batch_size)

    def evaluate(
        self, source: Iterable[Configs], images: ImageRange, expected: int = 0
    ) -> Iterator[Completed]:
        """Evaluate configurations on a range of images.

        Args:
            source: configurations, some at a time, asked for as workers have room.
            images: the images, at least one.
            expected: about how many configurations `source` will give, if more than the first
                ones: tasks are made larger where many are still to come.

        Yields:
            What has come in, each time that workers have been given new tasks. Every
            configuration has exactly one outcome.

        Raises:
            ValueError: the range of images is empty.
            WorkerError: workers are lost for good.
        """
        return _Pass(self._pool, source, images, self._range_images, expected).run()


class _Pass:
    """One call of `Scheduler.evaluate`: what is queued, what is in flight, what has come in."""

    def __init__(
        self,
        pool: Callable[[], Pool],
        source: Iterable[Configs],
        images: ImageRange,
        range_images: int,
        expected: int,
    ) -> None:
        if not len(images):
            raise ValueError("there must be images to evaluate on, but the range is empty")
        self.pool = pool
        self.chunks = iter(source)
        self.ranges = images.split(range_images)
        self.queue = WorkQueue(self.ranges)
        self.expected = expected
        self.started = 0  # configurations that have come from the source
        self.parts: dict[Key, dict[int, RangeResult]] = {}  # of those that are not through
        self.in_flight = 0  # tasks
        self.running = 0  # their configurations

    def run(self) -> Iterator[Completed]:
        """Give workers all the tasks they have room for, wait for some, report; again."""
        drained = False
        completed: Completed | None = None
        while True:
            while not drained and (self.in_flight == 0 or self.pool().room > 0):
                following = self._next_task()
                if following is None:
                    drained = True
                else:
                    self.pool().submit(*following)
                    self.in_flight += 1
                    self.running += len(following[0].keys)
            if completed is not None:  # reported when all workers have work again
                yield replace(completed, waiting=self.queue.size, running=self.running)
            if not self.in_flight:
                return
            completed = self._collect()

    def _next_task(self) -> tuple[Task, int] | None:
        """A task and the worker that it is for; None where no configuration is left."""
        while True:
            while not self.queue:
                configs = next(self.chunks, None)
                if configs is None:
                    return None
                self.parts.update((key, {}) for key in configs)
                self.started += len(configs)
                self.queue.fill(configs)
            worker = self.pool().free
            images, taken = self.queue.take(worker, self._task_size())
            keys = tuple(key for key in taken if key in self.parts)  # others failed elsewhere
            if keys:
                return Task(keys, tuple(taken[key] for key in keys), images), worker

    def _task_size(self) -> int:
        """How many configurations the next task has at most."""
        to_come = max(0, self.expected - self.started) * len(self.ranges)
        share = (self.queue.size + to_come) // (TASKS_PER_WORKER * max(1, self.pool().workers))
        return max(1, min(share, TASK_IMAGES // len(self.ranges[0])))

    def _collect(self) -> Completed:
        """Wait for tasks, and join the results of configurations that are through."""
        outcomes: dict[Key, Outcome | Failure] = {}
        evaluations = 0
        for task, results in self.pool().finished():
            self.in_flight -= 1
            self.running -= len(task.keys)
            for key, result in zip(task.keys, results, strict=True):
                if key not in self.parts:  # failed on another range
                    continue
                if isinstance(result, Failure):
                    del self.parts[key]
                    outcomes[key] = result
                    continue
                evaluations += len(task.images)
                self.parts[key][task.images.start] = result
                if len(self.parts[key]) == len(self.ranges):
                    outcomes[key] = _joined(self.parts.pop(key))
        return Completed(outcomes, evaluations)


def _joined(results: Mapping[int, RangeResult]) -> Outcome:
    ordered = [results[start] for start in sorted(results)]
    return Outcome(
        np.concatenate([result.predictions for result in ordered]),
        sum(result.fallbacks for result in ordered),
        sum(result.seconds for result in ordered),
        joined({result.origin: len(result.predictions)} for result in ordered),
        _concatenated([result.losses for result in ordered]),
        _concatenated([result.distributions for result in ordered]),
    )


def _concatenated(parts: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
    whole = [part for part in parts if part is not None]
    return np.concatenate(whole) if len(whole) == len(parts) else None
