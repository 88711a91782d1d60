"""The driver's side of evaluation: model, images and workers of a run, for all its studies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ztp_search.backbones import geometry_of
from ztp_search.backbones.loading import LoadedModel, load_model
from ztp_search.data import ImageSets, ImageStore, prepare
from ztp_search.driver.progress import Progress
from ztp_search.driver.unpruned_cache import (
    distributions_path,
    read_array,
    unpruned_path,
    write_array,
)
from ztp_search.driver.watch import Watch
from ztp_search.errors import DataError, WorkerError, ZtpError
from ztp_search.evaluation.image_range import ImageRange
from ztp_search.evaluation.origin import Origins
from ztp_search.evaluation.pools import open_metrics, open_pool
from ztp_search.evaluation.runtime import Runtime
from ztp_search.evaluation.scheduler import Completed, Configs, Outcome, Scheduler
from ztp_search.evaluation.tasks import Failure, Job, Pool
from ztp_search.events import Evaluated, Halved
from ztp_search.objectives import (
    OBJECTIVES,
    SIGNALS,
    Distributions,
    Objective,
    Predictions,
    Signal,
)
from ztp_search.pruning.config import PruningConfig
from ztp_search.racing import RACING, Correct, first_rung
from ztp_search.settings import Sources, WorkerOptions


def decode_images(sources: Sources, loaded: LoadedModel, progress: Progress) -> ImageSets:
    """Decode the search and holdout images, or open them where they were decoded before."""
    progress.stage("decoding images")
    num_classes: Any = loaded.model.num_classes
    return prepare(
        sources.data,
        loaded.data_config,
        images=sources.images,
        holdout=sources.holdout,
        seed=sources.seed,
        num_classes=num_classes,
        cache_dir=sources.cache_dir,
        skip_unreadable=sources.skip_unreadable,
        at_most=sources.images_at_most,
        progress=progress.images,
    )


def check_labels(images: ImageSets, objective: Objective, signal: Signal) -> None:
    """Refuse images without labels where the objective or the racing signal needs them.

    Raises:
        DataError: says why there are none.
    """
    if not objective.needs_labels:
        if signal.needs_labels and (images.unlabelled or (images.search.labels < 0).any()):
            raise DataError(
                f"`racing_signal` {signal.name} needs a label for every image, but there are "
                "images without; use `racing_signal` total-variation"
            )
        return
    unknown = sum(int((store.labels < 0).sum()) for store in (images.search, images.holdout))
    if unknown and not images.unlabelled:
        raise DataError(
            f"`objective` {objective.name} needs labels, but {unknown} images have none; use "
            "`objective` agreement, or a `split` with labels"
        )
    if images.unlabelled:
        raise DataError(
            f"`objective` {objective.name} needs labels, but {images.unlabelled}; use `objective` "
            "agreement (with the unpruned model, no labels needed) or give `class_map`"
        )


def open_evaluator(
    sources: Sources, runtime: Runtime, objective: str, workers: WorkerOptions, progress: Progress
) -> Evaluator:
    """Load the model, decode the images, and make an evaluator of both."""
    progress.stage("loading the model")
    loaded = load_model(sources.model, data_overrides=sources.data_overrides)
    images = decode_images(sources, loaded, progress)
    return Evaluator(sources, loaded, images, runtime, objective, workers, progress)


class Evaluator:
    """Evaluates configurations on image sets by workers, and scores the results.

    The workers are started when there is something to evaluate, as a finished study needs none.
    Use it as a context manager: at its end the workers are.

    Args:
        sources: where model and images come from.
        loaded: the model with its weights.
        images: the decoded images.
        runtime: device, precision, batch size and threads.
        objective: a name of `OBJECTIVES`.
        workers: how many, and where.
        progress: receives stages, notes and counts.
        signal: a name of `SIGNALS`: what outputs on search images are compared with.

    Attributes:
        geometry: the model's sizes.
        image_evaluations: images times configurations evaluated so far, the unpruned model
            included.
        watch: told of what happens.
        batch_size: the least images per forward that any result comes from, where memory is short.
    """

    def __init__(
        self,
        sources: Sources,
        loaded: LoadedModel,
        images: ImageSets,
        runtime: Runtime,
        objective: str,
        workers: WorkerOptions,
        progress: Progress,
        signal: str = "correct",
    ) -> None:
        self.sources = sources
        self.loaded = loaded
        self.images = images
        self.runtime = runtime
        self.objective = OBJECTIVES[objective]
        self.signal = SIGNALS[signal]
        self.workers = workers
        self.progress = progress
        self.geometry = geometry_of(loaded.model)
        self.image_evaluations = 0
        self.batch_size = runtime.batch_size
        self.watch = Watch(progress)
        self._unpruned: dict[str, Predictions] = {}
        self._holds_targets = False
        self._pool: Pool | None = None
        self._scheduler = Scheduler(self.pool, runtime.batch_size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.watch.close()
        if self._pool is not None:
            self._pool.close()

    def store(self, image_set: str) -> ImageStore:
        """The images of "search" or "holdout"."""
        return self.images.search if image_set == "search" else self.images.holdout

    def labels(self, image_set: str) -> npt.NDArray[np.int64]:
        """The labels of an image set, (images,); -1 where unknown."""
        return self.store(image_set).labels

    def image_count(self, image_set: str) -> int:
        """How many images the set has."""
        return len(self.store(image_set))

    def rungs(self, racing: str) -> tuple[int, ...]:
        """How many search images a trial has seen after each rung; racing: a name of `RACING`."""
        first = first_rung(
            self.runtime.batch_size, losses=self.signal.soft, on_cpu=self.runtime.device == "cpu"
        )
        return RACING[racing].rungs(self.image_count("search"), first)

    def pool(self) -> Pool:
        """The workers, started on first use."""
        if self._pool is None:
            self.progress.stage("starting workers")
            self._pool = open_pool(
                self._job(),
                self.workers.workers,
                gpus_per_worker=self.workers.gpus_per_worker,
                address=self.workers.address,
                tell=self.watch.tell,
            )
            metrics = open_metrics(self.workers.workers, self.workers.address)
            self.watch.use(metrics)
            if metrics is not None and self.workers.metrics:
                urls = ", ".join(f"http://{each}/metrics" for each in metrics.endpoints)
                self.progress.note(f"metrics: {urls}")
        return self._pool

    def score(self, image_set: str, predictions: Predictions, start: int = 0) -> Correct:
        """Score predictions for the images from `start` on, by the objective, (images,)."""
        part = slice(start, start + len(predictions))
        labels = self.labels(image_set)[part]
        unpruned = predictions
        if not self.objective.needs_labels:
            unpruned = self.unpruned(image_set)[part]
        return self.objective.score(predictions, labels, unpruned)

    def use_unpruned(self, image_set: str, predictions: Predictions) -> None:
        """Use the unpruned predictions stored in a study instead of computing them."""
        self._unpruned[image_set] = predictions

    def unpruned(self, image_set: str) -> Predictions:
        """The unpruned model's predictions on an image set, evaluated once and kept on disk."""
        if image_set not in self._unpruned:
            path, images = self._unpruned_path(image_set), self.image_count(image_set)
            predictions = read_array(path, np.int32, images)
            if predictions is None:
                predictions = self._evaluate_unpruned(image_set).predictions
            self._unpruned[image_set] = predictions
        return self._unpruned[image_set]

    def hold_targets(self) -> None:
        """Have the workers compare what trials give on search images with what they should give.

        From then on, outcomes on search images have losses, unless the signal has no use for any.
        """
        if self._holds_targets or not self.signal.soft:
            return
        path = distributions_path(self._unpruned_path("search"))
        unpruned: Distributions | None = read_array(path, np.float32, self.image_count("search"))
        if unpruned is None:
            unpruned = self._evaluate_unpruned("search").distributions
            assert unpruned is not None  # as workers are asked for them
        targets = self.signal.targets(unpruned, self.labels("search"))
        assert targets is not None  # as it is soft
        self.pool().hold_targets("search", targets)
        self._holds_targets = True

    def _evaluate_unpruned(self, image_set: str) -> Outcome:
        """The unpruned model's outcome on an image set, which is kept on disk."""
        stage = "evaluating the unpruned model"
        ((_, outcome),) = self.outcomes(image_set, {"unpruned": None}, stage)
        path = self._unpruned_path(image_set)
        write_array(path, outcome.predictions)
        if outcome.distributions is not None and image_set == "search":
            write_array(distributions_path(path), outcome.distributions)
        return outcome

    def _unpruned_path(self, image_set: str) -> Path:
        return unpruned_path(
            self.sources.cache_dir, self.sources.model, self.loaded, self.geometry,
            self.store(image_set), self.runtime,
        )  # fmt: skip

    def evaluate(
        self, source: Iterator[Configs], images: ImageRange, expected: int = 0
    ) -> Iterator[Completed]:
        """Evaluate configurations as `Scheduler.evaluate` does, and count the evaluations."""
        for completed in self._scheduler.evaluate(source, images, expected):
            self.image_evaluations += completed.image_evaluations
            done = completed.image_evaluations
            self.watch.tell(Evaluated(done, completed.waiting, completed.running))
            for outcome in completed.outcomes.values():
                if isinstance(outcome, Outcome) and self.remember(outcome.origins):
                    self.watch.tell(Halved(self.batch_size, self.runtime.batch_size))
            yield completed

    def remember(self, origins: Origins) -> bool:
        """Take note of where memory is short, for workers that are yet to be started.

        origins: of results.

        Returns:
            Whether some come from fewer images per forward than any before.
        """
        least = min((origin.batch_size for origin in origins), default=self.batch_size)
        shorter = least < self.batch_size
        if shorter:
            self.batch_size = least
        return shorter

    def outcomes(
        self, image_set: str, configs: Mapping[str, PruningConfig | None], stage: str
    ) -> Iterator[tuple[str, Outcome]]:
        """Evaluate named configurations (None: the unpruned model) on all images of a set.

        Args:
            image_set: "search" or "holdout".
            configs: by the name under which each outcome is given.
            stage: what the progress says meanwhile.

        Yields:
            Name and outcome of each configuration, as soon as it is complete.

        Raises:
            WorkerError: a configuration cannot be evaluated, or workers are lost for good.
            ZtpError: there is too little memory.
        """
        names = list(configs)
        images = ImageRange(image_set, 0, self.image_count(image_set))
        self.pool()
        self.progress.stage(stage)
        source: Configs = {("reference", index): configs[name] for index, name in enumerate(names)}
        done = 0
        for completed in self.evaluate(iter([source]), images):
            done += completed.image_evaluations
            self.progress.images(done, len(images) * len(names))
            for (_, index), outcome in completed.outcomes.items():
                if isinstance(outcome, Failure):
                    raise failure_error(outcome, names[index])
                yield names[index], outcome

    def _job(self) -> Job:
        return Job(
            model=self.loaded.model,
            image_paths={"search": self.images.search.path, "holdout": self.images.holdout.path},
            mean=self.loaded.data_config["mean"],
            std=self.loaded.data_config["std"],
            runtime=self.runtime,
            objective=self.objective.name,
            cache_bytes=self.workers.cache_bytes,
            distributions=self.signal.soft,
            batch_size=self.batch_size,
        )


def failure_error(failure: Failure, what: str) -> Exception:
    """The error for a configuration that must be evaluated and cannot be.

    Too little memory is for the user to mend (ZtpError), anything else is not (WorkerError).
    """
    if failure.out_of_memory:
        return ZtpError(
            f"{what} needs more memory than the device has ({failure.reason}); use a device with "
            "more, or fewer workers at a time"
        )
    return WorkerError(f"{what} cannot be evaluated: {failure.reason}")
