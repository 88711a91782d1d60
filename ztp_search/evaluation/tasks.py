"""What a worker is given, what it returns, and what every pool of workers offers. Imports no ray.

A worker holds the model and the images and is dumb: it takes a `Task` and returns its results.
Every pool gives the same results, because what could change them (`Runtime`) is the study's.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import nn

from ztp_search.data import ImageStore
from ztp_search.errors import ZtpError
from ztp_search.evaluation.image_range import ImageRange
from ztp_search.evaluation.model_runner import ModelRunner, RangeResult
from ztp_search.evaluation.runtime import Runtime
from ztp_search.objectives import OBJECTIVES, Distributions
from ztp_search.pruning.config import PruningConfig

CACHE_BYTES = 10**9
"""What a worker keeps for later tasks unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Task:
    """Evaluate configurations (None: the unpruned model) on a range of images.

    Attributes:
        keys: whose results these are, one (kind, number) per configuration.
        configs: the configurations.
        images: the images that each of them is evaluated on.
    """

    keys: tuple[tuple[str, int], ...]
    configs: tuple[PruningConfig | None, ...]
    images: ImageRange


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a configuration could not be evaluated: its own fault, or too little memory."""

    reason: str
    out_of_memory: bool = False


Results: TypeAlias = Sequence[RangeResult | Failure]
"""One per configuration of a task."""


@dataclass(frozen=True)
class Job:
    """What every worker holds.

    Attributes:
        model: in float32 on the CPU.
        image_paths: folders of image stores by name of the image set.
        mean, std: per channel, as in timm's data config.
        runtime: device, precision, batch size and threads.
        objective: a name of `OBJECTIVES`.
        cache_bytes: memory of every worker for activations that configurations share; None is
            CACHE_BYTES, or less where workers share little memory.
        distributions: whether the unpruned model's output distributions are returned.
        batch_size: images per forward where memory is known to be short; None: the runtime's.
    """

    model: nn.Module
    image_paths: Mapping[str, Path]
    mean: Sequence[float]
    std: Sequence[float]
    runtime: Runtime
    objective: str
    cache_bytes: int | None = 0
    distributions: bool = False
    batch_size: int | None = None

    def model_runner(
        self, images: Mapping[str, np.ndarray[Any, Any]] | None = None
    ) -> ModelRunner:
        """A model runner on these images, or on those of the files, memory-mapped."""
        if images is None:
            images = {n: ImageStore.open(path).images for n, path in self.image_paths.items()}
        return ModelRunner(
            self.model, images, self.mean, self.std, self.runtime, OBJECTIVES[self.objective],
            CACHE_BYTES if self.cache_bytes is None else self.cache_bytes, self.distributions,
            self.batch_size,
        )  # fmt: skip


class Pool(Protocol):
    """Workers that evaluate tasks."""

    @property
    def workers(self) -> int:
        """How many there are at present; 0: this process."""

    @property
    def room(self) -> int:
        """How many more tasks can be submitted before all workers have enough at hand."""

    @property
    def free(self) -> int:
        """The worker that has fewest tasks at hand, counted from 0."""

    def hold_targets(self, image_set: str, targets: Distributions) -> None:
        """Have all workers compare outputs with these from now on, (images, classes)."""

    def submit(self, task: Task, worker: int) -> None:
        """Give a task to a worker."""

    def finished(self) -> list[tuple[Task, Results]]:
        """Wait for submitted tasks: for one at least, and return all that are done by then.

        Raises:
            WorkerError: a worker is lost for good; the pool can then only be closed.
        """

    def close(self) -> None:
        """End the workers."""


def evaluate_task(runner: ModelRunner, task: Task) -> Results:
    """Run a task; a configuration's own fault or a lack of memory becomes a `Failure`.

    Where memory runs out, the task is tried once more after the cached activations have been
    given back. Where that fails too, or a configuration does not fit the model, the configurations
    are evaluated one at a time. One that lacks memory on its own is given half the images per
    forward, and so is whatever this runner evaluates after it.
    """
    for tries in itertools.count(1):
        try:
            return runner.run(task.configs, task.images)
        except ZtpError as error:
            if len(task.configs) == 1:
                return [Failure(str(error))]
            break
        except (MemoryError, RuntimeError) as error:
            if not _lacks_memory(error):
                raise
            reason = str(error).splitlines()[0] if str(error) else "out of memory"
        runner.clear_cache()  # out here, as the error's traceback holds on to tensors
        if tries == 1:
            continue
        if len(task.configs) > 1:
            break
        if not runner.halve_batches():
            return [Failure(f"out of memory on one image: {reason}", out_of_memory=True)]
    return [
        evaluate_task(runner, replace(task, keys=(key,), configs=(config,)))[0]
        for key, config in zip(task.keys, task.configs, strict=True)
    ]


def _lacks_memory(error: Exception) -> bool:
    """PyTorch raises an exception of its own on GPUs; on CPUs only its text tells."""
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or "can't allocate memory" in str(error)
