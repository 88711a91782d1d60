"""Measuring a configuration file: on its own images as its evidence says, or on others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Finished
from helpers.messages import one_line

import ztp_search
from ztp_search import EvaluateSettings
from ztp_search.errors import ConfigError, DataError
from ztp_search.pruning.config_file import ConfigFile, read_config_file
from ztp_search.results.measured import EvaluationResult


@pytest.fixture(scope="module")
def own(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> ConfigFile:
    """The winner's file, as it is read again."""
    path = tmp_path_factory.mktemp("own") / "best.json"
    ztp_search.export(path, out=finished.out)
    return read_config_file(path)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all tests of this file decode images."""
    return tmp_path_factory.mktemp("out")


def measured(file: ConfigFile, out: Path, **settings: Any) -> EvaluationResult:
    return ztp_search.evaluate(file, EvaluateSettings(workers=0, out=out, **settings))


def of_other_images(file: ConfigFile) -> ConfigFile:
    """The file as if its evidence came from images that nobody has."""
    data = dict(file.provenance["data"])
    for key in ("images", "holdout"):
        data[key] = {**data[key], "sha256": "0" * 64}
    return dataclasses.replace(file, provenance={**file.provenance, "data": data})


def of_other_weights(file: ConfigFile) -> ConfigFile:
    return dataclasses.replace(file, model={**file.model, "weights_sha256": "0" * 64})


def shifted(folder: Path) -> Path:
    """A class map that calls every digit by the number after it."""
    path = folder / "shifted.json"
    path.write_text(json.dumps({str(digit): (digit + 1) % 10 for digit in range(10)}))
    return path


OTHERS: dict[str, dict[str, Any]] = {
    "data": {"data": "digits", "images": 32},
    "split": {"split": "train", "image_set": "search"},
    "holdout_split": {"holdout_split": "train"},
    "mean": {"mean": [0.4]},
    "std": {"std": [0.4]},
    "crop_pct": {"crop_pct": 0.9},
    "interpolation": {"interpolation": "bilinear"},
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_images_or_pixels_are_measured_where_they_are_asked_for(
    name: str, own: ConfigFile, out: Path
) -> None:
    """None of them have the digests of the file."""
    result = measured(own, out, **OTHERS[name])
    counts = {"data": (32, "search"), "split": (96, "search")}
    assert (result.images, result.image_set) == counts.get(name, (64, "holdout"))
    assert result.top1 is not None


def test_other_labels_are_measured_where_they_are_asked_for(
    own: ConfigFile, out: Path, tmp_path: Path
) -> None:
    result = measured(own, out, class_map=shifted(tmp_path))
    evidence = own.evidence["holdout"]
    # Who is right by the digits' own names is wrong by these, on the same predictions.
    assert result.top1 is not None and result.top1 <= 1 - evidence["top1"]
    assert result.agreement == evidence["agreement"]


@pytest.mark.parametrize("image_set", ["search", "holdout", None])
def test_images_that_are_not_those_of_the_evidence_are_refused(
    image_set: str | None, own: ConfigFile, out: Path
) -> None:
    with pytest.raises(DataError) as refused:
        measured(of_other_images(own), out, image_set=image_set)
    message = one_line(refused)
    assert f"was measured on {image_set or 'holdout'} images 000000000000…" in message
    assert "`data`" in message


def test_only_the_images_that_are_measured_must_be_those_of_the_evidence(
    own: ConfigFile, out: Path
) -> None:
    data = own.provenance["data"]
    data = {**data, "images": {**data["images"], "sha256": "0" * 64}}
    file = dataclasses.replace(own, provenance={**own.provenance, "data": data})
    assert measured(file, out).top1 == own.evidence["holdout"]["top1"]


@pytest.mark.parametrize(
    "settings",
    [{}, {"image_set": "search"}, {"batch_size": 16, "precision": "bf16"}, {"mean": [0.4]},
     {"split": "train"}, {"data": "digits", "images": 8}],
    ids=str,
)  # fmt: skip
def test_weights_that_are_not_those_of_the_evidence_are_refused_on_any_images(
    settings: dict[str, Any], own: ConfigFile, out: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        measured(of_other_weights(own), out, **settings)
    message = one_line(refused)
    assert "was made with weights 000000000000…" in message and "`weights`" in message


def test_weights_that_are_asked_for_are_taken(own: ConfigFile, out: Path) -> None:
    result = measured(of_other_weights(own), out, weights="digits")
    assert result.top1 == own.evidence["holdout"]["top1"]


def test_how_it_runs_is_no_other_images(own: ConfigFile, out: Path) -> None:
    for settings in ({"batch_size": 16}, {"threads": 2}, {"skip_unreadable": True}):
        with pytest.raises(DataError, match="was measured on"):
            measured(of_other_images(own), out, **settings)
