"""What every export format must keep to; a new one joins by its line in `EXPORTERS`."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.messages import one_line

from ztp_search.errors import ZtpError
from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.pruning.config_file import ConfigFile, load_config, read_config_file
from ztp_search.results.exporters import EXPORTERS, Exporter, load_exporter

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
    modules = {target.partition(":")[0] for target in EXPORTERS.values()}
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


@ALL
def test_it_writes_to_the_path_given_and_nowhere_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "there").mkdir()
    path = tmp_path / "there" / "name.of.mine"
    load_exporter(name).export(FILE, path)
    assert list((tmp_path / "there").iterdir()) == [path]
    assert not list((tmp_path / "here").iterdir())


@ALL
@pytest.mark.parametrize("file", [FILE, MERGED])
def test_its_text_is_what_it_writes_or_it_has_none(
    name: str, file: ConfigFile, tmp_path: Path
) -> None:
    exporter = load_exporter(name)
    exporter.export(file, tmp_path / "x")
    text = exporter.text(file)
    if text is not None:
        assert (tmp_path / "x").read_bytes() == text.encode("utf-8")
        assert text.endswith("\n")


@ALL
def test_it_writes_in_place_of_what_is_there(name: str, tmp_path: Path) -> None:
    exporter, path = load_exporter(name), tmp_path / "x"
    exporter.export(ConfigFile(PruningConfig(), FILE.model, FILE.evidence), path)
    exporter.export(FILE, path)
    exporter.export(FILE, tmp_path / "fresh")
    assert contents(path) == contents(tmp_path / "fresh")


@ALL
def test_a_place_that_cannot_be_written_is_an_os_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        load_exporter(name).export(FILE, tmp_path / "file" / "x")


@pytest.mark.parametrize(("file", "version"), [(FILE, 1), (MERGED, 2)])
def test_json_is_read_again_as_it_was(file: ConfigFile, version: int, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    load_exporter("json").export(file, path)
    assert load_config(path) == file.config
    assert read_config_file(path) == file
    assert json.loads(path.read_text())["version"] == version


@pytest.mark.parametrize("name", ["onnx", "", "JSON"])
def test_an_unknown_format_is_refused_by_name(name: str) -> None:
    with pytest.raises(ZtpError) as refused:
        load_exporter(name)
    assert one_line(refused) == f"`format` must be one of {', '.join(EXPORTERS)}, but got {name!r}"


def contents(path: Path) -> dict[str, bytes]:
    """Of a file, or of all files below a folder."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}
