"""What configurations do to images, token by token: run, and drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ztp_search.backbones import apply, backbone_of, geometry_of
from ztp_search.backbones.loading import LoadedModel
from ztp_search.data import ImageStore, normalise, output_names, read_pictures
from ztp_search.driver.evaluate import check_images, load_expected
from ztp_search.driver.evaluator import decode_images
from ztp_search.driver.progress import Progress
from ztp_search.errors import ConfigError, ZtpError
from ztp_search.evaluation.runtime import DTYPES, Runtime, resolve_runtime
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.cost import flops
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.methods.zero_tprune import PRE_RANKED
from ztp_search.results.picture_file import check_picture_path
from ztp_search.results.token_figure import check_cells, token_figure
from ztp_search.results.token_maps import layer_maps
from ztp_search.results.visualization import ImageView, NamedOutput, ReducedImage, Visualization
from ztp_search.settings import DataSetImages, ResolvedVisualization


def visualize(settings: ResolvedVisualization, output: Path, progress: Progress) -> Visualization:
    """Run the model on the images, unpruned and by each configuration, and draw what happens.

    Raises:
        ZtpError: the user's mistakes, those that need no model before it is loaded.
    """
    check_picture_path(output)
    drawn = replace(look(settings, progress), output=str(output))
    progress.stage("drawing")
    token_figure(drawn, output)
    return drawn


def look(settings: ResolvedVisualization, progress: Progress) -> Visualization:
    """Run the model on the images, unpruned and by each configuration; nothing is drawn.

    Raises:
        ZtpError: as `visualize`.
    """
    layers = [len(config.layers) for config in settings.configs.values()]
    check_cells(settings.image_count, layers, settings.importance)
    runtime = resolve_runtime(settings.device, settings.precision, 1, settings.threads)
    progress.stage("loading the model")
    loaded = load_expected(
        settings.model, settings.data_overrides, settings.weights_sha256, settings.name
    )
    gflops = _gflops(geometry_of(loaded.model), settings.configs)
    pictures = _pictures(settings, loaded, progress)
    progress.stage("running the model")
    return Visualization(
        output="",
        model=settings.model.name,
        patch_size=backbone_of(loaded.model).patch_size,
        importance=settings.importance,
        images=_views(settings, loaded, runtime, pictures, gflops, progress),
    )


@dataclass(frozen=True, slots=True)
class _Picture:
    """name: as it is shown. pixels: before normalisation, (C, H, W). label: -1 where unknown."""

    name: str
    pixels: NDArray[np.uint8]
    label: int = -1


def _gflops(
    geometry: Geometry, configs: Mapping[str, PruningConfig]
) -> dict[str, dict[str, float]]:
    """Of each configuration; ConfigError where one does not fit the model."""
    out = {}
    for name, config in configs.items():
        try:
            out[name] = flops(geometry, config).gflops()
        except ConfigError as error:
            raise ConfigError(f"{name} does not fit the model: {error}") from error
    return out


def _pictures(
    settings: ResolvedVisualization, loaded: LoadedModel, progress: Progress
) -> list[_Picture]:
    """The images to draw."""
    if not isinstance(settings.images, DataSetImages):
        found = read_pictures(settings.images, loaded.data_config)
        return [
            _Picture(path.name, pixels)
            for path, pixels in zip(settings.images, found, strict=True)
        ]
    chosen = settings.images
    sets = decode_images(chosen.sources, loaded, progress)
    store = sets.search if chosen.image_set == "search" else sets.holdout
    source = chosen.sources.data.source
    check_images(chosen.images_sha256, store, settings.name, chosen.image_set, source)
    return [
        _Picture(
            f"{chosen.image_set} image {number}", np.array(store.images[number]),
            -1 if store.unlabelled else int(store.labels[number]),
        )
        for number in _numbers(chosen, store)
    ]  # fmt: skip


def _numbers(chosen: DataSetImages, store: ImageStore) -> tuple[int, ...]:
    """The images that are drawn, by number."""
    if not chosen.numbers:
        if chosen.count > len(store) and not chosen.at_most:
            raise ZtpError(
                f"`images` must be at most the {len(store)} {chosen.image_set} images, but got "
                f"{chosen.count}; give fewer"
            )
        return tuple(range(min(chosen.count, len(store))))
    for number in chosen.numbers:
        if number >= len(store):
            raise ZtpError(
                f"`image_numbers` must be below {len(store)}, as there are so many "
                f"{chosen.image_set} images, but got {number}; give a lower one"
            )
    return chosen.numbers


def _views(
    settings: ResolvedVisualization,
    loaded: LoadedModel,
    runtime: Runtime,
    pictures: list[_Picture],
    gflops: Mapping[str, Mapping[str, float]],
    progress: Progress,
) -> tuple[ImageView, ...]:
    """Image by image, so that none depends on what else is drawn."""
    torch.set_num_threads(runtime.threads)
    model: Any = loaded.model.to(runtime.device, DTYPES[runtime.precision])
    names = output_names(model.num_classes, settings.class_map)
    geometry = geometry_of(model)
    views = []
    with torch.inference_mode():
        for done, picture in enumerate(pictures, 1):
            pixels = torch.from_numpy(picture.pixels[None]).to(runtime.device)
            mean, std = (loaded.data_config[key] for key in ("mean", "std"))
            x = normalise(pixels, mean, std).to(DTYPES[runtime.precision])
            reduced = tuple(
                _reduced(model, name, config, geometry, x, names, gflops[name])
                for name, config in settings.configs.items()
            )
            unpruned = _prediction(apply(model, None)(x), names)
            label = None
            if picture.label >= 0:
                label = NamedOutput(picture.label, names.get(picture.label))
            views.append(
                ImageView(picture.name, _shown(picture.pixels), label, unpruned, reduced)
            )
            progress.images(done, len(pictures))
    return tuple(views)


def _reduced(
    model: Any,
    name: str,
    config: PruningConfig,
    geometry: Geometry,
    x: Tensor,
    names: Mapping[int, str],
    gflops: Mapping[str, float],
) -> ReducedImage:
    """One configuration on one image, (1, C, H, W)."""
    logits = apply(model, config, record_tokens=True)(x)
    records = [_of_one_image(record) for record in model.ztp_tokens] if config.layers else []
    layers = layer_maps(
        records, patches=geometry.patch_tokens, prefix=geometry.prefix_tokens,
        s_first=config.order == PRE_RANKED,
    )  # fmt: skip
    return ReducedImage(name, gflops, _prediction(logits, names), layers)


def _of_one_image(record: Mapping[str, Any]) -> dict[str, Any]:
    """A pruning layer's record as arrays, without the dimension of images."""
    out = dict(record)
    for key, value in record.items():
        if isinstance(value, Tensor):
            one = value[0].cpu()
            out[key] = (one.double() if one.is_floating_point() else one).numpy()
    return out


def _prediction(logits: Tensor, names: Mapping[int, str]) -> NamedOutput:
    """The first of the most probable outputs, of logits (1, classes)."""
    if not bool(logits.isfinite().all()):
        return NamedOutput(None)
    probabilities = logits[0].double().softmax(0)
    output = int(logits[0].argmax())
    return NamedOutput(output, names.get(output), float(probabilities[output]))


def _shown(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(C, H, W) with one channel or three -> (H, W, 3)."""
    return np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0)
