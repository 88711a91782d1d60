"""Reports: what they say of studies in every state, and that nothing in a study can break them."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Finished
from helpers.html_page import Page
from helpers.made_up import made_up_search
from helpers.messages import one_line
from helpers.running import url_of

import ztp_search
from ztp_search import SearchSettings
from ztp_search.cli.arguments import settings_of
from ztp_search.cli.main import main, parse
from ztp_search.errors import ZtpError
from ztp_search.results.markdown import escaped, fenced, inline, worded
from ztp_search.results.plots import PLOTS, THEMES, template
from ztp_search.results.report import FORMATS
from ztp_search.results.report.blocks import Code, Comparison, Drawing, Interval, Table
from ztp_search.results.report.contents import report
from ztp_search.results.report.material import Material, material
from ztp_search.results.report.plot_tables import plot_tables
from ztp_search.results.report.tables import gflops_text
from ztp_search.study import StoredTrial, StudyReader, redact

pytest.importorskip("plotly")
STATES = ("many", "stopped", "hardly begun", "no holdout", "bits", "raced", "without racing")
ALL = pytest.mark.parametrize("state", STATES)
HOSTILE = (
    "</script><script>pwned = 1</script><img src=x onerror=\"pwned = 1\"><b>'\"`{{7*7}}`</b>"
    "&amp;|\n# x\n```\n\\"
)


@pytest.fixture(scope="module")
def places(
    raced: Finished, finished: Finished, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, str]]:
    """URL and name of a study in every state."""
    out = tmp_path_factory.mktemp("reports")
    made_up_search(out, budget="50%,65%")
    made_up_search(out, tasks=30, study="stopped")
    made_up_search(out, tasks=4, study="hardly begun")
    made_up_search(out, holdout=0, study="no holdout")
    made_up_search(out, racing_signal="correct", study="bits", trials=30)
    names = {"many": "digits-50%-seed0"}
    return {
        **{name: (url_of(out), names.get(name, name)) for name in STATES[:5]},
        "raced": (url_of(raced.out), "s"), "without racing": (url_of(finished.out), "s"),
    }  # fmt: skip


@pytest.fixture(scope="module")
def read(places: dict[str, tuple[str, str]]) -> dict[str, Material]:
    materials = {}
    for state, (url, name) in places.items():
        with StudyReader.open(url, name) as study:
            materials[state] = material(study)
    return materials


@pytest.fixture(scope="module")
def pages(read: dict[str, Material]) -> dict[str, str]:
    return {state: html_of(of) for state, of in read.items()}


def html_of(of: Material) -> str:
    return FORMATS["html"].load()(report(of))


def markdown_of(of: Material) -> str:
    return FORMATS["markdown"].load()(report(dataclasses.replace(of, plots=False)))


def unpacked(page: Page, id: str) -> str:
    (script,) = (each for each in page.all("script") if each.attrs.get("id") == id)
    return gzip.decompress(base64.b64decode(script.text)).decode()


def tables_of(of: Material, section: str) -> dict[str, Table]:
    (found,) = (each for each in report(of).sections if each.id == section)
    return {block.title: block for block in found.blocks if isinstance(block, Table)}


# ---- every state ---------------------------------------------------------------------------


@ALL
def test_a_page_is_well_formed_and_holds_all_that_it_shows(
    pages: dict[str, str], state: str
) -> None:
    page = Page(pages[state])
    ids = [each.attrs["id"] for each in page.elements if "id" in each.attrs]
    assert len(set(ids)) == len(ids)
    for each in page.elements:
        assert not [name for name in each.attrs if name.startswith("on")]
        for name in ("src", "href"):
            target = each.attrs.get(name, "data:")
            assert target.startswith("data:") or target[1:] in ids, target
    for name in ("labelledby", "describedby"):
        assert all(e.attrs.get(f"aria-{name}", ids[0]) in ids for e in page.elements)
    assert all(each.attrs.get("alt") for each in page.all("img"))
    (style,) = page.all("style")
    assert "url(" not in style.text and "@import" not in style.text


@ALL
def test_a_page_runs_its_own_script_alone_and_loads_nothing(
    pages: dict[str, str], state: str
) -> None:
    page = Page(pages[state])
    (policy,) = (
        each.attrs["content"] for each in page.all("meta")
        if each.attrs.get("http-equiv") == "Content-Security-Policy"
    )  # fmt: skip
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    (script,) = (each for each in page.all("script") if "type" not in each.attrs)
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == f"'sha256-{digest}' blob:"
    assert rules["img-src"] == "data: blob:"
    assert set(rules) == {
        "default-src", "script-src", "img-src", "style-src", "base-uri", "form-action"
    }  # fmt: skip


@ALL
def test_every_plot_of_the_study_is_there_with_its_numbers_in_words(
    pages: dict[str, str], read: dict[str, Material], state: str
) -> None:
    page, found = Page(pages[state]), read[state].found
    shown = {name: plot for name, plot in PLOTS.items() if plot.lacks(found) is None}
    drawn = [each for each in page.all("div") if "data-plot" in each.attrs]
    assert {each.attrs["data-plot"] for each in drawn} == set(shown)
    if not shown:
        return
    data = json.loads(unpacked(page, "plots-data"))
    assert data["templates"] == {theme: template(theme) for theme in THEMES}
    for each in drawn:
        plot = shown[each.attrs["data-plot"]]
        assert each.attrs["role"] == "img" and plot.caption in each.attrs["aria-label"]
        figure = plot.figure(found)
        assert figure is not None
        ours = data["figures"][each.attrs["data-plot"]]
        assert ours["data"] == json.loads(figure.to_json())["data"]
        assert "template" not in ours["layout"]
    figures = [each for each in page.all("figure") if each.attrs.get("class") == "drawing"]
    assert len(figures) == len(shown)
    assert len({id(e) for e in page.all("table", within="figure")}) >= len(shown)


@ALL
def test_what_is_not_drawn_is_said_with_its_reason(
    pages: dict[str, str], read: dict[str, Material], state: str
) -> None:
    (text,) = (each.text for each in Page(pages[state]).all("body"))
    for plot in PLOTS.values():
        lack = plot.lacks(read[state].found)
        assert lack is None or f"{plot.title}: {lack}" in text


@ALL
def test_tables_of_markdown_have_as_many_cells_in_every_row(
    read: dict[str, Material], state: str
) -> None:
    text = re.sub(r"^```.*?^```$", "", markdown_of(read[state]), flags=re.M | re.S)
    tables = re.findall(r"(?:^\|.*\|$\n?)+", text, flags=re.M)
    assert len(tables) >= 2
    for table in tables:
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(cells) == 1, table


@ALL
def test_tables_have_a_cell_for_every_column(read: dict[str, Material], state: str) -> None:
    for section in report(read[state]).sections:
        for block in section.blocks:
            tables = block.tables if isinstance(block, Drawing) else [block]
            for table in tables:
                if isinstance(table, Table):
                    assert table.rows and all(len(r) == len(table.columns) for r in table.rows)


# ---- what it says --------------------------------------------------------------------------


def test_the_headline_is_the_winner_on_holdout_images(finished: Finished) -> None:
    written = ztp_search.report(
        finished.out / "r.html", out=finished.out, study="s", pictures=False
    )
    document = finished.document
    winner, gflops = document["holdout"]["candidates"][0], document["best"]["gflops"]
    assert f"trial {winner['trial']} classifies {100 * winner['top1']:.2f} % of 64 holdout images" \
        in written.headline  # fmt: skip
    at, of = (float(number) for number in re.findall(r"[0-9.]+", written.headline)[:2])
    assert (at, of) == pytest.approx((gflops["total"], gflops["unpruned"]), rel=1e-3)
    assert document["holdout"]["verdict"][1:] in written.qualification
    assert written.to_dict()["headline"] in repr(written).replace("\n", " ")


def test_a_winner_without_confirmation_is_said_to_lack_it(read: dict[str, Material]) -> None:
    stopped, never = report(read["stopped"]), report(read["no holdout"])
    assert "search images" in stopped.headline and "holdout" not in stopped.headline
    assert "not confirmed on holdout images yet" in stopped.qualification
    assert "No holdout images were set aside" in never.qualification
    for each in (stopped, never):
        assert not [figure for figure in each.figures if "against" in figure.label]
        blocks = [block for section in each.sections for block in section.blocks]
        assert not any(isinstance(block, Comparison) for block in blocks)


def test_a_new_winner_does_not_borrow_the_confirmation_of_another(
    read: dict[str, Material],
) -> None:
    of = read["raced"]
    assert of.found.holdout is not None
    others = of.found.holdout["candidates"][1:]
    found = dataclasses.replace(of.found, holdout={**of.found.holdout, "candidates": others})
    written = report(dataclasses.replace(of, found=found))
    assert "search images" in written.headline and "not confirmed" in written.qualification
    assert not [figure for figure in written.figures if "against" in figure.label]


def test_without_a_complete_trial_nothing_is_said_to_be_found(read: dict[str, Material]) -> None:
    written = report(read["hardly begun"])
    assert written.headline == "Nothing has been found yet: no trial is complete."
    assert "4 trials have been evaluated so far" in written.qualification
    assert not written.figures and "use" not in [each.id for each in written.sections]


def test_the_table_of_layers_is_the_winners_configuration(read: dict[str, Material]) -> None:
    of = read["raced"]
    assert of.winner is not None
    table = tables_of(of, "found")["Pruning layers of the winner"]
    layers, tokens = of.winner["config"]["layers"], of.winner["tokens"]
    assert [row[0] for row in table.rows] == [str(each["after_block"]) for each in layers]
    assert [row[-1] for row in table.rows] == [
        f"{tokens[each['after_block'] - 1]} → {tokens[each['after_block']]}" for each in layers
    ]
    column = list(table.columns).index("s_tokens")
    assert [row[column] for row in table.rows] == [str(each["s_tokens"]) for each in layers]


def test_the_holdout_table_is_the_documents(raced: Finished, read: dict[str, Material]) -> None:
    holdout = raced.document["holdout"]
    table = next(t for t in tables_of(read["raced"], "found").values() if "holdout" in t.title)
    rows = {row[0].split(",")[0]: row for row in table.rows}
    column = list(table.columns).index("holdout")
    assert rows["unpruned"][column] == f"{100 * holdout['unpruned']['top1']:.2f}"
    for finalist in holdout["candidates"]:
        row = rows[f"trial {finalist['trial']}"]
        low, high = (100 * each for each in finalist["minus_unpruned_ci95"])
        difference = f"{100 * finalist['minus_unpruned']:+.2f} [{low:+.2f}, {high:+.2f}]"
        assert list(row[column : column + 2]) == [f"{100 * finalist['top1']:.2f}", difference]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 2.0, "shown to be better"), (-2.0, -0.01, "shown to be worse"),
        (-1.0, 1.0, "not shown to be better or worse"),
        (0.0, 1.0, "not shown to be better or worse"),
        (-1.0, 0.0, "not shown to be better or worse"),
    ],
)  # fmt: skip
def test_an_interval_says_what_it_shows(low: float, high: float, words: str) -> None:
    assert Interval("", (low + high) / 2, low, high).words == words


def test_intervals_are_drawn_to_one_scale_that_holds_zero() -> None:
    drawn = Comparison("", [Interval("", 2.0, 1.0, 3.0), Interval("", 5.0, 4.0, 6.0)])
    low, high = drawn.span
    assert low < 0 and high > 6
    places = [drawn.place(each) for each in (0.0, 3.0, 6.0)]
    assert places[1] - places[0] == pytest.approx(places[2] - places[1], abs=0.02)
    assert (drawn.place(low), drawn.place(high)) == (0, 100)


def test_a_hand_set_winner_is_not_compared_with_itself(read: dict[str, Material]) -> None:
    of = read["raced"]
    assert of.found.holdout is not None
    first = {**of.found.holdout["candidates"][0], "hand_set": "tome constant"}
    holdout = {**of.found.holdout, "candidates": [first, *of.found.holdout["candidates"][1:]]}
    found = dataclasses.replace(of.found, holdout=holdout)
    labels = [each.label for each in report(dataclasses.replace(of, found=found)).figures]
    assert "against the paper's schedule" in labels and "against ToMe's schedule" not in labels


def test_measured_speed_is_shown_fast_or_slow_and_what_could_not_be_measured(
    read: dict[str, Material],
) -> None:
    of = read["raced"]
    assert of.result.winner is not None
    row = {"engine": "eager", "precision": "fp32", "repeats": 5, "speedup_quartiles": [0.4, 0.6]}
    speed = {
        "machine": {"processor": "CPU X", "gpu": None}, "device": "cpu", "threads": 2,
        "unpruned": "stock timm", "promised_speedup": 2.0,
        "measured": [
            row | {"batch_size": 1, "speedup": 0.5, "unpruned": {"milliseconds": 10.0},
                   "pruned": {"milliseconds": 20.0}},
            row | {"batch_size": 64, "speedup": 1.5, "unpruned": {"images_per_second": 1000.0},
                   "pruned": {"images_per_second": 1500.0}},
            {"engine": "compile", "failed": "no compiler"},
        ],
    }  # fmt: skip
    evidence = {**of.result.winner.evidence, "speed": speed}
    winner = dataclasses.replace(of.result.winner, evidence=evidence)
    of = dataclasses.replace(of, result=dataclasses.replace(of.result, winner=winner))
    (table,) = (t for n, t in tables_of(of, "found").items() if n.startswith("Speed on CPU X"))
    assert [list(each) for each in table.rows] == [
        ["eager", "fp32", "1", "10 ms", "20 ms", "0.50 [0.40, 0.60]"],
        ["eager", "fp32", "64", "1,000 images/s", "1,500 images/s", "1.50 [0.40, 0.60]"],
    ]
    (figure,) = (each for each in report(of).figures if each.label == "measured speed")
    assert (figure.value, figure.detail) == ("1.50 ×", "eager, 64 images per pass; 0.50 × with 1")
    assert "Speed in compile is not measured: no compiler." in html_of(of)


def test_failed_trials_are_counted_by_reason(read: dict[str, Material]) -> None:
    of = with_failures(read["many"], *["out of memory"] * 3, "not finite")
    table = tables_of(of, "found")["4 failed trials"]
    assert [list(row) for row in table.rows] == [
        ["3", "trial 1000", "out of memory"], ["1", "trial 1003", "not finite"]
    ]  # fmt: skip


def test_budgets_stand_side_by_side(read: dict[str, Material]) -> None:
    (table,) = (t for n, t in tables_of(read["many"], "found").items() if "each budget" in n)
    names = ["digits-50%-seed0 (this one)", "digits-65%-seed0", ""]
    assert [row[0] for row in table.rows] == names
    points = read["many"].found.budgets
    gflops = [*(point["gflops"] for point in points), points[0]["unpruned_gflops"]]
    assert [float(row[2]) for row in table.rows] == pytest.approx(gflops, rel=5e-3)
    assert not any("each budget" in name for name in tables_of(read["raced"], "found"))


def test_the_winners_file_is_within_the_page(
    read: dict[str, Material], pages: dict[str, str], tmp_path: Path
) -> None:
    (link,) = (each for each in Page(pages["raced"]).all("a") if "download" in each.attrs)
    path = tmp_path / link.attrs["download"]
    path.write_bytes(base64.b64decode(link.attrs["href"].split("base64,")[1]))
    assert read["raced"].result.winner is not None
    assert ztp_search.load_config(path) == read["raced"].result.winner.config


def test_the_command_of_a_report_is_the_search_that_was_asked(raced: Finished) -> None:
    with StudyReader.open(url_of(raced.out), "s") as study:
        of = material(study)
    (asked,) = (each for each in report(of).sections if each.id == "asked")
    (code,) = (each for each in asked.blocks if isinstance(each, Code))
    program, *arguments = shlex.split(code.text)
    settings = settings_of(SearchSettings, parse(arguments))
    wanted = {name: raced.settings[name] for name in ("space", "budget", "trials", "images")}
    assert program == "ztp-search"
    assert {name: getattr(settings, name) for name in wanted} == wanted


def test_commands_of_a_report_do_what_they_say(
    places: dict[str, tuple[str, str]], read: dict[str, Material], tmp_path: Path
) -> None:
    (use,) = (each for each in report(read["many"]).sections if each.id == "use")
    (shell,) = (each for each in use.blocks if getattr(each, "language", "") == "sh")
    line = shell.text.splitlines()[0].replace("ztp-search", f"{sys.executable} -m ztp_search")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(["sh", "-c", line], cwd=tmp_path, check=True, env=environment)
    (written,) = tmp_path.glob("*.json")
    assert read["many"].result.winner is not None
    assert ztp_search.load_config(written) == read["many"].result.winner.config


# ---- plots as tables -----------------------------------------------------------------------


def test_points_become_rows_with_their_bounds() -> None:
    error = {"array": [0.5], "arrayminus": [1.0]}
    figure = {
        "data": [
            {"type": "scatter", "name": "a", "x": [1.0], "y": [2.0], "error_y": error},
            {"type": "scatter", "name": "b", "x": [3.0, 4.0], "y": [5.0, 6.0]},
        ],
        "layout": {"xaxis": {"title": {"text": "X"}}, "yaxis": {"title": {"text": "Y"}}},
    }
    (table,) = plot_tables("t", figure)
    assert list(table.columns) == ["series", "X", "Y", "95 % of Y"]
    assert table.rows == [["a", "1", "2", "1 to 2.5"], ["b", "3", "5", ""], ["b", "4", "6", ""]]


def test_series_over_the_same_values_share_their_columns() -> None:
    data = [{"name": name, "x": [1, 2], "y": [n, n + 1]} for n, name in enumerate("ab")]
    (table,) = plot_tables("t", {"data": data, "layout": {"yaxis": {"title": {"text": "Y"}}}})
    assert list(table.columns) == ["value", "1", "2"]
    assert table.rows == [["a", "0", "1"], ["b", "1", "2"]]
    assert "Y" in table.note


def test_boxes_and_other_axes_have_tables_of_their_own() -> None:
    box = {"type": "box", "name": "a", "x": [3], "yaxis": "y2", "lowerfence": [1], "q1": [2],
           "median": [3], "q3": [4], "upperfence": [5]}  # fmt: skip
    bars = {"type": "bar", "name": "b", "x": [[1, 1], [2, 3]], "y": ["u", "v"]}
    first, second = plot_tables("t", {"data": [box, bars], "layout": {}})
    assert first.rows == [["a", "3", "1", "2", "3", "4", "5"]]
    assert second.rows == [["b", "1 2", "u"], ["b", "1 3", "v"]]


def test_only_the_first_of_many_points_are_told_and_where_the_others_are() -> None:
    figure = {"data": [{"name": "a", "x": list(range(500)), "y": list(range(500))}], "layout": {}}
    (table,) = plot_tables("t", figure)
    assert len(table.rows) < 50 and "export --format csv" in table.note


# ---- what a study holds breaks nothing -----------------------------------------------------


@pytest.fixture(scope="module")
def hostile(read: dict[str, Material]) -> Material:
    """A study whose every text is a trap: names, paths, reasons, arguments, versions."""
    of = with_failures(read["many"], HOSTILE)
    found = of.found
    assert of.result.winner is not None and found.holdout is not None
    finalists = [{**each, "enqueued": HOSTILE} for each in found.holdout["candidates"]]
    attributes = {**found.attributes, "about": trapped(found.attributes["about"])}
    keep = ("geometry", "budget", "racing", "objective", "parameters", "runtime", "images",
            "holdout")  # fmt: skip
    contract = {
        key: value if key in keep else trapped(value) for key, value in found.contract.items()
    }
    contract["racing"] = {**contract["racing"], "rule": HOSTILE, "signal": HOSTILE}
    winner = dataclasses.replace(
        of.result.winner,
        model=trapped({k: v for k, v in of.result.winner.model.items() if k != "geometry"})
        | {"geometry": of.result.winner.model["geometry"]},
    )
    return dataclasses.replace(
        of,
        found=dataclasses.replace(
            found, study=HOSTILE, storage=HOSTILE, attributes=attributes, contract=contract,
            holdout={**found.holdout, "candidates": finalists, "verdict": HOSTILE},
            budgets=[{**each, "study": HOSTILE} for each in found.budgets],
        ),
        result=dataclasses.replace(of.result, winner=winner),
        pictures=HOSTILE,
        command=HOSTILE,
    )  # fmt: skip


def test_text_of_a_study_stays_text_in_a_page(hostile: Material, pages: dict[str, str]) -> None:
    page, tame = Page(html_of(hostile)), Page(pages["many"])
    tags = {each.tag for each in page.elements}
    assert len(page.all("script")) == len(tame.all("script"))
    assert len(page.all("img")) == len(tame.all("img"))
    assert tags <= {each.tag for each in tame.elements} | {"code"}
    assert page.all("h1")[0].text == HOSTILE
    assert "{{7*7}}" in page.all("main")[0].text


def test_text_of_a_study_is_no_markup_in_its_plots(hostile: Material) -> None:
    figures = json.loads(unpacked(Page(html_of(hostile)), "plots-data"))["figures"]
    texts = [text for text in leaves(figures) if "pwned" in text]
    assert texts  # a plot does name the studies
    assert not [text for text in texts if re.search(r"<(?!br>|/?extra>)", text)]


def test_text_of_a_study_stays_text_in_markdown(
    hostile: Material, read: dict[str, Material]
) -> None:
    text = markdown_of(hostile)
    outside = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.M | re.S)  # what is not in a fence
    tags = re.findall(r"(?<!\\)<[^>\n]*>", re.sub(r"`[^`\n]*`", "", outside))
    assert set(tags) <= {"<details>", "<summary>", "</summary>", "</details>"}
    headings = [line for line in outside.splitlines() if re.match(r"#+ ", line)]
    assert len(headings) == len(re.findall(r"^#+ ", markdown_of(read["many"]), flags=re.M)) 


def test_words_of_markdown_mean_themselves() -> None:
    assert inline("a_b * c|d <e> `f`") == r"a\_b \* c|d \<e\> \`f\`"
    assert escaped("# no heading\nnor - a list") == r"\# no heading nor - a list"
    assert escaped("1. no list") == r"1\. no list"
    assert worded("see `a_b` in c_d") == r"see `a_b` in c\_d"
    assert worded("one ` alone") == r"one \` alone"
    assert fenced("a\n```\nb", "sh") == "````sh\na\n```\nb\n````"


def test_gflops_have_four_digits() -> None:
    assert [gflops_text(each) for each in (0.053, 3.08, 17.58, 123.0, 1234.4)] == [
        "0.05300", "3.080", "17.58", "123.0", "1234"
    ]  # fmt: skip


# ---- the command ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["r.html", "r.HTM", "r.md", "r.markdown"])
def test_the_suffix_says_the_format(finished: Finished, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    assert main(["report", "-o", str(path), "--out", str(finished.out), "--no-pictures"]) == 0
    beginning = "# s\n" if "m" in path.suffix.lower()[1:2] else "<!doctype html>"
    assert path.read_text().startswith(beginning)
    assert [each.name for each in tmp_path.iterdir()] == [name]


def test_a_format_can_be_named_instead(finished: Finished, tmp_path: Path) -> None:
    path = tmp_path / "r.txt"
    command = ["report", "-o", str(path), "--out", str(finished.out)]
    assert main([*command, "--format", "markdown"]) == 0
    assert path.read_text().startswith("# s\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-o", "r.txt"], "--output must end in one of .html, .htm, .md, .markdown, but got r.txt"),
        (["-o", "no/folder/r.html"], "--output no/folder/r.html cannot be written: No such file"),
        (["-o", "."], "--output . cannot be written: it is a folder"),
        (["-o", "r.html", "--study", "x"], "--study must name a study of"),
        (["-o", "r.html", "--format", "pdf"], "invalid choice: 'pdf'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_writes_nothing(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments, "--storage", url_of(finished.out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert words in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("library", ["jinja2", "plotly"])
def test_a_missing_library_is_named_with_what_installs_it(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ZtpError) as refused:
        ztp_search.report(tmp_path / "r.html", out=finished.out)
    message = one_line(refused)
    assert f"needs {library}; install it with: pip install 'ztp-search[report]'" in message
    ztp_search.report(tmp_path / "r.md", out=finished.out)


def test_pictures_that_cannot_be_had_are_one_line(
    finished: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "r.html"
    command = ["report", "-o", str(path), "--out", str(finished.out), "--weights", "gone.pt"]
    assert main(command) == 0
    note = capsys.readouterr().err.splitlines()[-1]
    assert note.startswith("note: There are no pictures: --weights gone.pt does not exist")
    page = Page(path.read_text())
    assert "gone.pt" in page.all("main")[0].text and not page.all("img")


def test_pictures_show_each_layer_at_work_on_the_first_holdout_images(
    finished: Finished, tmp_path: Path
) -> None:
    path = tmp_path / "r.html"
    command = ["report", "-o", str(path), "--out", str(finished.out), "--images", "2"]
    assert main(command) == 0
    page = Page(path.read_text())
    layers = finished.document["best"]["config"]["layers"]
    images = page.all("img")
    assert len(images) == 2 * (1 + len(layers))
    tokens = finished.document["best"]["tokens"]
    for each, layer in zip(images[1:], layers, strict=False):
        block = layer["after_block"]
        words = f"holdout image 0 after block {block}: "
        assert each.attrs["alt"].startswith(words)
        assert each.attrs["alt"].endswith(f"; {tokens[block]} tokens are left")
        assert base64.b64decode(each.attrs["src"].split(",")[1]).startswith(b"\x89PNG")


def test_no_password_is_in_a_report(finished: Finished) -> None:
    """What a study calls its storage is all that reports know of it."""
    with StudyReader.open(url_of(finished.out), "s") as study:
        study.storage = redact("postgresql://user:hunter2@host/studies?sslpassword=hunter3")
        of = material(study)
    for text in (html_of(of), markdown_of(of)):
        assert "hunter" not in text and "user:***@host" in text


def leaves(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for each in value.values():
            yield from leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each)
    elif isinstance(value, str):
        yield value


def trapped(value: Any) -> Any:
    """The same with a trap in every text, names of arguments too."""
    if isinstance(value, Mapping):
        return {key: trapped(each) for key, each in value.items()}
    if isinstance(value, str):
        return value + HOSTILE
    return value


def with_failures(of: Material, *reasons: str) -> Material:
    config = of.found.trials[0].config
    failed = [
        StoredTrial(1000 + place, "failed", None, config, {"failure": reason}, {})
        for place, reason in enumerate(reasons)
    ]
    return dataclasses.replace(
        of, found=dataclasses.replace(of.found, trials=[*of.found.trials, *failed])
    )
