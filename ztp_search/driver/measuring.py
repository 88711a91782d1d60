"""Configurations measured on images of a set: what every step of a search does.

Predictions of the unpruned model are kept beside the decoded images, so that they are computed
once per model and images, whatever studies need them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from ztp_search.driver.objective import Predictions, judge
from ztp_search.driver.progress import Progress
from ztp_search.driver.session import Session, Workers
from ztp_search.errors import WorkerError, ZtpError
from ztp_search.evaluation.runtime import Runtime
from ztp_search.evaluation.scheduler import Outcome, play
from ztp_search.evaluation.tasks import Failure, Pool
from ztp_search.pruning.config import PruningConfig
from ztp_search.racing import Correct


class Measuring:
    """Model, images, workers and objective of a run, shared by all its studies.

    image_evaluations: how many this run has made, of all configurations and the unpruned model.
    """

    def __init__(
        self,
        session: Session,
        workers: Workers,
        runtime: Runtime,
        objective: str,
        progress: Progress,
    ) -> None:
        self.session = session
        self.workers = workers
        self.runtime = runtime
        self.objective = objective
        self.progress = progress
        self.image_evaluations = 0
        self._unpruned: dict[str, Predictions] = {}

    def images(self, image_set: str) -> int:
        """How many images the set has."""
        return len(self.session.store(image_set))

    def pool(self) -> Pool:
        """The workers, started on first use."""
        return self.workers.pool(lambda: self.progress.stage("starting workers"))

    def judge(self, image_set: str, predictions: Predictions, start: int = 0) -> Correct:
        """What is right of predictions for the images from `start`, by the objective."""
        part = slice(start, start + len(predictions))
        labels = self.session.labels(image_set)[part]
        unpruned = predictions if self.objective == "top1" else self.unpruned(image_set)[part]
        return judge(self.objective, predictions, labels, unpruned)

    def know(self, image_set: str, unpruned: Predictions) -> None:
        """Take over what a study has stored of the unpruned model, and is judged against."""
        self._unpruned[image_set] = unpruned

    def unpruned(self, image_set: str) -> Predictions:
        """The unpruned model's predictions on a set, measured once and kept."""
        if image_set not in self._unpruned:
            path = self._path_of_unpruned(image_set)
            predictions = _kept(path, self.images(image_set))
            if predictions is None:
                outcomes = self.outcomes(
                    image_set, {"unpruned": None}, "measuring the unpruned model"
                )
                predictions = outcomes["unpruned"].predictions
                _keep(path, predictions)
            self._unpruned[image_set] = predictions
        return self._unpruned[image_set]

    def outcomes(
        self,
        image_set: str,
        configs: Mapping[str, PruningConfig | None],
        stage: str,
        each: Callable[[str, Outcome], None] | None = None,
    ) -> dict[str, Outcome]:
        """Outcomes of named configurations (None: unpruned) on all images of a set.

        each: told of every one as soon as it is complete. Raises WorkerError where one fails.
        """
        names = list(configs)
        images = self.images(image_set)
        outcomes: dict[str, Outcome] = {}
        done = 0

        def finished(results: Mapping[tuple[str, int], Outcome | Failure]) -> None:
            for (_, index), result in results.items():
                if isinstance(result, Failure):
                    raise failed(result, names[index])
                outcomes[names[index]] = result
                if each is not None:
                    each(names[index], result)

        def images_done(count: int) -> None:
            nonlocal done
            done += count
            self.image_evaluations += count
            self.progress.images(done, images * len(names))

        self.pool()
        self.progress.stage(stage)
        keys = {("reference", index): configs[name] for index, name in enumerate(names)}
        batch_size = self.runtime.batch_size
        play(
            self.pool, [keys], image_set, 0, images, batch_size, finished, images_done
        )
        return outcomes

    def _path_of_unpruned(self, image_set: str) -> Path:
        """One file for all that can change a bit of the predictions."""
        loaded = self.session.loaded
        device = "cpu" if self.runtime.device == "cpu" else torch.cuda.get_device_name()
        capability = torch.backends.cpu.get_cpu_capability()
        key = {
            "model": dataclasses.asdict(self.session.sources.model),
            "weights_sha256": loaded.weights_sha256,
            "geometry": dataclasses.asdict(self.session.geometry),
            "images": self.session.store(image_set).digest,
            "runtime": dataclasses.asdict(self.runtime),
            "versions": [torch.__version__, device, capability],
        }
        name = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
        return self.session.sources.cache_dir / "unpruned" / f"{name[:32]}.npy"


def failed(failure: Failure, what: str) -> Exception:
    """The error for a task that could not be done: too little memory is for the user to mend."""
    if failure.out_of_memory:
        return ZtpError(
            f"{what} needs more memory than the device has ({failure.reason}); "
            "use half the --batch-size, and another --study name"
        )
    return WorkerError(f"{what} cannot be evaluated: {failure.reason}")


def _kept(path: Path, images: int) -> Predictions | None:
    try:
        predictions: Predictions = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = predictions.dtype == np.int32 and predictions.shape == (images,)
    return predictions if whole else None


def _keep(path: Path, predictions: Predictions) -> None:
    """Written under a temporary name and renamed, so that what stands there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.save(file, predictions)
    temporary.replace(path)
