"""What every plot must keep to; a new one joins by its line in `PLOTS`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Finished
from helpers.made_up import made_up_search
from helpers.running import url_of
from helpers.studies import open_study
from helpers.studies import url_of as empty_url_of

from ztp_search.cli.main import main
from ztp_search.errors import ZtpError
from ztp_search.results.plots import PLOTS, THEMES, Found, Plot, template
from ztp_search.results.plots.theme import stated
from ztp_search.study import StudyReader

pytest.importorskip("plotly")
ALL = pytest.mark.parametrize("name", PLOTS)


@pytest.fixture(scope="module")
def studies(
    made_up: Path, raced: Finished, finished: Finished, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Found]:
    """Studies in every state."""
    out = tmp_path_factory.mktemp("plots")
    made_up_search(out, tasks=4, study="hardly begun")
    made_up_search(out, holdout=0, study="no holdout", trials=30)
    made_up_search(out, racing_signal="correct", study="bits", trials=30)
    with open_study(empty_url_of(out)):
        pass
    places = {
        "many": (url_of(made_up), "digits-50%-seed0"), "raced": (url_of(raced.out), "s"),
        "without racing": (url_of(finished.out), "s"), "empty": (empty_url_of(out), "s"),
        "interrupted": (url_of(made_up), "interrupted"),
        **{name: (url_of(out), name) for name in ("hardly begun", "no holdout", "bits")},
    }  # fmt: skip
    found = {}
    for name, (url, study) in places.items():
        with StudyReader.open(url, study) as reader:
            found[name] = Found.read(reader)
    return found


def drawn(plot: Plot, found: Found, theme: str = "light") -> dict[str, Any]:
    """The figure as a reader gets it, which must be JSON that every parser takes."""
    figure = plot.figure(found, theme)
    assert figure is not None

    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is no JSON")

    document: dict[str, Any] = json.loads(figure.to_json(), parse_constant=refuse)
    return document


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, each in value.items():
            yield from leaves(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each, key)
    else:
        yield key, value


def test_plots_are_named_without_what_draws_them() -> None:
    code = (
        "import sys, ztp_search.results.plots as p\n"
        "print(list(p.PLOTS), {'plotly', 'sklearn', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{list(PLOTS)} set()\n"


@ALL
def test_it_says_what_it_shows_and_how_to_read_it(name: str) -> None:
    plot = PLOTS[name]
    assert re.fullmatch("[a-z_]+", name)
    assert plot.title[0].isupper() and not plot.title.endswith(".") and len(plot.title) < 60
    assert re.fullmatch(r"[A-Z][^\n]+\.", plot.caption) and ". " not in plot.caption


@ALL
def test_it_draws_every_study_or_says_what_is_lacking(
    name: str, studies: dict[str, Found]
) -> None:
    plot = PLOTS[name]
    for found in studies.values():
        lacking = plot.lacks(found)
        if lacking is None:
            document = drawn(plot, found)
            assert any(len(trace.get("x", ())) for trace in document["data"])
        else:
            assert re.fullmatch(r"[a-z0-9][^\n]+[^.\n]", lacking)
            assert plot.figure(found) is None


@ALL
def test_it_draws_a_study_of_many_trials_and_not_one_of_none(
    name: str, studies: dict[str, Found]
) -> None:
    assert PLOTS[name].lacks(studies["many"]) is None
    assert PLOTS[name].lacks(studies["empty"]) is not None


@ALL
def test_it_is_the_same_each_time(name: str, studies: dict[str, Found]) -> None:
    assert drawn(PLOTS[name], studies["many"]) == drawn(PLOTS[name], studies["many"])


@ALL
def test_themes_differ_in_their_template_alone(name: str, studies: dict[str, Found]) -> None:
    figures = {theme: drawn(PLOTS[name], studies["many"], theme) for theme in THEMES}
    backgrounds = set()
    for theme, figure in figures.items():
        own = figure["layout"].pop("template")
        assert own["layout"]["font"]["color"] == template(theme)["layout"]["font"]["color"]
        backgrounds.add(own["layout"]["paper_bgcolor"])
    assert len(backgrounds) == len(THEMES)
    assert figures["light"] == figures["dark"]


@ALL
def test_its_colours_are_those_of_the_theme(name: str, studies: dict[str, Found]) -> None:
    for key, value in leaves(drawn(PLOTS[name], studies["many"])["data"]):
        if "color" in key:
            assert value in stated()["colours"].values() or value.startswith("rgba(")


@ALL
def test_it_leaves_title_and_width_to_its_surroundings_and_names_its_axes(
    name: str, studies: dict[str, Found]
) -> None:
    layout = drawn(PLOTS[name], studies["many"])["layout"]
    assert "title" not in layout and "width" not in layout
    assert 200 <= layout["height"] <= 1200
    axes = {key: value for key, value in layout.items() if key[1:5] == "axis"}
    assert axes
    named = [each for each in axes.values()
             if each.get("type") in ("category", "multicategory") or "title" in each]  # fmt: skip
    assert len(named) + len(layout.get("annotations", ())) >= len(axes)


@ALL
def test_an_unknown_theme_is_refused(name: str, studies: dict[str, Found]) -> None:
    with pytest.raises(ZtpError, match="`theme` must be one of light, dark, but got 'sepia'"):
        PLOTS[name].figure(studies["many"], "sepia")


def test_without_plotly_one_line_says_what_to_install(
    studies: dict[str, Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    with pytest.raises(ZtpError, match=r"^plots need plotly; install it with: pip install '.*'$"):
        PLOTS["accuracy"].figure(studies["many"])


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.1 defines it."""
    out = 0.0
    for at, weight in ((1, 0.2126), (3, 0.7152), (5, 0.0722)):
        c = int(colour[at : at + 2], 16) / 255
        out += weight * (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4)
    return out


@pytest.mark.parametrize("theme", THEMES)
def test_colours_stand_out_from_every_background(theme: str) -> None:
    """Marks by 3 : 1, text by 4.5 : 1, as WCAG 2.1 has it."""
    shades = stated()[theme]
    for colour, least in [(shades["text"], 4.5), *((c, 3) for c in stated()["colours"].values())]:
        one, other = luminance(colour), luminance(shades["background"])
        assert (max(one, other) + 0.05) / (min(one, other) + 0.05) >= least, colour


def test_the_command_line_reads_these_studies_too(made_up: Path) -> None:
    """They are made up but for the results: what else reads studies takes them as well."""
    assert main(["best", "--study", "digits-50%-seed0", "--out", str(made_up), "--json"]) == 0
