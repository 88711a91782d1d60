"""Pictures of configurations at work: what is counted, predicted and shown, on any model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from conftest import Finished
from helpers.messages import one_line
from helpers.pictures import folder_of, picture
from safetensors.torch import save_file

import ztp_search
from ztp_search import PruningConfig, PruningLayer, VisualizeSettings
from ztp_search.backbones import geometry_of
from ztp_search.backbones.loading import load_model
from ztp_search.data import normalise
from ztp_search.errors import ZtpError
from ztp_search.pruning.config_file import ConfigFile, read_config_file
from ztp_search.pruning.cost import flops
from ztp_search.pruning.methods import method_of
from ztp_search.pruning.tokens import token_counts
from ztp_search.results.token_maps import Fate
from ztp_search.results.visualization import Visualization
from ztp_search.settings import ModelSpec

DROPPING = PruningConfig(
    (PruningLayer(1, 0.8, 4, 3), PruningLayer(2, 1.0, 3, 1)), v_min=0.0, v_max=1e6
)
MERGING = PruningConfig(
    (PruningLayer(1, 0.8, 4, 3, merge_share=0.5), PruningLayer(3, 0.7, 0, 2, merge_share=1.0)),
    v_min=0.0, v_max=1e6, similar="merge", sizes="track",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Model:
    """A small random model of any shape, as a user has it: a name, arguments and weights."""

    kwargs: dict[str, Any]
    weights: Path

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "model": "vit_tiny_patch16_224", "model_kwargs": self.kwargs, "weights": self.weights,
            "precision": "fp32", "device": "cpu",
        }  # fmt: skip

    def load(self) -> Any:
        return load_model(ModelSpec("vit_tiny_patch16_224", self.kwargs, str(self.weights)))


def model_of(folder: Path, **kwargs: Any) -> Model:
    kwargs = {"embed_dim": 48, "depth": 4, "num_heads": 3, "num_classes": 7, **kwargs}
    generator = torch.Generator().manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", **kwargs)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            spread = 1.5 / parameter[0].numel() ** 0.5
            parameter.data += spread * torch.randn(parameter.shape, generator=generator)
    save_file(model.state_dict(), folder / "weights.safetensors")
    return Model(kwargs, folder / "weights.safetensors")


def drawn(
    config: Any, folder: Path, output: str = "picture.png", **settings: Any
) -> Visualization:
    made = ztp_search.visualize(
        config, folder / output, VisualizeSettings(out=folder / "runs", **settings)
    )
    assert (folder / output).stat().st_size > 1000
    return made


SHAPES: dict[str, dict[str, Any]] = {
    "square": {"img_size": 32, "patch_size": 8},
    "wide": {"img_size": (24, 48), "patch_size": 8},
    "tall, patches that are not square": {"img_size": (48, 32), "patch_size": (8, 4)},
    "registers": {"img_size": 32, "patch_size": 8, "reg_tokens": 3},
    "no class token": {
        "img_size": 32, "patch_size": 8, "class_token": False, "global_pool": "avg"
    },
    "grayscale": {"img_size": 32, "patch_size": 8, "in_chans": 1},
}  # fmt: skip


@pytest.mark.parametrize("config", [DROPPING, MERGING], ids=["dropping", "merging"])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_drawn_is_what_token_counts_and_the_method_say(
    shape: str, config: PruningConfig, tmp_path: Path
) -> None:
    model = model_of(tmp_path, **SHAPES[shape])
    path = tmp_path / "a.png"
    picture(0, size=(70, 60)).save(path)
    made = drawn(config, tmp_path, image=[path], importance=True, **model.settings)
    geometry = geometry_of(model.load().model)
    counts = token_counts(geometry, config)
    (image,) = made.images
    (row,) = image.reduced
    assert row.gflops == flops(geometry, config).gflops()
    assert len(row.layers) == len(config.layers)
    for layer, stated in zip(row.layers, config.layers, strict=True):
        n_in, n_out = counts[stated.after_block - 1], counts[stated.after_block]
        assert (layer.after_block, layer.tokens_in, layer.tokens_out) == (
            stated.after_block, n_in, n_out
        )  # fmt: skip
        prefix = geometry.prefix_tokens
        method = method_of(config)
        fates = method.taken_out(config, stated, n_in - prefix, n_out - prefix)
        by_fate = dict(zip(method.fates, fates, strict=True))
        similar = by_fate["dropped as similar"] + by_fate["merged as similar"]
        assert layer.dropped["s"] + layer.merged["s"] == similar
        assert layer.dropped["i"] == by_fate["dropped as unimportant"]
        assert layer.merged["i"] == by_fate["merged as unimportant"]
        assert len(set(layer.groups.tolist()) - {-1}) == n_out - prefix
        assert len(layer.fates) == geometry.patch_tokens


@pytest.mark.parametrize("shape", ["wide", "grayscale"])
def test_an_image_is_shown_as_the_model_sees_it_whatever_the_normalisation(
    shape: str, tmp_path: Path
) -> None:
    model = model_of(tmp_path, **SHAPES[shape])
    path = tmp_path / "a.png"
    picture(0, size=(70, 60)).save(path)
    mean, std = [0.2], [0.7]
    made = drawn(DROPPING, tmp_path, image=[path], mean=mean, std=std, **model.settings)
    (image,) = made.images
    height, width = model.load().data_config["input_size"][1:]
    assert image.pixels.shape == (height, width, 3) and image.pixels.dtype == np.uint8
    channels = model.kwargs.get("in_chans", 3)
    pixels = torch.from_numpy(image.pixels.copy()).permute(2, 0, 1)[:channels]
    expected = model.load().model(normalise(pixels[None], mean, std))[0].double().softmax(0)
    assert image.unpruned.output == int(expected.argmax())
    assert image.unpruned.probability == pytest.approx(float(expected.max()), abs=1e-5)


def test_predictions_and_layers_are_those_of_the_pruned_model(tmp_path: Path) -> None:
    model = model_of(tmp_path, **SHAPES["registers"])
    path = tmp_path / "a.png"
    picture(0).save(path)
    made = drawn([DROPPING, MERGING], tmp_path, image=[path], **model.settings)
    (image,) = made.images
    loaded = model.load()
    mean, std = loaded.data_config["mean"], loaded.data_config["std"]
    x = normalise(torch.from_numpy(image.pixels.copy()).permute(2, 0, 1)[None], mean, std)
    for config, row in zip((DROPPING, MERGING), image.reduced, strict=True):
        pruned = ztp_search.apply(loaded.model, config, record_tokens=True)
        expected = pruned(x)[0].double().softmax(0)
        assert row.prediction.output == int(expected.argmax())
        assert row.prediction.probability == pytest.approx(float(expected.max()), abs=1e-5)
        for layer, record in zip(row.layers, pruned.ztp_tokens, strict=True):
            left = {int(token) - 4 for token in record["layer"][0]} - {-4, -3, -2, -1}
            # each token that is left is in the patch that it is called by
            assert {group for group in layer.groups.tolist() if group >= 0} == left
            dropped = {Fate.S_DROPPED, Fate.I_DROPPED, Fate.DROPPED_BEFORE}
            gone = {p for p, fate in enumerate(layer.fates.tolist()) if fate in dropped}
            assert gone == {p for p, group in enumerate(layer.groups.tolist()) if group < 0}


# ---- images of a data set ------------------------------------------------------------------


@pytest.fixture(scope="module")
def own(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> ConfigFile:
    path = tmp_path_factory.mktemp("own") / "best.json"
    ztp_search.export(path, out=finished.out)
    return read_config_file(path)


def test_the_files_own_images_have_labels_and_are_chosen_by_number(
    own: ConfigFile, tmp_path: Path
) -> None:
    first = drawn(own, tmp_path)
    assert [image.name for image in first.images] == [f"holdout image {n}" for n in range(4)]
    chosen = drawn(own, tmp_path, image_numbers=[2, 0])
    assert [image.name for image in chosen.images] == ["holdout image 2", "holdout image 0"]
    for image, other in zip(chosen.images, (first.images[2], first.images[0]), strict=True):
        assert np.array_equal(image.pixels, other.pixels)
        assert image.to_dict() == other.to_dict() and image.label is not None
    search = drawn(own, tmp_path, image_set="search", images=2)
    assert [image.name for image in search.images] == ["search image 0", "search image 1"]
    one_layer = dataclasses.replace(own, config=PruningConfig((PruningLayer(1, 0.5),)))
    for settings, says in (
        ({"image_numbers": [64]}, "`image_numbers` must be below 64"),
        ({"images": 65}, "`images` must be at most the 64 holdout images, but got 65"),
    ):
        with pytest.raises(ZtpError) as refused:
            drawn(one_layer, tmp_path, **settings)
        assert says in one_line(refused)


def test_other_images_without_labels_are_drawn_as_many_as_there_are(
    own: ConfigFile, tmp_path: Path
) -> None:
    data = folder_of(tmp_path / "images", ["cat", "dog", "eel"], each=1)
    made = drawn(own, tmp_path, data=data)
    assert len(made.images) == 3
    assert all(image.label is None for image in made.images)


def test_outputs_have_the_names_of_the_class_map(own: ConfigFile, tmp_path: Path) -> None:
    names = "zero one two three four five six seven eight nine".split()
    classes = tmp_path / "classes.txt"
    classes.write_text("\n".join(names))
    path = tmp_path / "a.png"
    picture(0).save(path)
    (image,) = drawn(own, tmp_path, image=[path], class_map=classes).images
    assert image.unpruned.output is not None
    assert image.unpruned.name == names[image.unpruned.output]


# ---- the user's mistakes -------------------------------------------------------------------


def other_model(file: ConfigFile) -> ConfigFile:
    return dataclasses.replace(file, model={**file.model, "weights_sha256": "0" * 64})


def test_configurations_of_different_models_are_not_one_picture(
    own: ConfigFile, tmp_path: Path
) -> None:
    with pytest.raises(ZtpError) as refused:
        drawn([own, other_model(own)], tmp_path)
    assert "must be of one model" in one_line(refused) and "weights_sha256" in one_line(refused)
    assert len(drawn([own, own.config], tmp_path, images=1).images[0].reduced) == 2


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"image": ["/no/picture.png"]}, "`image` /no/picture.png does not exist"),
        ({"image": [__file__]}, "cannot be read as an image"),
        ({"image": [__file__], "data": "digits"}, "`data` digits is of a data set"),
        ({"image": [__file__], "seed": 0}, "`seed` 0 is of a data set"),
        ({"images": 2, "image_numbers": [1]}, "leave one out"),
        ({"seed": 1}, "give `data` too"),
        ({"images": 200}, "at most 400 cells"),
        ({"output": "a.gif"}, "`output` must end in one of .png, .svg, .pdf"),
        ({"output": "no/a.png"}, "cannot be written"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_picture(
    settings: dict[str, Any], says: str, own: ConfigFile, tmp_path: Path
) -> None:
    with pytest.raises(ZtpError) as refused:
        drawn(own, tmp_path, **settings)
    assert says in one_line(refused)
    assert not [path for path in tmp_path.iterdir() if path.name != "runs"]


def test_what_does_not_fit_is_refused_by_the_name_of_its_file(
    own: ConfigFile, tmp_path: Path
) -> None:
    path = tmp_path / "deep.json"
    path.write_text(ConfigFile(PruningConfig((PruningLayer(40),))).dumps())
    with pytest.raises(ZtpError) as refused:
        drawn([own, path], tmp_path)
    assert f"{path} does not fit the model" in one_line(refused)
    with pytest.raises(ZtpError) as refused:
        drawn(other_model(own), tmp_path)
    assert "was made with weights 000000000000…" in one_line(refused)
    with pytest.raises(ZtpError) as refused:
        drawn([], tmp_path)
    assert "one configuration or more" in one_line(refused)
    with pytest.raises(ZtpError) as refused:
        drawn(DROPPING, tmp_path)
    assert "give `model`" in one_line(refused)
