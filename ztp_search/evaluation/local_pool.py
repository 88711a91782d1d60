"""Tasks evaluated in this process, one at a time."""

from __future__ import annotations

import collections

import torch

from ztp_search.evaluation.tasks import Job, Results, Task, evaluate_task
from ztp_search.objectives import Distributions


class LocalPool:
    """Evaluates every task in this process when its result is asked for."""

    workers = 0

    def __init__(self, job: Job) -> None:
        self._threads = torch.get_num_threads()
        self._runner = job.model_runner()
        self._tasks: collections.deque[Task] = collections.deque()

    @property
    def room(self) -> int:
        return 1 - len(self._tasks)

    @property
    def free(self) -> int:
        return 0

    def hold_targets(self, image_set: str, targets: Distributions) -> None:
        self._runner.targets[image_set] = targets

    def submit(self, task: Task, worker: int) -> None:
        self._tasks.append(task)

    def finished(self) -> list[tuple[Task, Results]]:
        task = self._tasks.popleft()
        return [(task, evaluate_task(self._runner, task))]

    def close(self) -> None:
        """Give back threads and memory at once: models and their pruners hold one another."""
        torch.set_num_threads(self._threads)
        self._runner.clear_cache()
