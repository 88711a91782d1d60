"""What a search or an evaluation works with: the model, its geometry, the images, the workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ztp_search.backbones import geometry_of
from ztp_search.backbones.loading import LoadedModel, load_model
from ztp_search.data import ImageSets, ImageStore, prepare
from ztp_search.evaluation.pools import open_pool
from ztp_search.evaluation.runtime import Runtime
from ztp_search.evaluation.tasks import Job, Pool
from ztp_search.pruning.cost import Geometry
from ztp_search.settings import Sources, WorkerOptions


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

    def store(self, image_set: str) -> ImageStore:
        """The images of "search" or "holdout"."""
        assert self.images is not None
        return self.images.search if image_set == "search" else self.images.holdout

    def labels(self, image_set: str) -> npt.NDArray[np.int64]:
        return self.store(image_set).labels

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
            cache_bytes=options.cache_bytes,
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

    def pool(self, starting: Callable[[], None] = lambda: None) -> Pool:
        """The pool; `starting` is called before it is opened."""
        if self._pool is None:
            starting()
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
