"""Results show themselves: the same content as on the command line, as text and as HTML."""

from __future__ import annotations

import base64
import dataclasses
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Finished
from rich.console import Console

import ztp_search
from ztp_search import PruningConfig, PruningLayer, SearchSettings
from ztp_search.cli.main import main
from ztp_search.pruning.config_file import ConfigFile
from ztp_search.results.best_trials import BestTrials, RankedTrial
from ztp_search.results.front_result import FrontResult
from ztp_search.results.measured import EvaluationResult
from ztp_search.results.search_result import SearchResult
from ztp_search.results.shown import Shown
from ztp_search.results.visualization import ImageView, NamedOutput, ReducedImage, Visualization

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
UNSAFE = "<script>alert('x')<p>[/red]:smile:"
"""A name that is neither HTML nor rich's markup."""

MEASURED = EvaluationResult(
    images=2000, image_set="holdout", top1=0.9525, agreement=0.975, unpruned_top1=0.9575,
    gflops={"total": 0.053, "backbone": 0.05, "overhead": 0.003, "unpruned": 0.106},
    runtime={"device": "cpu", "precision": "fp32", "batch_size": 64, "threads": 1},
)  # fmt: skip
SPEED = {
    "machine": {"processor": "a <processor>"}, "device": "cpu", "threads": 1, "unpruned": "timm",
    "promised_speedup": 2.0,
    "measured": [
        {"engine": "pytorch", "precision": "fp32", "batch_size": 64, "repeats": 9, "speedup": 1.5,
         "speedup_quartiles": [1.25, 1.75], "unpruned": {"images_per_second": 800.2},
         "pruned": {"images_per_second": 1234.5}},
        {"engine": "onnx", "failed": "no <onnxruntime>"},
    ],
}  # fmt: skip


class Page(HTMLParser):
    """Rows of all tables as text, the sources of pictures, and every tag that there is."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.pictures: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self._cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")
            self._cell = True
        elif tag == "br":
            self.handle_data("\n")
        elif tag == "img":
            self.pictures.append(dict(attrs)["src"] or "")

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("th", "td")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell:
            self.rows[-1][-1] += data


def page(result: Shown) -> Page:
    return Page(result._repr_html_())


def words(text: str) -> list[str]:
    """Without what a table is drawn with."""
    return [word for word in text.split() if set(word) != {"─"}]


def ranked(trials: BestTrials) -> RankedTrial:
    return trials.trials[0]


@pytest.fixture(scope="module")
def results(finished: Finished) -> dict[str, Shown]:
    config = PruningConfig((PruningLayer(6, 0.7),))
    search = ztp_search.search(SearchSettings(**finished.settings))
    best = ztp_search.best(out=finished.out)
    return {
        "search": search,
        "best": best,
        "trial": ranked(best),
        "front": FrontResult((search,), 2.5),
        "cost": ztp_search.cost(config, "deit_tiny_patch16_224"),
        "evaluation": MEASURED,
        "speed": dataclasses.replace(MEASURED, speed=SPEED),
        "visualization": drawn(Path("/no/picture.png")),
    }


def drawn(output: Path, config: str = "best.json", name: str = "holdout image 0") -> Visualization:
    view = ImageView(
        name, np.zeros((2, 2, 3), np.uint8), NamedOutput(3, "cat"), NamedOutput(3, "cat", 0.75),
        (ReducedImage(config, MEASURED.gflops, NamedOutput(None), ()),),
    )  # fmt: skip
    return Visualization(str(output), "vit", (16, 16), False, (view,))


@pytest.mark.parametrize(
    "name", ["search", "best", "trial", "front", "cost", "evaluation", "speed", "visualization"]
)
def test_text_and_html_say_the_same(name: str, results: dict[str, Shown]) -> None:
    shown, html = repr(results[name]), page(results[name])
    assert sorted("".join(words(shown))) == sorted("".join(words(html.text)))
    assert {"table", "td"} <= html.tags and "\x1b" not in shown and "…" not in shown
    assert len({len(row) for row in html.rows}) <= 2  # there may be two tables


@pytest.mark.parametrize(("name", "argv"), [("best", ["best"]), ("search", [])])
def test_the_text_is_that_of_the_command_line(
    name: str, argv: list[str], results: dict[str, Shown], finished: Finished,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    capsys.readouterr()
    assert main([*argv, "--out", str(finished.out)] if argv else finished.argv) == 0
    printed = capsys.readouterr().out
    if name == "search":  # how long it took
        printed, shown = printed.split(" evaluations")[0], repr(results[name])
        assert shown.split(" evaluations")[0].split() == printed.split()
    else:
        assert repr(results[name]).split() == printed.split()


def test_an_evaluation_as_html_is_this() -> None:
    html = page(MEASURED)
    assert html.rows == [
        ["", "pruned", "unpruned"], ["top1, %", "95.25", "95.75"], ["agreement, %", "97.50", ""],
        ["GFLOPs", "0.053", "0.106"],
    ]  # fmt: skip
    assert "2,000 images (holdout)" in html.text
    html = page(dataclasses.replace(MEASURED, speed=SPEED))
    assert html.rows[4:] == [
        ["", "precision", "images", "unpruned", "pruned", "times as fast"],
        ["pytorch", "fp32", "64", "800 images/s", "1,234 images/s", "1.50 [1.25, 1.75]"],
    ]  # fmt: skip
    assert "Speed in onnx is not measured: no <onnxruntime>" in html.text


def test_a_trial_is_not_called_the_best(results: dict[str, Shown]) -> None:
    assert repr(results["trial"]).startswith("Configuration (trial ")
    assert repr(results["search"]).startswith("Best configuration (trial ")


def test_names_are_text_and_nothing_else(results: dict[str, Any], tmp_path: Path) -> None:
    search, best = results["search"], results["best"]
    assert isinstance(search, SearchResult)
    unsafe: list[Shown] = [
        BestTrials(UNSAFE, UNSAFE, "top1", best.trials),
        SearchResult(
            UNSAFE, UNSAFE, search.trials, search.image_evaluations, search.racing, search.winner,
            search.holdout,
        ),
        drawn(tmp_path / "none.png", config=UNSAFE, name=UNSAFE),
    ]  # fmt: skip
    name = "red]:smile:"  # what a path of that name ends in
    for result in unsafe:
        html = page(result)
        assert "script" not in html.tags and name in html.text
        assert name in repr(result)
        console = Console(file=StringIO(), width=300)  # with markup, as a user's own has
        with console.capture() as capture:
            console.print(result)
        assert name in capture.get()


def test_a_search_without_any_result_shows_itself_too() -> None:
    nothing = SearchResult(
        "s", "sqlite:///x", ztp_search.results.search_result.TrialCounts(0, 0, 2, 0), 0,
        {"image_evaluations": 0, "in_full": 0}, None, None,
    )  # fmt: skip
    assert repr(nothing) == "Study s: 2 failed trials, 0 image evaluations. Stored in sqlite:///x."
    assert nothing._repr_html_() == f"<p>{nothing!r}</p>"
    gflops = {"total": 0.05, "unpruned": 0.1}
    trial = RankedTrial(3, 0.5, ConfigFile(PruningConfig()), (), gflops)  # no layer
    assert repr(trial).startswith("Configuration (trial 3): 0.05 of 0.1 GFLOPs")


def test_a_page_shows_the_picture_that_was_drawn(tmp_path: Path, results: dict[str, Any]) -> None:
    path = tmp_path / "tokens.PNG"
    assert page(drawn(path)).pictures == []  # it is gone, or never was
    path.write_bytes(PNG)
    (source,) = page(drawn(path)).pictures
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == PNG
    (tmp_path / "tokens.pdf").write_bytes(PNG)
    assert page(drawn(tmp_path / "tokens.pdf")).pictures == []
    svg = tmp_path / "front.svg"
    svg.write_text("<svg/>")
    front = FrontResult(results["front"].results, 2.5, str(svg))
    (source,) = page(front).pictures
    assert base64.b64decode(source.removeprefix("data:image/svg+xml;base64,")) == b"<svg/>"
