"""What a worker is told, what it returns, and what every pool of workers offers. Imports no ray.

A worker holds the model and the images and is dumb: it takes a `Task` and returns its results.
Every pool gives the same results, because what could change them (`Runtime`) is the study's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import nn

from ztp_search.data import ImageStore
from ztp_search.errors import ZtpError
from ztp_search.evaluation.model_runner import BlockResult, Evaluator
from ztp_search.evaluation.runtime import Runtime
from ztp_search.pruning.config import PruningConfig

CACHE_BYTES = 10**9
"""What a worker keeps for later tasks unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Task:
    """Evaluate configurations (None: unpruned) on images start to stop of an image set.

    keys: whose results these are, one (kind, number) per configuration.
    """

    keys: tuple[tuple[str, int], ...]
    configs: tuple[PruningConfig | None, ...]
    image_set: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Failure:
    """What cannot be evaluated: the configuration's fault, or too little memory."""

    reason: str
    out_of_memory: bool = False


Results: TypeAlias = Sequence[BlockResult | Failure]
"""One per configuration of a task."""


@dataclass(frozen=True)
class Job:
    """What every worker holds.

    image_paths: folders of image stores by name of the image set. cache_bytes: of every worker;
    None: CACHE_BYTES, or less where workers share little memory.
    """

    model: nn.Module
    image_paths: Mapping[str, Path]
    mean: Sequence[float]
    std: Sequence[float]
    runtime: Runtime
    cache_bytes: int | None = 0

    def evaluator(self, images: Mapping[str, np.ndarray[Any, Any]] | None = None) -> Evaluator:
        """An evaluator on these images, or on the files, memory-mapped."""
        if images is None:
            images = {n: ImageStore.open(path).images for n, path in self.image_paths.items()}
        return Evaluator(
            self.model, images, self.mean, self.std, self.runtime,
            CACHE_BYTES if self.cache_bytes is None else self.cache_bytes,
        )


class Pool(Protocol):
    """What `search` needs of workers."""

    workers: int

    @property
    def room(self) -> int:
        """How many more tasks can be submitted before all workers have enough at hand."""

    @property
    def free(self) -> int:
        """The worker that has least at hand, counted from 0."""

    def submit(self, task: Task, worker: int) -> None: ...

    def finished(self) -> list[tuple[Task, Results]]:
        """Wait for submitted tasks: one at least, and all that are done by then.

        Raises WorkerError where a worker is lost for good; the pool is then only to be closed.
        """

    def close(self) -> None: ...


def evaluate_task(evaluator: Evaluator, task: Task) -> Results:
    """Run a task; what is a configuration's fault or a lack of memory becomes a Failure.

    Without memory it is tried once more, when what is kept for later tasks has been given back;
    then, as without a fitting configuration, one configuration at a time.
    """
    reason = ""
    for _ in range(2):
        try:
            return evaluator.run(task.configs, task.image_set, task.start, task.stop)
        except ZtpError as error:
            if len(task.configs) == 1:
                return [Failure(str(error))]
            break
        except (MemoryError, RuntimeError) as error:
            if not _lacks_memory(error):
                raise
            reason = str(error).splitlines()[0] if str(error) else "out of memory"
        evaluator.forget()  # out here, as the error's traceback holds on to tensors
    else:
        if len(task.configs) == 1:
            return [Failure(reason, out_of_memory=True)]
    return [
        evaluate_task(evaluator, replace(task, keys=(key,), configs=(config,)))[0]
        for key, config in zip(task.keys, task.configs, strict=True)
    ]


def _lacks_memory(error: Exception) -> bool:
    """PyTorch has an exception of its own on GPUs; on CPUs only its words tell."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or "can't allocate memory" in str(error)
