"""The documentation builds without a warning, leads nowhere else, and leaves nothing out."""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from helpers.pages import PAGES, ROOT

import ztp_search
from ztp_search.cli.commands import COMMANDS
from ztp_search.cli.main import parsers
from ztp_search.pruning.config import CHOICES
from ztp_search.racing import RACING
from ztp_search.results.plots import PLOTS
from ztp_search.results.report import FORMATS
from ztp_search.space import CORNERS, shipped_spaces

pytest.importorskip("sphinx", reason="needs the extra `docs`")

OPTIONS = [
    (name, action)
    for name, parser in parsers()[1].items()
    for action in parser._actions
    if action.dest != "help"
]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built; CI builds them before the tests."""
    built = os.environ.get("ZTP_TEST_DOCS")
    if built is not None:
        return Path(built)
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-n", "-q", str(ROOT / "docs"), str(folder)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def documented(site: Path) -> Mapping[str, set[str]]:
    """The names that the pages define, by kind, as other projects would link to them."""
    *_, packed = (site / "objects.inv").read_bytes().split(b"\n", 4)
    found: dict[str, set[str]] = {}
    for line in zlib.decompress(packed).decode().splitlines():
        name, kind = re.match(r"(.+?) (\w+:\w+) ", line).groups()
        found.setdefault(kind, set()).add(name)
    return found


# ---- nothing is left out -------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_a_page(command: str, site: Path) -> None:
    assert (site / "reference" / f"command-{command}.html").is_file()
    assert any(f"command-{command}" in page.read_text() for page in PAGES)


@pytest.mark.parametrize(("command", "action"), OPTIONS,
                         ids=lambda each: each if isinstance(each, str) else each.dest)  # fmt: skip
def test_an_option_says_what_it_is_and_is_in_the_reference(
    command: str, action: argparse.Action, documented: Mapping[str, set[str]]
) -> None:
    assert action.help and len(action.help.replace("%(default)s", "").split()) > 1
    program = "ztp-search" if command == "search" else f"ztp-search-{command}"
    for name in action.option_strings or [str(action.metavar)]:
        assert f"{program}.{name}" in documented["std:cmdoption"]


@pytest.mark.parametrize("name", ztp_search.__all__)
def test_a_public_name_is_documented(name: str, documented: Mapping[str, set[str]]) -> None:
    python = set().union(*(names for kind, names in documented.items() if kind.startswith("py:")))
    assert f"ztp_search.{name}" in python
    assert inspect.getdoc(getattr(ztp_search, name))


def open_nouns() -> dict[str, Mapping[str, object]]:
    """The mappings of ARCHITECTURE's table of open nouns, and other names that users write."""
    page = (ROOT / "ARCHITECTURE.md").read_text()
    paths = re.findall(r"^\| [\w ]+ \| `([\w.]+)\.([A-Z_]+)` \|", page, re.MULTILINE)
    assert len(paths) >= 8
    mappings = {
        name: getattr(importlib.import_module(f"ztp_search.{module}"), name)
        for module, name in paths
    }
    others = {"RACING": RACING, "CORNERS": CORNERS, "PLOTS": PLOTS, "FORMATS": FORMATS}
    return mappings | others | {"spaces": shipped_spaces()}


NOUNS = open_nouns()
MEMBERS = [(noun, name) for noun, mapping in NOUNS.items() for name in mapping]
VALUES = [(name, value) for name, values in CHOICES.items() for value in (name, *values)]
PROSE = "\n".join(page.read_text() for page in PAGES if page.name != "README.md")


@pytest.mark.parametrize(("noun", "name"), [*MEMBERS, *VALUES])
def test_a_member_of_an_open_noun_is_explained(noun: str, name: str) -> None:
    assert f"`{name}`" in PROSE


@pytest.mark.parametrize("noun", [noun for noun in NOUNS if noun.isupper()])
def test_how_to_add_to_an_open_noun_is_in_the_reference(
    noun: str, documented: Mapping[str, set[str]]
) -> None:
    closed = {"RACING", "CORNERS", "PLOTS", "FORMATS"}
    data = {name.rpartition(".")[2] for name in documented["py:data"]}
    assert noun in data | closed


# ---- links ---------------------------------------------------------------------------------


class Links(HTMLParser):
    """Where a page leads, what it loads, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.places.add(values.get("id", ""))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag in ("script", "img", "link", "object", "iframe", "source"):
            self.loads += [values[name] for name in ("src", "href", "data") if name in values]


@pytest.fixture(scope="session")
def html(site: Path) -> dict[Path, Links]:
    pages = [path for path in site.rglob("*.html") if "_static" not in path.parts]
    assert len(pages) > 10
    return {path: Links(path.read_text(encoding="utf-8")) for path in pages}


def test_every_link_leads_to_a_place_that_is_there(site: Path, html: dict[Path, Links]) -> None:
    dead = []
    for page, content in html.items():
        for link in content.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            there = target.is_file()
            if there and parts.fragment and target in html:
                there = unquote(parts.fragment) in html[target].places
            if not there:
                dead.append(f"{page.relative_to(site)}: {link}")
    assert not dead


def test_a_page_loads_nothing_from_elsewhere(html: dict[Path, Links]) -> None:
    loaded = {load for content in html.values() for load in content.loads}
    assert loaded and not [load for load in loaded if urlsplit(load).netloc]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "ARCHITECTURE.md"])
def test_links_of_the_files_beside_the_pages_are_there(name: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / name).read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []
