"""What a search or an evaluation works with: the model, its geometry, the images, the workers."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ztp_search.backbones import geometry_of
from ztp_search.backbones.loading import LoadedModel, ModelSpec, load_model
from ztp_search.config import PruningConfig
from ztp_search.cost import Geometry
from ztp_search.data import DataSpec, ImageSets, prepare
from ztp_search.errors import DataError, WorkerError, ZtpError
from ztp_search.evaluate import BlockResult, Runtime
from ztp_search.racing import Correct
from ztp_search.workers import Failure, Job, Pool, Task, open_pool

Predictions = npt.NDArray[np.int32]
BLOCK_IMAGES = 256
"""Images of one task, about; a whole number of batches."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where model and images come from, and which images are chosen."""

    model: ModelSpec
    data: DataSpec
    data_overrides: Mapping[str, Any]
    images: int
    holdout: int
    seed: int
    cache_dir: Path
    skip_unreadable: bool = False


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How many workers, and where; none of it changes a result."""

    workers: int | None = None
    gpus_per_worker: float = 1.0
    address: str | None = None


@dataclass(slots=True)
class Session:
    """A loaded model and its images. `images` is None until `decode` has run."""

    sources: Sources
    loaded: LoadedModel
    geometry: Geometry
    images: ImageSets | None = field(default=None)

    @classmethod
    def open(cls, sources: Sources) -> Session:
        """Load the model; ModelError where it cannot be had or is not supported."""
        loaded = load_model(sources.model, data_overrides=sources.data_overrides)
        return cls(sources, loaded, geometry_of(loaded.model))

    def decode(self, progress: Callable[[int, int], None] | None = None) -> ImageSets:
        """Decode the images, or open them where they have been decoded before."""
        num_classes: Any = self.loaded.model.num_classes
        self.images = prepare(
            self.sources.data,
            self.loaded.data_config,
            images=self.sources.images,
            holdout=self.sources.holdout,
            seed=self.sources.seed,
            num_classes=num_classes,
            cache_dir=self.sources.cache_dir,
            skip_unreadable=self.sources.skip_unreadable,
            progress=progress,
        )
        return self.images

    def labels(self, image_set: str) -> npt.NDArray[np.int64]:
        assert self.images is not None
        store = self.images.search if image_set == "search" else self.images.holdout
        return store.labels

    @contextmanager
    def workers(self, runtime: Runtime, options: WorkerOptions) -> Iterator[Workers]:
        """Workers with this model and these images: started on first use, closed at the end."""
        assert self.images is not None
        job = Job(
            model=self.loaded.model,
            image_paths={"search": self.images.search.path, "holdout": self.images.holdout.path},
            mean=self.loaded.data_config["mean"],
            std=self.loaded.data_config["std"],
            runtime=runtime,
        )
        workers = Workers(job, options)
        try:
            yield workers
        finally:
            workers.close()


class Workers:
    """The pool, opened once there is something to evaluate: a finished study needs none."""

    def __init__(self, job: Job, options: WorkerOptions) -> None:
        self._job = job
        self._options = options
        self._pool: Pool | None = None

    def pool(self) -> Pool:
        if self._pool is None:
            self._pool = open_pool(
                self._job,
                self._options.workers,
                gpus_per_worker=self._options.gpus_per_worker,
                address=self._options.address,
            )
        return self._pool

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A configuration on all images of a set.

    predictions: int32 (images,). fallbacks: images of which the head filter left no head.
    seconds: of forward passes, over all workers.
    """

    predictions: Predictions
    fallbacks: int
    seconds: float


class Gather:
    """Splits an image set into blocks of whole batches and puts the results together again."""

    def __init__(self, image_set: str, images: int, batch_size: int) -> None:
        self.image_set = image_set
        self.images = images
        self._block = batch_size * max(1, BLOCK_IMAGES // batch_size)
        self._results: dict[tuple[str, int], dict[int, BlockResult]] = {}

    def tasks(self, key: tuple[str, int], config: PruningConfig | None) -> list[Task]:
        """One task per block."""
        starts = range(0, self.images, self._block)
        stops = [min(start + self._block, self.images) for start in starts]
        pairs = zip(starts, stops, strict=True)
        return [Task(key, config, self.image_set, start, stop) for start, stop in pairs]

    def add(self, task: Task, result: BlockResult) -> Outcome | None:
        """Take in one block; the outcome once all blocks of its configuration are there."""
        blocks = self._results.setdefault(task.key, {})
        blocks[task.start] = result
        if len(blocks) < math.ceil(self.images / self._block):
            return None
        ordered = [blocks[start] for start in sorted(blocks)]
        del self._results[task.key]
        return Outcome(
            np.concatenate([block.predictions for block in ordered]),
            sum(block.fallbacks for block in ordered),
            sum(block.seconds for block in ordered),
        )

    def taken(self, key: tuple[str, int]) -> int:
        """Images of a configuration that have come in so far."""
        return sum(len(block.predictions) for block in self._results.get(key, {}).values())

    def forget(self, key: tuple[str, int]) -> None:
        """Drop what has come in for a configuration that failed."""
        self._results.pop(key, None)


def measure(
    pool: Pool,
    configs: Mapping[str, PruningConfig | None],
    gather: Gather,
    done: Callable[[int], None] | None = None,
) -> dict[str, Outcome]:
    """Outcomes of named configurations (None: unpruned) on all images of a set.

    done: called with the images of each finished block. Raises WorkerError where one fails.
    """
    names = list(configs)
    tasks: list[Task] = []
    for i, name in enumerate(names):
        tasks += gather.tasks(("reference", i), configs[name])
    tasks.reverse()
    outcomes: dict[str, Outcome] = {}
    in_flight = 0
    while tasks or in_flight:
        while tasks and pool.room > 0:
            pool.submit(tasks.pop())
            in_flight += 1
        task, result = pool.next()
        in_flight -= 1
        if isinstance(result, Failure):
            raise failed(result, names[task.key[1]])
        if done is not None:
            done(task.stop - task.start)
        outcome = gather.add(task, result)
        if outcome is not None:
            outcomes[names[task.key[1]]] = outcome
    return outcomes


def failed(failure: Failure, what: str) -> Exception:
    """The error for a task that could not be done: too little memory is for the user to mend."""
    if failure.out_of_memory:
        return ZtpError(
            f"{what} needs more memory than the device has ({failure.reason}); "
            "use half the --batch-size, and another --study name"
        )
    return WorkerError(f"{what} cannot be evaluated: {failure.reason}")


def judge(
    objective: str, predictions: Predictions, labels: npt.NDArray[np.int64], unpruned: Predictions
) -> Correct:
    """Per image: is the prediction what the objective asks for?

    top1: the label; agreement: the unpruned model's prediction.
    """
    target = labels if objective == "top1" else unpruned
    correct: Correct = (predictions == target) & (predictions >= 0)  # -1 is no prediction
    return correct


def check_labels(images: ImageSets, objective: str) -> None:
    """top1 needs labels; DataError says why there are none."""
    if objective != "top1":
        return
    unknown = sum(int((store.labels < 0).sum()) for store in (images.search, images.holdout))
    if unknown and not images.unlabelled:
        raise DataError(
            f"--objective top1 needs labels, but {unknown} images have none; use --objective "
            "agreement, or a --split with labels"
        )
    if images.unlabelled:
        raise DataError(
            f"--objective top1 needs labels, but {images.unlabelled}; use --objective agreement "
            "(with the unpruned model, no labels needed) or give --class-map"
        )


def pack(array: npt.NDArray[Any]) -> str:
    """An array of bools or int32 as text for the database."""
    data = np.packbits(array).tobytes() if array.dtype == np.bool_ else array.tobytes()
    return base64.b64encode(zlib.compress(data, 9)).decode()


def unpack_bits(text: str, images: int) -> Correct:
    """The bools that `pack` wrote."""
    data = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return np.unpackbits(data, count=images).astype(np.bool_)


def unpack_predictions(text: str) -> Predictions:
    """The int32 that `pack` wrote."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.int32)
