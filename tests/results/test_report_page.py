"""Reports as people meet them: in a browser, narrow and wide, light and dark, and on paper."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Finished
from helpers.browser import Browser, View, browser
from helpers.made_up import made_up_search
from helpers.running import url_of

import ztp_search
from ztp_search.results.report import FORMATS
from ztp_search.results.report.contents import report
from ztp_search.results.report.material import material
from ztp_search.study import StudyReader

pytestmark = pytest.mark.browser
pytest.importorskip("plotly")
PAPER = 688
"""Pixels between the margins of A4."""
LIGHT, DARK = "rgb(255, 255, 255)", "rgb(20, 24, 29)"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def pages(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Addresses of reports: one of everything, one with pictures, one of nearly nothing."""
    out = tmp_path_factory.mktemp("reports")
    made_up_search(out, budget="50%,65%")
    made_up_search(out, tasks=4, study="hardly begun")
    ztp_search.report(out / "many.html", out=out, study="digits-50%-seed0", pictures=False)
    ztp_search.report(out / "little.html", out=out, study="hardly begun")
    ztp_search.report(out / "pictures.html", out=finished.out, study="s")
    with StudyReader.open(url_of(out), "digits-50%-seed0") as study:
        of = material(study)
    trap = "<img src=x onerror='pwned = 1'><script>pwned = 1</script>"
    budgets = [{**each, "study": trap} for each in of.found.budgets]
    found = dataclasses.replace(of.found, study=trap, budgets=budgets)
    text = FORMATS["html"].load()(report(dataclasses.replace(of, found=found, pictures=trap)))
    (out / "hostile.html").write_text(text)
    return {path.stem: path.as_uri() for path in out.glob("*.html")}


def drawn(view: View) -> None:
    """Wait until all plots are there."""
    view.page.wait_for_selector("html[data-drawn]", timeout=60_000)


def until(view: View, condition: Callable[[], bool]) -> None:
    """Wait for what a page does by and by."""
    for _ in range(200):
        if condition():
            return
        view.page.wait_for_timeout(50)
    raise AssertionError("it has not come to pass")


def plot_grounds(view: View) -> set[str]:
    """The colours that plots are drawn on."""
    script = """[...document.querySelectorAll(".plot .main-svg")].map(
        (each) => getComputedStyle(each).backgroundColor)"""
    return {each for each in view.page.evaluate(script) if each != "rgba(0, 0, 0, 0)"}


def plot_widths(view: View) -> list[float]:
    script = """[...document.querySelectorAll(".plot .main-svg")].map(
        (each) => each.getBoundingClientRect().width)"""
    widths: list[float] = view.page.evaluate(script)
    return widths


@pytest.mark.parametrize(
    ("name", "width", "dark"),
    [
        ("many", 400, False), ("many", 400, True), ("many", 1280, False), ("many", 1280, True),
        ("pictures", 400, True), ("pictures", 1280, False), ("little", 400, False),
    ],
)  # fmt: skip
def test_a_page_fits_its_window_and_keeps_nobody_out(
    chromium: Browser, pages: dict[str, str], name: str, width: int, dark: bool
) -> None:
    with chromium.view(pages[name], width=width, dark=dark) as view:
        drawn(view)
        assert view.overflow() == 0
        assert view.unfit() == []
        ground = view.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == (DARK if dark else LIGHT)
        assert plot_grounds(view) == {ground}
        assert (view.errors, view.warnings, view.requests) == ([], [], [])


def test_plots_follow_when_the_reader_turns_the_light_on(
    chromium: Browser, pages: dict[str, str]
) -> None:
    with chromium.view(pages["many"], dark=True) as view:
        drawn(view)
        assert plot_grounds(view) == {DARK}
        view.page.emulate_media(color_scheme="light")
        until(view, lambda: plot_grounds(view) == {LIGHT})


def test_hovering_a_plot_tells_a_trial(chromium: Browser, pages: dict[str, str]) -> None:
    with chromium.view(pages["many"]) as view:
        drawn(view)
        plot = view.page.locator("[data-plot=accuracy]")
        plot.scroll_into_view_if_needed()
        view.page.evaluate(
            "Plotly.Fx.hover(document.querySelector('[data-plot=accuracy]'),"
            " [{curveNumber: 0, pointNumber: 0}])"
        )
        assert "trial " in plot.locator(".hoverlayer").text_content()


def test_all_that_can_be_opened_or_scrolled_is_reached_by_keyboard(
    chromium: Browser, pages: dict[str, str]
) -> None:
    with chromium.view(pages["many"], width=400) as view:
        drawn(view)
        wanted = set(view.page.evaluate(
            """() => [...document.querySelectorAll("a, summary, .scroll")]
                .filter((each) => each.checkVisibility() &&
                    (!each.matches(".scroll") || each.scrollWidth > each.clientWidth))
                .map((each) => [...document.querySelectorAll("*")].indexOf(each))"""
        ))  # fmt: skip
        reached = set()
        for _ in range(len(wanted) + 2):
            view.page.keyboard.press("Tab")
            script = "[...document.querySelectorAll('*')].indexOf(document.activeElement)"
            reached.add(view.page.evaluate(script))
        assert len(wanted) > 10 and wanted <= reached
        summary = view.page.locator("summary").first
        summary.focus()
        view.page.keyboard.press("Enter")
        assert view.page.locator("details[open] table").first.is_visible()


def test_on_paper_it_is_light_and_its_plots_are_no_wider_than_the_page(
    chromium: Browser, pages: dict[str, str], tmp_path: Path
) -> None:
    with chromium.view(pages["many"], dark=True) as view:
        drawn(view)
        before = plot_widths(view)
        view.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        view.page.emulate_media(media="print", color_scheme="dark")
        assert plot_grounds(view) == {LIGHT}
        assert max(plot_widths(view)) <= PAPER
        assert view.page.evaluate("getComputedStyle(document.body).backgroundColor") == LIGHT
        assert not view.page.locator("nav").is_visible()
        view.page.emulate_media(media="screen", color_scheme="dark")
        view.page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert (plot_grounds(view), plot_widths(view)) == ({DARK}, before)
        path = tmp_path / "report.pdf"
        view.page.pdf(path=path, format="A4", print_background=True)
        assert path.read_bytes().startswith(b"%PDF")


def test_without_scripts_the_numbers_are_still_there(
    chromium: Browser, pages: dict[str, str]
) -> None:
    with chromium.view(pages["many"], java_script_enabled=False) as view:
        page = view.page
        assert page.locator("h1").inner_text() == "digits-50%-seed0"
        assert "needs JavaScript" in page.locator("[data-plot=tokens]").inner_text()
        page.locator(".drawing summary").first.click()
        assert page.locator(".drawing details[open] table").first.is_visible()


def test_a_browser_that_cannot_unpack_says_where_the_numbers_are(
    chromium: Browser, pages: dict[str, str]
) -> None:
    with chromium.view("about:blank") as view:
        view.page.add_init_script("delete window.DecompressionStream")
        view.page.goto(pages["many"])
        place = view.page.locator("[data-plot]").first
        until(view, lambda: "cannot draw" in (place.text_content() or ""))
        assert (view.errors, view.warnings) == ([], [])


def test_what_a_study_is_called_runs_nowhere(chromium: Browser, pages: dict[str, str]) -> None:
    with chromium.view(pages["hostile"]) as view:
        drawn(view)
        view.page.evaluate(
            "Plotly.Fx.hover(document.querySelector('[data-plot=budgets]'),"
            " [{curveNumber: 1, pointNumber: 0}])"
        )
        words = view.page.locator("[data-plot=budgets] .hoverlayer").text_content()
        assert "onerror" in words  # it is shown as what it is
        assert view.page.evaluate("typeof pwned") == "undefined"
        assert view.page.locator("img").count() == 0
        assert (view.errors, view.warnings, view.requests) == ([], [], [])
