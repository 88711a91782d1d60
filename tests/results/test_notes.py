"""What notes say, and that the command they give resumes the study."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Finished
from helpers.made_up import made_up_search
from helpers.running import attributes, ranked, space_file, stored, url_of
from helpers.studies import open_study, start
from helpers.studies import url_of as bare_url_of

from ztp_search.cli.main import main
from ztp_search.pruning.budget import Budget, parse_budget
from ztp_search.pruning.config_file import read_config_file
from ztp_search.results.markdown import code, table, tidy
from ztp_search.results.notes import study_note, trial_note
from ztp_search.results.plots import PLOTS, Found
from ztp_search.results.resume import budget_text, resume_command
from ztp_search.study import StudyReader

COST: Mapping[str, Any] = {
    "tokens": [7, 7, 7, 2, 2], "gflops": {"total": 1.0, "overhead": 0.1, "unpruned": 2.0},
}  # fmt: skip


def found_in(out: Path, study: str = "s") -> Found:
    with StudyReader.open(url_of(out), study) as reader:
        return Found.read(reader)


def tables(note: str) -> list[list[list[str]]]:
    """The cells of every table, without the line below its header."""
    out = []
    for block in re.findall(r"(?:^\|.*\n)+", note, re.MULTILINE):
        rows = [re.split(r"(?<!\\) ?\| ?", line)[1:-1] for line in block.splitlines()]
        out.append([rows[0], *rows[2:]])
    return out


def test_a_study_says_what_it_is_of_and_what_came_of_it(finished: Finished) -> None:
    note = study_note(found_in(finished.out))
    document, holdout = finished.document, finished.document["holdout"]
    for said in ("`vit_tiny_patch16_224`", "(68%)", "`digits`, split `search`", "| seed | 0 |",
                 "96 images to search on, 64 other ones to report on"):  # fmt: skip
        assert said in note
    assert holdout["verdict"] in note.replace("**Trial", "trial").replace("Trial", "trial")
    (table,) = [each for each in tables(note) if each[0][-1] == "− ToMe's" and "search" in each[0]]
    assert table[1] == ["unpruned", "", "", f"{100 * holdout['unpruned']['top1']:.2f}", "", "", ""]
    rows = {row[0]: row for row in table[1:]}
    for each in holdout["candidates"]:
        row = rows[f"trial {each['trial']}"]
        assert row[2:4] == [f"{100 * each['search_top1']:.2f}", f"{100 * each['top1']:.2f}"]
        low, high = each["minus_tome_ci95"]
        assert row[-1] == f"{100 * each['minus_tome']:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"
    layers = document["best"]["config"]["layers"]
    (table,) = [each for each in tables(note) if each[0][0] == "after block"]
    assert [int(row[0]) for row in table[1:]] == [layer["after_block"] for layer in layers]
    assert f"trial {document['best']['provenance']['trial']}" in note


def test_every_plot_that_is_there_is_explained_and_no_other(finished: Finished) -> None:
    found = found_in(finished.out)
    note = study_note(found)
    for plot in PLOTS.values():
        assert (plot.caption in note) == (plot.lacks(found) is None)


def test_budgets_of_the_search_are_listed_with_their_pages(tmp_path: Path) -> None:
    made_up_search(tmp_path, budget="50%,65%", trials=12)
    found = found_in(tmp_path, "digits-50%-seed0")
    note = study_note(found)
    (table,) = [each for each in tables(note) if each[0][:2] == ["study", "GFLOPs"]]
    assert [row[2] for row in table[1:]] == [f"trial {each['trial']}" for each in found.budgets]
    with StudyReader.open(url_of(tmp_path), "digits-65%-seed0") as other:
        assert f"(/dashboard/studies/{other.id}/note)" in table[2][0]
        assert f"compare-studies?ids={found.ids[found.study]},{other.id})" in note


def test_a_study_that_has_just_begun_has_a_note_too(tmp_path: Path) -> None:
    with open_study(bare_url_of(tmp_path)) as study:
        start(study, 0, **COST)
        found = Found.read(study)
    note = study_note(found)
    assert "No trial is complete yet." in note and "1 trials: 1 running." in note
    assert "# Trial 0: running" in trial_note(found, found.trials[0])


def test_an_interrupted_study_says_what_is_known(tmp_path: Path) -> None:
    made_up_search(tmp_path, tasks=20, study="s")
    found = found_in(tmp_path)
    states = {trial.state for trial in found.trials}
    assert "running" in states and found.holdout is None
    assert study_note(found) and all(trial_note(found, trial) for trial in found.trials)


def test_a_trial_says_what_it_is_worth_and_how_to_export_it(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = found_in(finished.out)
    best = ranked(finished.out)[0]
    note = trial_note(found, best)
    record = attributes(finished.out)["holdout"]["candidates"][best.config.digest()]
    rows = dict(tables(note)[0][1:])
    assert rows["top1, search images"].startswith(f"{100 * (best.value or 0):.2f} % on 96 images")
    assert rows["top1, 64 holdout images"].startswith(f"{100 * record['top1']:.2f} %")
    assert rows["standing"] == "1 of 8"
    assert rows["tokens per block"] == " ".join(map(str, best.attrs["tokens"]))
    (command,) = re.findall("```sh\n(.*)\n```", note)
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)[1:]) == 0
    assert read_config_file(tmp_path / f"trial-{best.number}.json").config == best.config


def test_a_failed_trial_says_why(tmp_path: Path) -> None:
    from ztp_search.study import Update

    with open_study(bare_url_of(tmp_path)) as study:
        start(study, 0, **COST)
        study.update([Update(0, "failed", None, {"failure": "the `device` is gone"})])
        found = Found.read(study)
    note = trial_note(found, found.trials[0])
    assert "# Trial 0: failed" in note and "``the `device` is gone``" in note


# ---- the command ---------------------------------------------------------------------------


def command_of(out: Path, study: str = "s") -> list[str]:
    found = found_in(out, study)
    return shlex.split(
        resume_command(found.study, found.storage, found.contract, found.attributes)
    )


def test_the_command_states_what_is_not_the_default_and_no_more(finished: Finished) -> None:
    assert command_of(finished.out) == [
        "ztp-search", "--space", "digits", "--budget", "68%", "--racing", "off", "--trials", "8",
        "--candidates", "3", "--images", "96", "--holdout", "64", "--batch-size", "32",
        "--out", str(finished.out), "--study", "s",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"budget": 0.0712345678, "tolerance": 0.02, "budget_counts": "backbone", "seed": 3},
        {"sampler": "qmc", "refine": 4, "racing": "halving", "racing_signal": "correct"},
        {"method": "merge", "objective": "agreement", "holdout": 0, "batch_size": 16},
        {"model_kwargs": {"drop_rate": 0.1}, "mean": [0.4], "crop_pct": 0.9, "study": "a 'b' c"},
        {"space": "here", "data": "digits", "holdout_split": "holdout"},
    ],
)
def test_the_command_resumes_the_study_and_finds_nothing_left_to_do(
    settings: Mapping[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if settings.get("space"):
        settings = {**settings, "space": space_file(tmp_path)}
    out = tmp_path / "runs"
    settings = {"study": "s", "trials": 6, "precision": "auto", **settings}
    made_up_search(out, **settings)
    before = [vars_of(trial) for trial in stored(out, settings["study"])]
    argv = command_of(out, settings["study"])[1:]
    monkeypatch.setattr(  # to resume must need no workers
        "ztp_search.driver.evaluator.open_pool", lambda *_, **__: pytest.fail("work was left")
    )
    assert main([*argv, "--json"]) == 0, capsys.readouterr().err
    assert json.loads(capsys.readouterr().out)["study"] == settings["study"]
    assert [vars_of(trial) for trial in stored(out, settings["study"])] == before


def vars_of(trial: Any) -> tuple[Any, ...]:
    return trial.number, trial.state, trial.value, trial.config


def test_enqueued_files_are_in_the_command(finished: Finished, tmp_path: Path) -> None:
    assert main(["export", "--out", str(finished.out), "-o", str(tmp_path / "best.json")]) == 0
    made_up_search(tmp_path / "runs", enqueue=[tmp_path / "best.json"], study="s", trials=6,
                   budget="68%")  # fmt: skip
    words = command_of(tmp_path / "runs")
    assert words[words.index("--enqueue") + 1] == str(tmp_path / "best.json")


def test_a_database_elsewhere_is_named_without_its_password() -> None:
    command = resume_command("s", "postgresql://me:***@host/studies", {}, {})
    assert shlex.split(command) == [
        "ztp-search", "--storage", "postgresql://me:***@host/studies", "--study", "s",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["50%", "67.5%", "0.0712", "0.053002896", "33.333%", "0.1"])
def test_a_budget_is_said_in_a_text_that_means_the_same(text: str, finished: Finished) -> None:
    from ztp_search.pruning.geometry import Geometry

    contract = found_in(finished.out).contract
    geometry = Geometry(**contract["geometry"])
    budget = parse_budget(text, geometry)
    said = budget_text({**contract, "budget": {"macs": budget.macs}})
    assert parse_budget(said, geometry) == budget and len(said) <= len(text)


def test_any_budget_is_said_to_the_last_multiply_add(finished: Finished) -> None:
    from ztp_search.pruning.geometry import Geometry

    contract = found_in(finished.out).contract
    for macs in (53_002_897, 99_999_999, 12_345_678_901):
        said = budget_text({**contract, "budget": {"macs": macs}})
        assert parse_budget(said, Geometry(**contract["geometry"])) == Budget(macs)


# ---- Markdown ------------------------------------------------------------------------------


def test_cells_keep_their_signs_and_their_line() -> None:
    assert table(("a|b", "c"), [("1\n2", 3)]) == "| a\\|b | c |\n| --- | ---: |\n| 1 2 | 3 |"


def test_code_is_fenced_by_more_than_it_holds() -> None:
    assert code("plain") == "`plain`"
    assert code("a `b` c") == "``a `b` c``"
    assert code("`x`") == "`` `x` ``"


def test_empty_parts_leave_no_gap() -> None:
    assert tidy("\n\na\n\n\n\nb\n\n") == "a\n\nb\n"
