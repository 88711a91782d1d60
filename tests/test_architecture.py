"""The architecture page is true: its picture is the layers that import-linter holds."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def layers() -> list[set[str]]:
    """The rooms of each layer, from the top down, as the contract has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = project["tool"]["importlinter"]["contracts"]
    (contract,) = [each for each in contracts if each["type"] == "layers"]
    return [
        {room.strip().removeprefix("ztp_search.") for room in re.split("[:|]", layer)}
        for layer in contract["layers"]
    ]


def test_the_picture_shows_the_layers_that_are_held() -> None:
    page = (ROOT / "ARCHITECTURE.md").read_text()
    picture = page.partition("```mermaid")[2].partition("```")[0]
    described = set(re.findall(r"^    (\w+)\[", picture, re.MULTILINE))
    assert described == set().union(*layers())
    drawn: list[set[str]] = []
    for line in re.findall(r"^    (\w.*-->.*)$", picture, re.MULTILINE):
        chain = [{room.strip() for room in each.split("&")} for each in line.split("-->")]
        assert not drawn or drawn[-1] == chain[0]
        drawn += chain[1:] if drawn else chain
    assert drawn == layers()


def test_every_module_stands_in_a_layer() -> None:
    modules = {
        path.stem
        for path in (ROOT / "ztp_search").iterdir()
        if (path.is_dir() and (path / "__init__.py").exists())
        or (path.suffix == ".py" and not path.stem.startswith("__"))
    }
    assert modules == set().union(*layers())


def test_what_contributing_names_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    paths = re.findall(r"`((?:ztp_search|tests)/[\w/]+\.py)`", text)
    missing = [path for path in paths if "NAME" not in path and not (ROOT / path).exists()]
    assert paths and not missing
