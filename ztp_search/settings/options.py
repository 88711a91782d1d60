"""What a user may say of a search, an evaluation or a model: the options, their defaults, checked.

A value that is not one is a ZtpError of one line, as everywhere.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import Field
from pydantic.dataclasses import dataclass

from ztp_search.errors import ZtpError
from ztp_search.pruning.budget import split_budgets
from ztp_search.validation import first_setting_error

Natural = Annotated[int, Field(ge=0, lt=10**12)]
Positive = Annotated[int, Field(ge=1, lt=10**12)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
FileName = str | Path
BudgetText = str | float
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
ImageSet = Literal["search", "holdout"]

CONFIG = pydantic.ConfigDict(extra="forbid", strict=True)
T = TypeVar("T")


def refused_in_one_line(cls: type[T]) -> type[T]:
    """Let a dataclass of pydantic raise ZtpError for the first thing that is wrong."""
    check: Any = cls.__init__

    @functools.wraps(check)
    def __init__(self: T, *args: Any, **values: Any) -> None:
        try:
            check(self, *args, **values)
        except pydantic.ValidationError as error:
            raise ZtpError(first_setting_error(error, cls.__name__)) from None

    setattr(cls, "__init__", __init__)  # noqa: B010  (mypy: a method is not assigned to)
    return cls


@refused_in_one_line
@dataclass(frozen=True, slots=True, kw_only=True, config=CONFIG)
class ModelSettings:
    """Which model, where the space or the configuration file does not say, or in its place.

    Args:
        model: a timm name, with or without a tag, or "hf-hub:owner/name".
        model_kwargs: arguments of its constructor.
        weights: safetensors file or state dict; None: timm's pretrained weights.
        num_classes: of its head.
    """

    model: str | None = None
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    weights: FileName | None = None
    num_classes: Positive | None = None


@refused_in_one_line
@dataclass(frozen=True, slots=True, kw_only=True, config=CONFIG)
class DataSettings(ModelSettings):
    """Which model and which images.

    Args:
        data: folder of images, .tar, or hfds/NAME, wds/PATH, torch/NAME as timm opens them.
        split: of a data set that has several.
        holdout_split: take holdout images from another split; None: other images of `split`.
        class_map: file that says which output of the model a class is.
        skip_unreadable: go on without images that are broken.
        mean, std, interpolation, crop_pct, crop_mode, input_size: preprocessing, in place of
            timm's data config of the model.
        batch_size: images per forward; None: that of the space or file.
        workers: Ray workers; 0 works in this process; None: one per GPU, or per core.
        gpus_per_worker: share of a GPU that one worker takes.
        cache_memory: bytes of each worker for what configurations share; None: 1 GB, or less
            where many workers share little memory.
        address: Ray cluster to use; None starts one here.
        out: folder for the database and decoded images.
    """

    data: FileName | None = None
    split: str | None = None
    holdout_split: str | None = None
    class_map: FileName | None = None
    skip_unreadable: bool = False
    mean: Sequence[Finite] | None = None
    std: Sequence[Finite] | None = None
    interpolation: str | None = None
    crop_pct: Finite | None = None
    crop_mode: str | None = None
    input_size: Sequence[int] | None = None
    out: FileName = "ztp-runs"

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is stated in place of timm's data config."""
        names = ("mean", "std", "interpolation", "crop_pct", "crop_mode", "input_size")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@refused_in_one_line
@dataclass(frozen=True, slots=True, kw_only=True, config=CONFIG)
class RunSettings(DataSettings):
    """What a search and an evaluation have in common: model, images, workers.

    Args:
        batch_size: images per forward; None: that of the space or file.
        workers: Ray workers; 0 works in this process; None: one per GPU, or per core.
        gpus_per_worker: share of a GPU that one worker takes.
        cache_memory: bytes of each worker for what configurations share; None: 1 GB, or less
            where many workers share little memory.
        address: Ray cluster to use; None starts one here.
        speed: what the speed of the pruned model is measured in, beside the unpruned one's:
            "eager", "compiled", "onnxruntime"; several: "eager,onnxruntime" or a list; "off".
        speed_batch_sizes: images per forward; none: 1, which is latency, and `batch_size`.
        speed_repeats: how many turns each model takes; None: what a second allows, 5 to 50.
    """

    batch_size: Positive | None = None
    workers: Natural | None = None
    gpus_per_worker: PositiveFloat = 1.0
    cache_memory: Natural | None = None
    address: str | None = None
    speed: str | Sequence[str] = "eager"
    speed_batch_sizes: Sequence[Positive] = ()
    speed_repeats: Positive | None = None

    @property
    def engines(self) -> tuple[str, ...]:
        """The names in `speed`, each once; none where it is "off"."""
        each = self.speed.split(",") if isinstance(self.speed, str) else self.speed
        names = tuple(dict.fromkeys(name.strip() for name in each))
        return () if names == ("off",) else names


@refused_in_one_line
@dataclass(frozen=True, slots=True, kw_only=True, config=CONFIG)
class SearchSettings(RunSettings):
    """The settings of a search: every option of `ztp-search` under its Python name.

    Args:
        budget: GFLOPs per image (3.08), or a share of the unpruned model ("67%"). Several:
            "2.5,3.0,3.5", [2.5, 3.0, 3.5], or "2.5:4.0:6" for six from 2.5 to 4.0.
        tolerance: how far below the budget a configuration may stay, as a fraction of it.
        budget_counts: "total" bounds what runs; "backbone" leaves out what pruning adds.
        space: name of a shipped search space, or path of a file; None: that of the model.
        method: "any" searches all of the space, "zero-tprune" the paper's part of it (tokens are
            dropped), "merge" the part where none is dropped.
        objective: "top1", or "agreement" with the unpruned model, which needs no labels.
        trials: configurations to evaluate in all; None: the space's default.
        enqueue: configuration files that are the first trials.
        timeout: seconds; start no more trials than can be raced to the end in them.
        max_failures: trials that may fail before the search ends with what the first of them
            failed with; None: all do, of 16 at least.
        seed: of configurations and image order.
        sampler: how configurations are proposed; a name of `samplers.SAMPLERS`.
        refine: so many more trials close to the best ones found.
        racing: who goes on to more images; a name of `racing.RACING`.
        racing_signal: what trials are told apart by; a name of `objectives.SIGNALS`:
            "total-variation" from the unpruned model's output, "label-probability", or "correct",
            right or wrong alone.
        candidates: how many of the best are measured again on holdout.
        images: images that choose the winner; None: what is left beside the holdout, up to the
            space's default.
        holdout: other images that report on it; None: the space's default.
        precision, device: "auto" is what this machine is best at.
        threads: CPU threads of one worker.
        storage: URL of the database; None: SQLite in `out`.
        study: name; None: made of space, budget and seed.
        metrics: refuse to search where Ray serves no metrics for Prometheus, and say where it does.

    Raises:
        ZtpError: a value is not one; the message says which, and what it must be.

    Example:
        >>> from ztp_search import SearchSettings
        >>> SearchSettings(space="digits", budget="68%", trials=16).budgets
        ('68%',)
    """

    budget: BudgetText | Sequence[BudgetText]
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.01
    budget_counts: Literal["total", "backbone"] = "total"
    space: FileName | None = None
    method: str = "any"
    objective: str = "top1"
    trials: Positive | None = None
    enqueue: Sequence[FileName] = ()
    timeout: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    max_failures: Natural | None = None
    seed: Natural = 0
    sampler: str = "monte-carlo"
    refine: Natural = 0
    racing: str = "both"
    racing_signal: str = "total-variation"
    candidates: Positive = 5
    images: Positive | None = None
    holdout: Natural | None = None
    precision: Precision = "auto"
    device: Device = "auto"
    threads: Positive = 1
    storage: str | None = None
    study: str | None = None
    metrics: bool = False

    @property
    def budgets(self) -> tuple[str, ...]:
        """Every budget in its shortest form; BudgetError where `budget` is not well formed."""
        each = [self.budget] if isinstance(self.budget, str | float) else self.budget
        return split_budgets(",".join(str(budget) for budget in each))


@refused_in_one_line
@dataclass(frozen=True, slots=True, kw_only=True, config=CONFIG)
class EvaluateSettings(RunSettings):
    """The settings of an evaluation; what is None is taken from the configuration file.

    Args:
        image_set: of the file's images, "search" or "holdout"; None: holdout, where it has any.
        images: with `data`: how many.
        seed: with `data`: their order.
        predictions: CSV file to write, a row per image.
        precision, device, threads: None is the file's, else "auto" and 1.

    Raises:
        ZtpError: a value is not one; the message says which, and what it must be.

    Example:
        >>> from ztp_search import EvaluateSettings
        >>> EvaluateSettings(image_set="search", workers=0).image_set
        'search'
    """

    image_set: ImageSet | None = None
    images: Positive | None = None
    seed: Natural | None = None
    predictions: FileName | None = None
    precision: Precision | None = None
    device: Device | None = None
    threads: Positive | None = None


@refused_in_one_line
@dataclass(frozen=True, slots=True, kw_only=True, config=CONFIG)
class VisualizeSettings(DataSettings):
    """The settings of a picture; what is None is taken from the configuration file.

    Args:
        image: picture files to draw, in place of images of a data set.
        image_set: of the file's images, "search" or "holdout"; None: holdout, where it has any.
        images: how many images of the set, from its first on; None: 4, or as many as there are.
        image_numbers: which images of the set, counted from 0, in place of its first.
        seed: with `data`: the order of its images.
        importance: draw also what each pruning layer ranked tokens by.
        precision, device, threads: None is the file's, else "auto" and 1.

    Raises:
        ZtpError: a value is not one; the message says which, and what it must be.

    Example:
        >>> from ztp_search import VisualizeSettings
        >>> VisualizeSettings(image_numbers=[3, 17]).image_numbers
        [3, 17]
    """

    image: Sequence[FileName] = ()
    image_set: ImageSet | None = None
    images: Positive | None = None
    image_numbers: Sequence[Natural] = ()
    seed: Natural | None = None
    importance: bool = False
    precision: Precision | None = None
    device: Device | None = None
    threads: Positive | None = None
