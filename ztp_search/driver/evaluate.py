"""One configuration and the unpruned model, measured on the same images, and how fast they are;
and what it costs."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ztp_search.backbones import apply, fvcore_macs, geometry_of
from ztp_search.backbones.loading import LoadedModel, build_model, load_model
from ztp_search.data import ImageStore
from ztp_search.driver.evaluator import Evaluator, decode_images
from ztp_search.driver.progress import Progress
from ztp_search.driver.speed import measured_speed
from ztp_search.errors import ConfigError, DataError, ZtpError
from ztp_search.evaluation.runtime import resolve_runtime
from ztp_search.evaluation.scheduler import Outcome
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.cost import flops
from ztp_search.racing import accuracy
from ztp_search.results.measured import CostResult, EvaluationResult
from ztp_search.results.whole_file import check_place, in_place_of
from ztp_search.settings import ModelSpec, ResolvedEvaluation


def cost_of(spec: ModelSpec, config: PruningConfig) -> CostResult:
    """GFLOPs per block, beside fvcore's count of the same model; needs no weights."""
    model = build_model(spec)
    counted = flops(geometry_of(model), config)
    apply(model, config)
    return CostResult(counted, fvcore_macs(model))


def evaluate(settings: ResolvedEvaluation, progress: Progress) -> EvaluationResult:
    """Measure the configuration and the unpruned model, and write predictions where asked.

    Raises ZtpError for the user's mistakes: among them weights and images that are not those of
    the file's evidence, although no others were asked for.
    """
    if settings.predictions is not None:
        _check_writable(settings.predictions)
    runtime = resolve_runtime(
        settings.device, settings.precision, settings.batch_size, settings.threads
    )
    progress.stage("loading the model")
    sources = settings.sources
    loaded = load_expected(
        sources.model, sources.data_overrides, settings.weights_sha256, settings.name
    )
    counted = flops(geometry_of(loaded.model), settings.file.config)
    images = decode_images(sources, loaded, progress)
    store = images.search if settings.image_set == "search" else images.holdout
    check_images(
        settings.images_sha256, store, settings.name, settings.image_set, sources.data.source
    )
    with Evaluator(
        sources, loaded, images, runtime, "agreement", settings.workers, progress
    ) as evaluator:
        configs = {"unpruned": None, "pruned": settings.file.config}
        outcomes = dict(evaluator.outcomes(settings.image_set, configs, "evaluating"))
    pruned, unpruned = outcomes["pruned"], outcomes["unpruned"]
    speed: Mapping[str, Any] | None = None
    for record in measured_speed(
        loaded.model, settings.file.config, runtime, settings.speed, progress
    ):
        speed = record  # the last has all
    if settings.predictions is not None:
        _write_predictions(settings.predictions, store, pruned, unpruned)
    labelled = not images.unlabelled
    return EvaluationResult(
        images=len(store),
        image_set=settings.image_set,
        top1=accuracy(pruned.predictions == store.labels) if labelled else None,
        agreement=accuracy(pruned.predictions == unpruned.predictions),
        unpruned_top1=accuracy(unpruned.predictions == store.labels) if labelled else None,
        gflops=counted.gflops(),
        speed=speed,
        runtime=dataclasses.asdict(runtime),
    )


def load_expected(
    spec: ModelSpec, data_overrides: Mapping[str, Any], digest: str | None, name: str
) -> LoadedModel:
    """The model of a configuration file, with the weights that the file was made with.

    Args:
        spec, data_overrides: as `load_model` takes them.
        digest: of the weights; None: any will do.
        name: of the file, for messages.

    Raises:
        ModelError: as `load_model`.
        ConfigError: the weights are others.
    """
    loaded = load_model(spec, data_overrides=data_overrides)
    if digest is not None and digest != loaded.weights_sha256:
        raise ConfigError(
            f"{name} was made with weights {digest[:12]}…, but {spec.name} has "
            f"{loaded.weights_sha256[:12]}… here; give the file's weights with `weights`"
        )
    return loaded


def check_images(
    expected: str | None, store: ImageStore, name: str, image_set: str, source: str
) -> None:
    """Refuse images that are not those that a configuration was measured on.

    Args:
        expected: their digest; None: any will do.
        store: the images.
        name: of the configuration file.
        image_set: "search" or "holdout".
        source: where the images are from.

    Raises:
        DataError: they are others.
    """
    if expected is not None and expected != store.digest:
        raise DataError(
            f"{name} was measured on {image_set} images {expected[:12]}…, but {source} gives "
            f"{store.digest[:12]}… here; measure on it with `data`"
        )


def _check_writable(path: Path) -> None:
    try:
        check_place(path)
    except OSError as error:
        raise ZtpError(f"`predictions` {path} cannot be written: {error.strerror}") from None


def _write_predictions(path: Path, store: ImageStore, pruned: Outcome, unpruned: Outcome) -> None:
    """A row per image: name, label (empty where unknown), prediction, unpruned prediction."""
    with in_place_of(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "prediction", "unpruned_prediction"])
        columns = (store.names, store.labels, pruned.predictions, unpruned.predictions)
        for name, label, prediction, reference in zip(*columns, strict=True):
            writer.writerow([name, "" if label < 0 else label, prediction, reference])
