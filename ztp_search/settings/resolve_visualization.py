"""What the settings of a picture mean: configurations, a model that all are of, images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from ztp_search.errors import ConfigError, ZtpError
from ztp_search.files import exists
from ztp_search.pruning.config_file import ConfigFile
from ztp_search.settings.options import DataSettings, EvaluateSettings, VisualizeSettings
from ztp_search.settings.resolve_evaluation import (
    preprocessing_of,
    resolve_evaluation,
    resolve_model,
    runtime_of,
    weights_sha256_of,
)
from ztp_search.settings.resolve_search import check_files, text
from ztp_search.settings.resolved import DataSetImages, ResolvedVisualization

DEFAULT_IMAGES = 4
MODEL_KEYS = ("name", "kwargs", "num_classes", "weights_sha256")
"""What says of a file's model which one it is."""


def resolve_visualization(
    settings: VisualizeSettings, files: Mapping[str, ConfigFile]
) -> ResolvedVisualization:
    """What a picture of these configurations shows.

    Model, images and runtime are those of the first file, as an evaluation of it has them; what
    the settings state replaces them.

    Args:
        settings: of the picture.
        files: the configurations by what messages call them, one or more.

    Raises:
        ZtpError: the files are of different models, nobody names a model or images, a file is not
            there, or the settings contradict one another.
    """
    name, file = next(iter(files.items()))
    model = resolve_model(settings, file, name)
    if settings.model is None:
        _check_same_model(files, other_weights=settings.weights is not None)
    check_files(settings)
    images = _files(settings) if settings.image else _of_data_set(settings, file, name)
    if isinstance(images, DataSetImages):
        overrides, class_map = images.sources.data_overrides, images.sources.data.class_map
    else:
        overrides, class_map = preprocessing_of(settings, file), text(settings.class_map)
    return ResolvedVisualization(
        configs={each: of_config.config for each, of_config in files.items()},
        name=name,
        model=model,
        data_overrides=overrides,
        class_map=class_map,
        images=images,
        importance=settings.importance,
        weights_sha256=weights_sha256_of(settings, file),
        **runtime_of(settings, file),
    )


def _check_same_model(files: Mapping[str, ConfigFile], other_weights: bool) -> None:
    """Files that state no model go with any; so do their weights where others are asked for."""
    keys = [key for key in MODEL_KEYS if key != "weights_sha256" or not other_weights]
    stated = {name: file.model for name, file in files.items() if "name" in file.model}
    first, *others = stated
    for other in others:
        for key in keys:
            mine, its = stated[first].get(key), stated[other].get(key)
            if mine != its:
                raise ConfigError(
                    f"configurations in one picture must be of one model, but {first} has {key} "
                    f"{mine!r} and {other} {its!r}; draw them apart, or give `model`"
                )


def _files(settings: VisualizeSettings) -> tuple[Path, ...]:
    """The picture files, which leave nothing to say about a data set."""
    for option in ("data", "split", "holdout_split", "image_set", "images", "image_numbers",
                   "seed"):  # fmt: skip
        value = getattr(settings, option)
        if value or value == 0:
            raise ZtpError(f"`{option}` {value} is of a data set; leave it or `image` out")
    paths = tuple(Path(path) for path in settings.image)
    for path in paths:
        if not exists(path):
            raise ZtpError(f"`image` {path} does not exist; give its path")
    return paths


def _of_data_set(settings: VisualizeSettings, file: ConfigFile, name: str) -> DataSetImages:
    """The first images of a set, or those of the given numbers."""
    numbers = tuple(settings.image_numbers)
    if numbers and settings.images is not None:
        raise ZtpError(
            f"`images` {settings.images} is how many and `image_numbers` says which; leave one out"
        )
    count = settings.images or DEFAULT_IMAGES
    evaluation = resolve_evaluation(_evaluate_settings(settings, count, numbers), file, name)
    at_most = not numbers and settings.images is None
    sources = evaluation.sources
    if settings.data is not None:
        sources = dataclasses.replace(sources, images_at_most=at_most)
    return DataSetImages(
        sources, evaluation.image_set, count, at_most, numbers, evaluation.images_sha256
    )


def _evaluate_settings(
    settings: VisualizeSettings, count: int, numbers: tuple[int, ...]
) -> EvaluateSettings:
    """The evaluation whose images are to be drawn; of `data` it needs no more than these."""
    shared = {each.name for each in dataclasses.fields(DataSettings)}
    shared |= {"image_set", "seed", "precision", "device", "threads"}
    images = None
    if settings.data is not None:
        images = 1 + max(numbers) if numbers else count
    return EvaluateSettings(images=images, **{name: getattr(settings, name) for name in shared})
