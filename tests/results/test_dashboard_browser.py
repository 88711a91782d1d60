"""The dashboard as a user sees it: in a browser, at the desk and on a phone."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from helpers.browser import Browser, View, browser
from helpers.running import process, ranked, stored, url_of

from ztp_search.results.plots import PLOTS, Found
from ztp_search.study import StudyReader

pytest.importorskip("optuna_dashboard")
pytestmark = pytest.mark.browser
WIDTHS = (1280, 400)
"""In pixels: a desk, and a phone."""
STUDY = "digits-50%-seed0"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def out(made_up: Path) -> Path:
    return made_up


@pytest.fixture(scope="module")
def page(out: Path) -> Iterator[str]:
    """The address that is announced, of the study's note."""
    with process("dashboard", "--out", str(out), "--study", STUDY, "--port", "0") as child:
        assert child.stderr is not None
        line = child.stderr.readline()
        yield next(word for word in line.split() if word.startswith("http://"))


def shown_plots(out: Path, study: str) -> list[str]:
    with StudyReader.open(url_of(out), study) as reader:
        found = Found.read(reader)
    return [plot.title for plot in PLOTS.values() if plot.lacks(found) is None]


def write_note(seen: View, text: str) -> None:
    """As a visitor does, on the page of a note; until it is answered."""
    seen.page.locator("main button", has=seen.page.locator("svg")).first.click()
    seen.page.locator("textarea").first.fill(text)
    with seen.page.expect_response(lambda answer: answer.url.endswith("/note")):
        seen.page.get_by_role("button", name="Save").click()
    seen.page.wait_for_load_state("networkidle")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_study_opens_with_its_note(out: Path, page: str, width: int, chromium: Browser) -> None:
    best = ranked(out, STUDY)[0]
    with chromium.view(page, width=width) as seen:
        seen.page.get_by_role("heading", name=f"Study {STUDY}").wait_for()
        text = seen.page.inner_text("main")
        for said in ("vit_tiny_patch16_224", "0.053 GFLOPs per image (50%)", "seed",
                     f"Best configuration: trial {best.number}", "ztp-search --space digits",
                     "− paper's"):  # fmt: skip
            assert said in text
        assert "| " not in text  # tables are tables
        assert seen.overflow() <= 0 and seen.errors == []


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("study", [STUDY, "interrupted"])
def test_its_plots_are_there(
    out: Path, page: str, study: str, width: int, chromium: Browser
) -> None:
    with StudyReader.open(url_of(out), study) as reader:
        address = f"{page.rpartition('/studies/')[0]}/studies/{reader.id}"
    with chromium.view(address, width=width) as seen:
        seen.page.wait_for_selector(".gtitle >> text=Accuracy over GFLOPs", timeout=60_000)
        seen.page.reload()  # plots that were too late for the first page are on the next
        seen.page.wait_for_selector(".gtitle >> text=Accuracy over GFLOPs", timeout=60_000)
        titles = seen.page.eval_on_selector_all(
            "[id^='user-defined-plot:'] .gtitle", "all => all.map(each => each.textContent)"
        )
        expected = shown_plots(out, study)
        assert len(titles) == len(expected)
        assert all(text.startswith(title) for text, title in zip(titles, expected, strict=True))
        drawn = seen.page.eval_on_selector_all(
            "[id^='user-defined-plot:']",
            "all => all.map(each => each.querySelectorAll("
            "'path.js-line, .points path, path.box').length)",
        )
        assert all(drawn)
        assert seen.errors == []


def test_a_trial_has_its_note_and_its_files(out: Path, page: str, chromium: Browser) -> None:
    best = ranked(out, STUDY)[0]
    address = page.removesuffix("/note")
    with chromium.view(f"{address}/trials?numbers={best.number}") as seen:
        seen.page.get_by_role("heading", name=f"Trial {best.number}: complete").wait_for()
        seen.page.get_by_text(f"trial-{best.number}.json").first.wait_for()
        seen.page.wait_for_function(
            "[...document.images].some(each => each.src.includes('artifacts') && each.naturalWidth)"
        )
        text = seen.page.inner_text("main")
        assert best.attrs["correct"] not in text and best.attrs["losses"] not in text
        assert seen.errors == []


def test_every_page_loads_without_errors(page: str, chromium: Browser) -> None:
    study = page.removesuffix("/note")
    home = page.partition("/studies/")[0]
    number = study.rpartition("/")[2]
    with chromium.view(home) as seen:
        for address in (home, study, f"{study}/analytics", f"{study}/trials",
                        f"{study}/trialTable", f"{home}/compare-studies?ids={number}"):  # fmt: skip
            seen.open(address)
            assert "NOW LOADING" not in seen.page.inner_text("body"), address
            assert seen.errors == [], address


def test_a_write_from_the_page_is_refused_and_changes_nothing(
    out: Path, page: str, chromium: Browser
) -> None:
    with sqlite3.connect(out / "studies.db") as database:
        before = list(database.iterdump())
    study = page.removesuffix("/note")
    number, base = study.rpartition("/")[2], page.partition("/dashboard")[0]
    with chromium.view(page) as seen:
        write = """async ([path, method, body]) => {
            const answer = await fetch(path, {method, body, headers: {"Content-Type":
                "application/json"}});
            return [answer.status, await answer.text()];
        }"""
        for path, method, body in (
            (f"/api/studies/{number}/note", "PUT", {"body": "mine", "version": 99}),
            (f"/api/studies/{number}", "DELETE", {}),
            ("/api/studies", "POST", {"study_name": "new", "directions": ["minimize"]}),
            ("/api/trials/1/user-attrs", "POST", {"user_attrs": {"a": 1}}),
        ):
            status, reason = seen.page.evaluate(write, [base + path, method, json.dumps(body)])
            assert status == 403 and "read-only" in reason
        # and by the dashboard's own means
        write_note(seen, "written by a visitor")
        assert f"403 {base}/api/studies/{number}/note" in seen.errors
    with sqlite3.connect(out / "studies.db") as database:
        assert list(database.iterdump()) == before


def test_a_note_that_is_written_where_that_is_allowed_stays(
    out: Path, tmp_path: Path, chromium: Browser
) -> None:
    shutil.copy(out / "studies.db", tmp_path)
    flags = ("--out", str(tmp_path), "--study", STUDY, "--port", "0", "--allow-edit")
    with process("dashboard", *flags) as child:
        assert child.stderr is not None
        line = child.stderr.readline()
        address = next(word for word in line.split() if word.startswith("http://"))
        with chromium.view(address) as seen:
            write_note(seen, "# Written by a visitor")
            seen.page.get_by_role("heading", name="Written by a visitor").wait_for()
            seen.open(address)
            seen.page.get_by_role("heading", name="Written by a visitor").wait_for()
            assert seen.errors == []
    assert len(stored(tmp_path, STUDY)) == 90
    assert "ztp:shown" in optuna.load_study(
        study_name=STUDY, storage=url_of(tmp_path)
    )._storage.get_study_system_attrs(1)  # fmt: skip
