"""What every export format must keep to; a new one joins by its line in `EXPORTERS`."""

from __future__ import annotations

import copy
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Digits, Finished
from helpers.messages import one_line
from helpers.running import url_of

from ztp_search.errors import ConfigError, ZtpError
from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.pruning.config_file import ConfigFile, load_config, read_config_file
from ztp_search.results.exporters import (
    EXPORTERS,
    Exported,
    Exporter,
    TextExporter,
    load_exporter,
)
from ztp_search.study import StudyReader

MODELS = {"onnx", "torch-export", "huggingface"}
"""Formats that hold the model."""
TABLES = {"csv", "parquet"}
"""Formats that hold the trials."""
ALL = pytest.mark.parametrize("name", EXPORTERS)
GEOMETRY = {
    "depth": 8, "heads": 3, "embed_dim": 96, "attn_dim": 96, "patch_tokens": 100,
    "prefix_tokens": 1, "class_token": True, "block_macs_per_token": 111552,
    "block_macs_per_pair": 192, "stem_macs": 153600, "tail_macs_per_token": 480, "tail_macs": 960,
}  # fmt: skip
"""Of the embedded model."""
FILE = ConfigFile(
    config=PruningConfig((PruningLayer(2, 0.9, 5, 3), PruningLayer(4, 0.7, 0, 9)), 0.02, 9.5),
    model={
        "name": "vit_tiny_patch16_224", "kwargs": {"img_size": 40}, "weights": "digits",
        "num_classes": None, "weights_sha256": None, "geometry": GEOMETRY,
    },
    evidence={"search": {"images": 96, "top1": 0.875}},
    provenance={"study": "Größe 1", "trial": 7},
)  # fmt: skip

MERGED = dataclasses.replace(
    FILE,
    config=PruningConfig(
        (PruningLayer(2, 0.9, 5, 3, 0.25), PruningLayer(4, 1.0, 20)), 0.02, 9.5,
        similar="merge", sizes="track", features="x",
    ),
)  # fmt: skip
"""Of a configuration beyond the paper: the second version of the file."""


def test_formats_are_named_without_importing_them() -> None:
    package = "ztp_search.results.exporters"
    modules = {f"{package}.{target.partition(':')[0]}" for target in EXPORTERS.values()}
    code = (
        "import sys, ztp_search.results.exporters as e, ztp_search.cli.commands.export\n"
        f"print(list(e.EXPORTERS), sorted({modules!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{list(EXPORTERS)} []\n"


def test_json_is_the_default() -> None:
    assert next(iter(EXPORTERS)) == "json"


@ALL
def test_a_format_is_made_by_its_name(name: str) -> None:
    assert isinstance(load_exporter(name), Exporter)


@pytest.fixture
def what(finished: Finished, digits: Digits) -> Iterator[Callable[[ConfigFile], Exported]]:
    """What exporters are given of a file: with a study, and with the embedded model."""
    with StudyReader.open(url_of(finished.out)) as study:
        yield lambda file: Exported(file, study, lambda: copy.deepcopy(digits.loaded))


What = Callable[[ConfigFile], Exported]


@ALL
def test_it_writes_to_the_path_given_and_nowhere_else(
    name: str, what: What, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "there").mkdir()
    path = tmp_path / "there" / "name.of.mine"
    load_exporter(name).export(what(FILE), path)
    assert list((tmp_path / "there").iterdir()) == [path]
    assert not list((tmp_path / "here").iterdir())


@ALL
def test_its_text_is_what_it_writes(name: str, what: What, tmp_path: Path) -> None:
    exporter = load_exporter(name)
    if not isinstance(exporter, TextExporter):
        pytest.skip("no text")
    for file in (FILE, MERGED):
        exporter.export(what(file), tmp_path / "x")
        text = exporter.text(what(file))
        assert (tmp_path / "x").read_bytes() == text.encode("utf-8")
        assert text.endswith("\n")


@ALL
def test_it_writes_in_place_of_what_is_there(name: str, what: What, tmp_path: Path) -> None:
    if name in MODELS:
        pytest.skip("takes long, and is written as the others are")
    exporter, path = load_exporter(name), tmp_path / "x"
    exporter.export(what(MERGED), path)
    exporter.export(what(FILE), path)
    exporter.export(what(FILE), tmp_path / "fresh")
    assert contents(path) == contents(tmp_path / "fresh")


@ALL
def test_a_place_that_cannot_be_written_is_an_os_error(
    name: str, what: What, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        load_exporter(name).export(what(FILE), tmp_path / "file" / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@ALL
def test_what_it_omits_is_a_sentence(name: str) -> None:
    for file in (FILE, MERGED):
        said = load_exporter(name).omits(file)
        assert said is None or (said and "\n" not in said and not said.endswith("."))


@ALL
def test_what_is_there_is_left_as_it_is_where_writing_fails(
    name: str, what: What, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_text("mine")
    broken = Exported(FILE, None, fail)
    whole = isinstance(load_exporter(name), TextExporter) and name not in TABLES
    if whole:
        monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises((ZtpError, OSError)):
        load_exporter(name).export(broken, path)
    assert path.read_bytes() == b"mine" and [path] == list(tmp_path.iterdir())


def fail(*_: object, **__: object) -> Any:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("file", "version"), [(FILE, 1), (MERGED, 2)])
@pytest.mark.parametrize("name", ["json", "yaml"])
def test_a_configuration_file_is_read_again_as_it_was(
    name: str, what: What, file: ConfigFile, version: int, tmp_path: Path
) -> None:
    path = tmp_path / f"x.{name}"
    load_exporter(name).export(what(file), path)
    assert load_config(path) == file.config
    assert read_config_file(path) == file
    document = json.loads(path.read_text()) if name == "json" else yaml.safe_load(path.read_text())
    assert document["version"] == version and document == json.loads(file.dumps())


@pytest.mark.parametrize("name", ["tflite", "", "JSON"])
def test_an_unknown_format_is_refused_by_name(name: str) -> None:
    with pytest.raises(ZtpError) as refused:
        load_exporter(name)
    assert one_line(refused) == f"`format` must be one of {', '.join(EXPORTERS)}, but got {name!r}"


@pytest.mark.parametrize(("name", "library"), [("onnx", "onnxscript"), ("parquet", "pyarrow")])
def test_a_missing_library_is_one_line(
    name: str, library: str, what: What, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ZtpError) as refused:
        load_exporter(name).export(what(FILE), tmp_path / "x")
    assert library in one_line(refused) and "pip install 'ztp-search[export]'" in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["python", "tome", "diffrate"])
def test_a_file_that_does_not_say_for_which_model_it_is_is_refused(name: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_exporter(name).export(Exported(ConfigFile(FILE.config), None, fail), Path("x"))
    assert f"`format` {name} needs" in one_line(refused) and "model.geometry" in one_line(refused)


def contents(path: Path) -> dict[str, bytes]:
    """Of a file, or of all files below a folder."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}
