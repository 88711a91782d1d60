"""Searches whose trials have made-up results, all else being real."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np

from ztp_search.evaluation.model_runner import RangeResult
from ztp_search.evaluation.tasks import Results, Task, evaluate_task


@contextlib.contextmanager
def made_up_results(seconds: float = 0.0) -> Iterator[None]:
    """Searches without worker processes make up what trials give, from their first pruning layer.

    seconds: that a task takes, of which there is one at a time.
    """
    unpruned: dict[Any, Any] = {}

    def made_up(runner: Any, task: Task) -> Results:
        if None in task.configs:
            return evaluate_task(runner, task)
        if task.images not in unpruned:
            unpruned[task.images] = runner.run([None], task.images)[0].predictions
        right, out = unpruned[task.images], []
        for config in filter(None, task.configs):
            generator = np.random.default_rng([*config.digest().encode(), task.images.start])
            harm = 0.5 * (1 - config.layers[0].retention) + 0.05 * generator.random()
            wrong = generator.random(len(right)) < 0.5 * harm
            losses = 65_535 * np.clip(harm * generator.uniform(0.5, 1.5, len(right)), 0, 1)
            predictions = np.where(wrong, (right + 1) % 10, right).astype(np.int32)
            out.append(RangeResult(predictions, 0, 0.01, runner.origin, losses.astype(np.uint16)))
        time.sleep(seconds)
        return out

    with mock.patch("ztp_search.evaluation.local_pool.evaluate_task", made_up):
        yield
