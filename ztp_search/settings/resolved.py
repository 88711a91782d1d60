"""What is run: model, images, workers, search, with nothing left open but "auto"."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ztp_search.pruning.budget import parse_budget
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.config_file import ConfigFile
from ztp_search.pruning.geometry import Geometry
from ztp_search.space import SearchSpace
from ztp_search.space.decoder import Decoder


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Which model.

    name: a timm name, with or without a tag, or "hf-hub:owner/name".
    kwargs: passed on to timm's constructor.
    weights: None is timm's pretrained file from the hub or its cache, "digits" the embedded file;
        anything else is a path.
    num_classes: None is as many as timm's configuration of the model says.
    """

    name: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    num_classes: int | None = None


@dataclass(frozen=True, slots=True)
class DataSpec:
    """Which images.

    source: "digits", the path of an image folder or .tar, "hfds/NAME" (or "hfds/" and a path),
        "torch/NAME/FOLDER", "wds/FOLDER" (whose split names shards: "test-{000..009}.tar").
    split: None is "search" for digits, and otherwise a validation or test split as it is found.
    holdout_split: where holdout images come from; None: from `split`, none of them used twice.
    class_map: file that says which output of the model a class is; see `data.class_map`.
    """

    source: str
    split: str | None = None
    holdout_split: str | None = None
    class_map: str | None = None


@dataclass(frozen=True, slots=True)
class Sources:
    """Where model and images come from, and which images are chosen.

    images_at_most: whether fewer search images will do where there are no more.
    """

    model: ModelSpec
    data: DataSpec
    data_overrides: Mapping[str, Any]
    images: int
    holdout: int
    seed: int
    cache_dir: Path
    skip_unreadable: bool = False
    images_at_most: bool = False


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How many workers, and where; none of it changes a result.

    cache_bytes: memory of each worker for what configurations share from task to task; None: what
        the machine has to spare.
    metrics: whether they must be served.
    """

    workers: int | None = None
    gpus_per_worker: float = 1.0
    address: str | None = None
    cache_bytes: int | None = None
    metrics: bool = False


@dataclass(frozen=True, slots=True)
class SpeedOptions:
    """What is measured of the speed of a pruned model beside the unpruned one; none of it changes
    a result.

    engines: names of `evaluation.engines.ENGINES`. batch_sizes: images per forward; none: 1, and
    the batch size of the search or evaluation. repeats: turns of each model; None: by time.
    """

    engines: tuple[str, ...] = ()
    batch_sizes: tuple[int, ...] = ()
    repeats: int | None = None


DECODER = 2
"""How points become configurations, and which trials come first; 1 had no merging. A study of
another one can be read, but not resumed."""


@dataclass(frozen=True, slots=True)
class ResolvedSearch:
    """A search, resolved from its settings. precision and device may be "auto"; timeout is in
    seconds.

    out: folder for what is not in the database.
    enqueued: configurations that are the first trials, by the name of their file.
    studies: the name of the study of each budget, budgets as `parse_budget` reads them.
    candidates: how many of the best are measured again on holdout. refine: trials around the best
    beyond `trials`. racing: a name of `racing.RACING`. racing_signal: a name of
    `objectives.SIGNALS`. timeout: of all budgets together. max_failures: trials
    of a study that may fail; None: all do, of 16 at least.
    """

    space: SearchSpace
    sources: Sources
    workers: WorkerOptions
    studies: dict[str, str]
    storage: str
    out: Path
    trials: int
    batch_size: int
    tolerance: float = 0.01
    budget_counts: str = "total"
    objective: str = "top1"
    method: str = "any"
    sampler: str = "monte-carlo"
    refine: int = 0
    racing: str = "both"
    racing_signal: str = "total-variation"
    precision: str = "auto"
    device: str = "auto"
    threads: int = 1
    timeout: float | None = None
    max_failures: int | None = None
    candidates: int = 5
    enqueued: Mapping[str, PruningConfig] = field(default_factory=dict)
    speed: SpeedOptions = SpeedOptions()

    def decoder(self, geometry: Geometry, budget: str) -> Decoder:
        """What turns points into configurations of this model that meet one of the budgets.

        Raises:
            BudgetError: no configuration meets it; names the interval that can be met.
            SpaceError: the space does not fit the model.
        """
        parsed = parse_budget(budget, geometry, self.tolerance, self.budget_counts)
        return Decoder(self.space, geometry, parsed)

    def contract(self) -> dict[str, Any]:
        """What a resume must find unchanged, as far as it is known without model and images."""
        runtime = {"batch_size": self.batch_size, "threads": self.threads}
        stated = {"device": self.device, "precision": self.precision}
        return {
            "space": self.space.sha256,
            "decoder": DECODER,
            "method": self.method,
            "model": {
                "name": self.sources.model.name,
                "kwargs": dict(self.sources.model.kwargs),
                "num_classes": self.sources.model.num_classes,
            },
            "budget": {"tolerance": self.tolerance, "counts": self.budget_counts},
            "objective": self.objective,
            "sampler": self.sampler,
            "racing": {"rule": self.racing, "signal": self.racing_signal},
            "seed": self.sources.seed,
            "runtime": runtime | {key: v for key, v in stated.items() if v != "auto"},
        }


@dataclass(frozen=True, slots=True)
class ResolvedEvaluation:
    """An evaluation, resolved from its settings. precision and device may be "auto".

    name: of the configuration file, for messages. image_set: "search" or "holdout".
    images_sha256, weights_sha256: what the file was measured with and must be found again; None
    where it does not say, or where something else is asked for.
    predictions: CSV file to write.
    """

    file: ConfigFile
    name: str
    sources: Sources
    workers: WorkerOptions
    image_set: str
    device: str
    precision: str
    batch_size: int
    threads: int
    images_sha256: str | None = None
    weights_sha256: str | None = None
    predictions: Path | None = None
    speed: SpeedOptions = SpeedOptions()


@dataclass(frozen=True, slots=True)
class DataSetImages:
    """Images of a data set, to be drawn.

    sources: of model and images. image_set: "search" or "holdout".
    count: how many, from the first on; at_most: whether fewer will do where there are no more.
    numbers: which ones instead, where there are any.
    images_sha256: what the images must be, as in `ResolvedEvaluation`.
    """

    sources: Sources
    image_set: str
    count: int
    at_most: bool = False
    numbers: tuple[int, ...] = ()
    images_sha256: str | None = None


@dataclass(frozen=True, slots=True)
class ResolvedVisualization:
    """A picture, resolved from its settings. precision and device may be "auto".

    configs: by what messages and rows call them.
    name: of the first configuration, whose model, images and runtime it is.
    images: files, or images of a data set.
    weights_sha256: what the weights must be, as in `ResolvedEvaluation`.
    """

    configs: Mapping[str, PruningConfig]
    name: str
    model: ModelSpec
    data_overrides: Mapping[str, Any]
    class_map: str | None
    images: tuple[Path, ...] | DataSetImages
    importance: bool
    device: str
    precision: str
    threads: int
    weights_sha256: str | None = None

    @property
    def image_count(self) -> int:
        """How many images are drawn, if the data set has as many."""
        if isinstance(self.images, DataSetImages):
            return len(self.images.numbers) or self.images.count
        return len(self.images)
