"""`ztp-search evaluate` and `ztp-search cost`: one configuration file, measured or counted."""

from __future__ import annotations

import argparse
import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from ztp_search.backbones import apply, fvcore_macs, geometry_of
from ztp_search.backbones.loading import build_model, load_model
from ztp_search.cli.resolve import DEFAULTS, data_overrides, worker_options
from ztp_search.driver.evaluator import Evaluator, decode_images
from ztp_search.driver.progress import Progress
from ztp_search.errors import ConfigError, DataError, ZtpError
from ztp_search.evaluation.runtime import Runtime, resolve_runtime
from ztp_search.evaluation.scheduler import Outcome
from ztp_search.pruning.config_file import ConfigFile
from ztp_search.pruning.cost import cost_dict, flops
from ztp_search.racing import accuracy
from ztp_search.settings import ModelSpec, Sources


def cost(model_spec: ModelSpec, file: ConfigFile) -> dict[str, Any]:
    """The document of `cost --json`: GFLOPs per block, beside fvcore's count of the same model."""
    model = build_model(model_spec)
    geometry = geometry_of(model)
    counted = flops(geometry, file.config)
    apply(model, file.config)
    return {
        **cost_dict(counted),
        "fvcore_gflops": fvcore_macs(model) / 1e9,
        "blocks": [
            {
                "block": block.block,
                "tokens": block.tokens,
                "backbone": block.backbone / 1e9,
                "overhead": block.overhead / 1e9,
                "total": block.total / 1e9,
            }
            for block in counted.blocks
        ],
    }


def evaluate(
    args: argparse.Namespace,
    file: ConfigFile,
    sources: Sources,
    image_set: str,
    progress: Progress,
) -> dict[str, Any]:
    """The document of `evaluate --json`: the configuration and the unpruned model, measured.

    Model, images and runtime are the file's, so that an exported accuracy is reproduced from the
    file alone; the command line replaces them.
    """
    if args.predictions is not None:
        _check_writable(args.predictions)
    runtime = _runtime(args, file)
    progress.stage("loading the model")
    loaded = load_model(sources.model, data_overrides=sources.data_overrides)
    counted = flops(geometry_of(loaded.model), file.config)
    stated = file.model.get("weights_sha256")
    if args.model is None and args.weights is None and stated not in (None, loaded.weights_sha256):
        raise ConfigError(
            f"{args.config} was made with weights {stated[:12]}…, but {sources.model.name} has "
            f"{loaded.weights_sha256[:12]}… here; give the file's weights with --weights"
        )
    images = decode_images(sources, loaded, progress)
    store = images.search if image_set == "search" else images.holdout
    measured = (file.provenance.get("data") or {}).get(_COUNTS[image_set], {}).get("sha256")
    if not _other_images(args) and measured not in (None, store.digest):
        raise DataError(
            f"{args.config} was measured on {image_set} images {measured[:12]}…, but "
            f"{sources.data.source} gives {store.digest[:12]}… here; measure on it with --data"
        )
    options = worker_options(args)
    with Evaluator(sources, loaded, images, runtime, "agreement", options, progress) as evaluator:
        configs = {"unpruned": None, "pruned": file.config}
        outcomes = dict(evaluator.outcomes(image_set, configs, "evaluating"))
    labels = store.labels
    pruned, unpruned = outcomes["pruned"], outcomes["unpruned"]
    if args.predictions is not None:
        _write_predictions(args.predictions, store.names, labels, pruned, unpruned)
    labelled = not images.unlabelled
    return {
        "images": len(store),
        "image_set": image_set,
        "top1": accuracy(pruned.predictions == labels) if labelled else None,
        "agreement": accuracy(pruned.predictions == unpruned.predictions),
        "unpruned_top1": accuracy(unpruned.predictions == labels) if labelled else None,
        "gflops": counted.gflops(),
        "images_per_second": len(store) / pruned.seconds,
        "unpruned_images_per_second": len(store) / unpruned.seconds,
        "runtime": dataclasses.asdict(runtime),
    }


_COUNTS = {"search": "images", "holdout": "holdout"}
"""Where a file's provenance describes each image set."""


def _other_images(args: argparse.Namespace) -> bool:
    """Whether the command line asks for images other than the file's, or other pixels of them."""
    return args.data is not None or args.split is not None or bool(data_overrides(args))


def _runtime(args: argparse.Namespace, file: ConfigFile) -> Runtime:
    stored = file.provenance.get("runtime", {})
    return resolve_runtime(
        args.device or stored.get("device", "auto"),
        args.precision or stored.get("precision", "auto"),
        args.batch_size or stored.get("batch_size", DEFAULTS["batch_size"]),
        args.threads or stored.get("threads", 1),
    )


def _check_writable(path: str) -> None:
    try:
        Path(path).open("a").close()
    except OSError as error:
        raise ZtpError(f"--predictions {path} cannot be written: {error.strerror}") from None


def _write_predictions(
    path: str,
    names: list[str],
    labels: np.ndarray[Any, Any],
    pruned: Outcome,
    unpruned: Outcome,
) -> None:
    """A row per image: name, label (empty where unknown), prediction, unpruned prediction."""
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "prediction", "unpruned_prediction"])
        rows = zip(names, labels, pruned.predictions, unpruned.predictions, strict=True)
        for name, label, prediction, reference in rows:
            writer.writerow([name, "" if label < 0 else label, prediction, reference])
