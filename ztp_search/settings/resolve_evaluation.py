"""What the settings of an evaluation mean: the file's model, images and runtime, or others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ztp_search.errors import ZtpError
from ztp_search.pruning.config_file import ConfigFile
from ztp_search.settings.options import (
    DataSettings,
    EvaluateSettings,
    ModelSettings,
    VisualizeSettings,
)
from ztp_search.settings.resolve_search import (
    DEFAULTS,
    check_files,
    data_spec,
    model_spec,
    speed_options,
    worker_options,
)
from ztp_search.settings.resolved import ModelSpec, ResolvedEvaluation, Sources

PROVENANCE_KEY = {"search": "images", "holdout": "holdout"}
"""Where a file's provenance describes each image set."""


def resolve_evaluation(
    settings: EvaluateSettings, file: ConfigFile, name: str
) -> ResolvedEvaluation:
    """What an evaluation of the file does.

    Model, images and runtime are the file's, so that an exported accuracy is reproduced from the
    file alone; what the settings state replaces them. The file's digests of images and weights
    are to be found again unless others are asked for.

    Args:
        name: of the file, for messages.

    Raises:
        ZtpError: the file names no model or images and neither do the settings, or the settings
            contradict one another.
    """
    check_files(settings)
    model = resolve_model(settings, file, name)
    stored = file.provenance.get("data")
    if settings.data is not None or stored is None:
        sources, image_set = _other_data(settings, model, file, name)
    else:
        sources, image_set = _data_of_file(settings, model, stored)
    images_sha256 = None
    if stored is not None and not _asks_for_other_images(settings):
        images_sha256 = stored[PROVENANCE_KEY[image_set]]["sha256"]
    return ResolvedEvaluation(
        file=file,
        name=name,
        sources=sources,
        workers=worker_options(settings),
        image_set=image_set,
        batch_size=settings.batch_size
        or file.provenance.get("runtime", {}).get("batch_size", DEFAULTS["batch_size"]),
        images_sha256=images_sha256,
        weights_sha256=weights_sha256_of(settings, file),
        **runtime_of(settings, file),
        predictions=None if settings.predictions is None else Path(settings.predictions),
        speed=speed_options(settings),
    )


def resolve_model(settings: ModelSettings, file: ConfigFile, name: str) -> ModelSpec:
    """The model that is stated, else the file's; ZtpError where there is neither."""
    stated: Mapping[str, Any] = file.model
    if settings.model is not None:
        stated = {"name": settings.model}
    if "name" not in stated:
        raise ZtpError(f"{name} names no model; give `model`")
    return model_spec(settings, stated)


def runtime_of(settings: EvaluateSettings | VisualizeSettings, file: ConfigFile) -> dict[str, Any]:
    """Device, precision and threads that are stated, else the file's."""
    runtime = file.provenance.get("runtime", {})
    return {
        "device": settings.device or runtime.get("device", "auto"),
        "precision": settings.precision or runtime.get("precision", "auto"),
        "threads": settings.threads or runtime.get("threads", 1),
    }


def weights_sha256_of(settings: ModelSettings, file: ConfigFile) -> str | None:
    """What the weights must be: the file's, unless others are asked for."""
    own = settings.model is None and settings.weights is None
    return file.model.get("weights_sha256") if own else None


def preprocessing_of(settings: DataSettings, file: ConfigFile) -> dict[str, Any]:
    """For images that are not the file's: as it says where the model is its own."""
    return {**stored_preprocessing(settings, file), **settings.preprocessing}


def stored_preprocessing(settings: ModelSettings, file: ConfigFile) -> Mapping[str, Any]:
    """What the file says of it, which goes for its own model alone."""
    stored: Mapping[str, Any] = file.provenance.get("data") or {}
    config: Mapping[str, Any] = stored.get("config", {}) if settings.model is None else {}
    return config


def _asks_for_other_images(settings: EvaluateSettings) -> bool:
    """Whether images other than the file's, other pixels or other labels of them, are meant."""
    stated = (settings.data, settings.split, settings.holdout_split, settings.class_map)
    return bool(settings.preprocessing) or any(value is not None for value in stated)


def _other_data(
    settings: EvaluateSettings, model: ModelSpec, file: ConfigFile, name: str
) -> tuple[Sources, str]:
    """The images of `data`, preprocessed as the file says where the model is its own."""
    if settings.data is None:
        raise ZtpError(f"{name} names no images; give `data`")
    for option in ("image_set", "holdout_split"):
        value = getattr(settings, option)
        if value is not None:
            raise ZtpError(
                f"`{option}` {value} is of the file's images; leave it or `data` out"
            )
    return Sources(
        model=model,
        data=data_spec(settings, {}),
        data_overrides=preprocessing_of(settings, file),
        images=settings.images or DEFAULTS["images"],
        holdout=0,
        seed=settings.seed or 0,
        cache_dir=Path(settings.out) / "images",
        skip_unreadable=settings.skip_unreadable,
    ), "search"


def _data_of_file(
    settings: EvaluateSettings, model: ModelSpec, stored: Mapping[str, Any]
) -> tuple[Sources, str]:
    """The file's images, or others of their data set."""
    for option in ("images", "seed"):
        value = getattr(settings, option)
        if value is not None:
            raise ZtpError(
                f"`{option}` {value} chooses among images of `data`; give `data` too"
            )
    holdout = stored["holdout"]["count"]
    return Sources(
        model=model,
        data=data_spec(settings, stored),
        data_overrides={**stored["config"], **settings.preprocessing},
        images=stored["images"]["count"],
        holdout=holdout,
        seed=stored["seed"],
        cache_dir=Path(settings.out) / "images",
        skip_unreadable=settings.skip_unreadable or stored["skip_unreadable"],
    ), settings.image_set or ("holdout" if holdout else "search")
