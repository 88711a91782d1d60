"""One pass of configurations over a range of images, spread over the workers.

A task is one image block with several configurations: those whose first pruning layer stands at
the same place come together, as they share all blocks before it (`backbones.trunk`). A worker stays
with an image block, for which it has that at hand, while others take other blocks. How
configurations are put into tasks, and who gets them, changes no result, so it may depend on the
number of workers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ztp_search.evaluation.model_runner import BlockResult
from ztp_search.evaluation.tasks import Failure, Pool, Task
from ztp_search.pruning.config import PruningConfig

Key = tuple[str, int]
Predictions = npt.NDArray[np.int32]

BLOCK_IMAGES = 128
"""Images of a block, about; a whole number of batches."""
TASK_IMAGES = 512
"""Images times configurations of a task, at most about: tenths of a second on one core."""
TASKS_PER_WORKER = 4
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
    blocks = range(start, stop, block)
    parts: dict[Key, dict[int, BlockResult]] = {}
    chunks = iter(source)
    come = 0
    left = Left(blocks)

    def next_task() -> tuple[Task, int] | None:
        """A task and the worker that it is for; None where there are no more configurations."""
        nonlocal come
        while True:
            while not left:
                configs = next(chunks, None)
                if configs is None:
                    return None
                parts.update((key, {}) for key in configs)
                come += len(configs)
                left.fill(configs)
            later = max(0, expected - come) * len(blocks)
            size = (left.size + later) // (TASKS_PER_WORKER * max(1, pool().workers))
            size = max(1, min(size, TASK_IMAGES // min(block, stop - start)))
            worker = pool().free
            first, taken = left.take(worker, size)
            keys = tuple(key for key in taken if key in parts)  # others failed on another block
            if keys:
                configs_of = tuple(taken[key] for key in keys)
                task = Task(keys, configs_of, image_set, first, min(first + block, stop))
                return task, worker

    in_flight = 0
    drained = False
    outcomes: dict[Key, Outcome | Failure] = {}
    while True:
        while not drained and (in_flight == 0 or pool().room > 0):
            following = next_task()
            if following is None:
                drained = True
            else:
                pool().submit(*following)
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
                if len(parts[key]) == len(blocks):
                    outcomes[key] = _joined(parts.pop(key))


class Left:
    """Configurations on image blocks that no worker has been given yet.

    size: how many, counting a configuration once per block.
    """

    def __init__(self, blocks: Sequence[int]) -> None:
        self.size = 0
        self._blocks = blocks
        self._configs: Mapping[Key, PruningConfig | None] = {}
        self._keys: dict[int, deque[Key]] = {}  # by block, only where there are some
        self._untouched: set[int] = set()
        self._owner: dict[int, int] = {}  # the worker that began a block, also with earlier ones
        self._at: dict[int, int] = {}  # the block that a worker was given last

    def __bool__(self) -> bool:
        return bool(self._keys)

    def fill(self, configs: Mapping[Key, PruningConfig | None]) -> None:
        """Add configurations, on all blocks, where nothing is left."""
        assert not self
        if not configs:
            return
        keys = sorted(configs, key=lambda key: (_first_layer(configs[key]), key))
        self._configs = configs
        self._keys = {block: deque(keys) for block in self._blocks}
        self._untouched = set(self._blocks)
        self.size = len(keys) * len(self._blocks)

    def take(self, worker: int, size: int) -> tuple[int, dict[Key, PruningConfig | None]]:
        """At most so many configurations for a worker, and the block that they are for.

        Of the block it is at; else of one that nobody has touched, best one that was its own
        before; else it helps where most is left, from the other end.
        """
        block = self._at.get(worker, -1)
        if block not in self._keys:
            if self._untouched:
                block = min(self._untouched, key=lambda each: (self._strange(each, worker), each))
                self._owner[block] = worker
            else:
                block = min(self._keys, key=lambda each: (-len(self._keys[each]), each))
        self._at[worker] = block
        self._untouched.discard(block)
        keys = self._keys[block]
        size = min(size, len(keys))
        if self._owner[block] == worker:
            taken = [keys.popleft() for _ in range(size)]
        else:
            taken = [keys.pop() for _ in range(size)][::-1]
        if not keys:
            del self._keys[block]
        self.size -= size
        return block, {key: self._configs[key] for key in taken}

    def _strange(self, block: int, worker: int) -> int:
        """0: its own from before, 1: nobody's, 2: another's."""
        return 1 if block not in self._owner else 0 if self._owner[block] == worker else 2


def _first_layer(config: PruningConfig | None) -> int:
    return config.layers[0].after_block if config is not None and config.layers else 0


def _joined(blocks: Mapping[int, BlockResult]) -> Outcome:
    ordered = [blocks[start] for start in sorted(blocks)]
    return Outcome(
        np.concatenate([block.predictions for block in ordered]),
        sum(block.fallbacks for block in ordered),
        sum(block.seconds for block in ordered),
    )
