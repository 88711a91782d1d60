"""One pass of configurations over a range of images, spread over the workers.

A task is one image block with several configurations: those whose first pruning layer stands at
the same place come together, as they share all blocks before it (`backbones.trunk`), and a block's
tasks follow one another, so that a worker keeps what it has of it for the next task. How
configurations are put into tasks changes no result, so it may depend on the number of workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ztp_search.config import PruningConfig
from ztp_search.evaluate import BlockResult
from ztp_search.workers import Failure, Pool, Task

Key = tuple[str, int]
Predictions = npt.NDArray[np.int32]

BLOCK_IMAGES = 128
"""Images of a block, about; a whole number of batches."""
TASK_IMAGES = 512
"""Images times configurations of a task, at most about: tenths of a second on one core."""
TASKS_PER_WORKER = 16
"""Of what is left at least so many, where there is enough: tasks grow smaller towards the end, so
that all workers end together."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A configuration on images start to stop of a set.

    predictions: int32 (images,). fallbacks: images of which the head filter left no head.
    seconds: of forward passes, over all workers.
    """

    predictions: Predictions
    fallbacks: int
    seconds: float


def play(
    pool: Callable[[], Pool],
    source: Iterable[Mapping[Key, PruningConfig | None]],
    image_set: str,
    start: int,
    stop: int,
    batch_size: int,
    finished: Callable[[Mapping[Key, Outcome | Failure]], None],
    images_done: Callable[[int], None],
    expected: int = 0,
) -> None:
    """Evaluate configurations (None: unpruned) on images start to stop of a set.

    pool: opened once there is something to evaluate. source: configurations, some at a time,
    asked for as workers have room. finished: told of every configuration once, several at a time,
    when its last block is in or it has failed, and workers have work again. images_done: told of
    image evaluations as they come in. expected: about how many configurations will come, if more
    than the first ones. Raises WorkerError where workers are lost for good.
    """
    assert start < stop
    block = batch_size * max(1, BLOCK_IMAGES // batch_size)
    blocks = math.ceil((stop - start) / block)
    parts: dict[Key, dict[int, BlockResult]] = {}

    def tasks() -> Iterator[Task]:
        come = 0
        for configs in source:
            parts.update((key, {}) for key in configs)
            come += len(configs)
            later = max(0, expected - come)
            for task in _tasks(configs, image_set, start, stop, block, pool, later):
                left = [i for i, key in enumerate(task.keys) if key in parts]
                if left:  # the others failed on an earlier block
                    keys = tuple(task.keys[i] for i in left)
                    configs_left = tuple(task.configs[i] for i in left)
                    yield Task(keys, configs_left, image_set, task.start, task.stop)

    waiting = tasks()
    in_flight = 0
    drained = False
    outcomes: dict[Key, Outcome | Failure] = {}
    while True:
        while not drained and (in_flight == 0 or pool().room > 0):
            task = next(waiting, None)
            if task is None:
                drained = True
            else:
                pool().submit(task)
                in_flight += 1
        if outcomes:  # told of when all workers have work again
            finished(outcomes)
        if not in_flight:
            return
        outcomes = {}
        for task, results in pool().finished():
            in_flight -= 1
            for key, result in zip(task.keys, results, strict=True):
                if key not in parts:
                    continue
                if isinstance(result, Failure):
                    del parts[key]
                    outcomes[key] = result
                    continue
                images_done(task.stop - task.start)
                parts[key][task.start] = result
                if len(parts[key]) == blocks:
                    outcomes[key] = _joined(parts.pop(key))


def _tasks(
    configs: Mapping[Key, PruningConfig | None],
    image_set: str,
    start: int,
    stop: int,
    block: int,
    pool: Callable[[], Pool],
    later: int,
) -> Iterator[Task]:
    """later: about how many configurations are still to come after these."""
    keys = sorted(configs, key=lambda key: (_first_layer(configs[key]), key))
    left = (len(keys) + later) * math.ceil((stop - start) / block)  # a configuration on a block
    most = max(1, TASK_IMAGES // min(block, stop - start))
    for first in range(start, stop, block):
        last = min(first + block, stop)
        index = 0
        while index < len(keys):
            size = left // (TASKS_PER_WORKER * max(1, pool().workers))
            size = max(1, min(size, most, len(keys) - index))
            chosen = tuple(keys[index : index + size])
            yield Task(chosen, tuple(configs[key] for key in chosen), image_set, first, last)
            index += size
            left -= size


def _first_layer(config: PruningConfig | None) -> int:
    return config.layers[0].after_block if config is not None and config.layers else 0


def _joined(blocks: Mapping[int, BlockResult]) -> Outcome:
    ordered = [blocks[start] for start in sorted(blocks)]
    return Outcome(
        np.concatenate([block.predictions for block in ordered]),
        sum(block.fallbacks for block in ordered),
        sum(block.seconds for block in ordered),
    )
