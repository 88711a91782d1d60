"""The log of a search: a JSON object per decision, the same each time, and true."""

from __future__ import annotations

import io
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.running import RACE, attributes, stored

import ztp_search
from ztp_search import SearchSettings
from ztp_search.cli.main import main
from ztp_search.cli.output import logged
from ztp_search.driver.json_log import JsonLog
from ztp_search.events import DECISIONS, Back, Failed, Outage, Retry, Stored
from ztp_search.pruning.config import PruningConfig

Lines = list[dict[str, Any]]
FOR_PEOPLE = ("stage", "note", "error", "output")
TIMES = ("time", "seconds")


def lines_of(text: str) -> Lines:
    """One JSON object per line, each beginning as all do."""
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        assert list(line)[:4] == ["time", "event", "study", "trial"]
    return lines


def log_of(out: Path, **changes: Any) -> Lines:
    stream = io.StringIO()
    settings = {**RACE, "trials": 16, "workers": 0, "out": out, **changes}
    ztp_search.search(SearchSettings(**settings), JsonLog(stream))
    return lines_of(stream.getvalue())


def of(lines: Lines, event: str) -> Lines:
    return [line for line in lines if line["event"] == event]


def untimed(lines: Lines) -> Lines:
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logged")


@pytest.fixture(scope="module")
def log(out: Path) -> Lines:
    return log_of(out)


def test_every_trial_is_there_from_its_beginning_to_its_end(log: Lines, out: Path) -> None:
    trials = stored(out)
    assert {line["study"] for line in log if line["event"] not in FOR_PEOPLE} == {"s"}
    assert [line["trial"] for line in of(log, "sampled")] == list(range(16))
    for line, trial in zip(of(log, "sampled"), trials, strict=True):
        assert PruningConfig.from_dict(line["config"]) == trial.config
        assert line["gflops"] == trial.attrs["gflops"]["total"]
    for trial in trials:
        mine = [line for line in log if line["trial"] == trial.number]
        rungs = of(mine, "rung")
        assert {line["images"]: line["accuracy"] for line in rungs} == trial.rungs
        assert [line["rung"] for line in rungs] == list(range(trial.attrs["rung"] + 1))
        assert rungs[-1]["loss"] == trial.attrs["loss"]
        assert rungs[-1]["standard_error"] == trial.attrs["standard_error"]
        ends = [line for line in mine if line["event"] in ("complete", "pruned", "failed")]
        assert [line["event"] for line in ends] == [trial.state]
        assert ends[0]["images"] == trial.attrs["images"]
    assert {"complete", "pruned"} == {trial.state for trial in trials}


def test_a_trial_is_stopped_for_the_reason_that_is_given(log: Lines) -> None:
    """Ranks and quotas counted again, from the losses of the rungs."""
    assert of(log, "pruned")
    for line in of(log, "pruned"):
        (cohort,) = [
            each for each in of(log, "cohort") if each["start"] <= line["trial"] < each["stop"]
        ]
        losses = {
            each["trial"]: each["loss"] for each in of(log, "rung")
            if each["rung"] == line["rung"] and cohort["start"] <= each["trial"] < cohort["stop"]
        }  # fmt: skip
        assert sum(loss < losses[line["trial"]] for loss in losses.values()) == line["rank"] - 1
        trials = cohort["stop"] - cohort["start"]
        assert line["promoted"] == -(-trials // 3 ** (line["rung"] + 1))
        assert line["images"] == cohort["rungs"][line["rung"]]
        assert "halving" not in line["rules"] or line["rank"] > line["promoted"]
        assert "halving" in line["rules"] or line["rank"] <= max(line["promoted"], 5)
        assert ("evidence" in line["rules"]) == (line["evidence"] >= line["evidence_needed"])
        assert line["rules"]


def test_the_end_is_what_the_study_says(log: Lines, out: Path) -> None:
    counts = Counter(trial.state for trial in stored(out))
    (end,) = of(log, "end")
    assert log[-1] == end
    assert {state: end[state] for state in ("complete", "pruned", "failed", "running")} == {
        "failed": 0, "running": 0, **counts
    }  # fmt: skip
    found = ztp_search.best(out=out, n=3)
    (finalists,) = of(log, "finalists")
    assert finalists["trials"] == [trial.number for trial in found.trials]
    (winner,) = of(log, "winner")
    assert winner["trial"] == finalists["trials"][0]
    holdout = attributes(out)["holdout"]
    confirmed = {line["trial"]: line for line in of(log, "confirmed") if line["trial"] is not None}
    by_number = {trial.number: trial for trial in stored(out)}
    assert confirmed.keys() == set(finalists["trials"])
    for number, line in confirmed.items():
        record = holdout["candidates"][by_number[number].config.digest()]
        assert line["accuracy"] == record["top1"]
        assert line["minus_unpruned_ci95"] == record["minus_unpruned_ci95"]
    (unpruned,) = of(log, "unpruned")
    assert unpruned["accuracy"] == attributes(out)["reference"]["unpruned"]["top1"]


def test_the_same_search_gives_the_same_lines(log: Lines, out: Path, tmp_path: Path) -> None:
    again = log_of(tmp_path)
    text = json.dumps(untimed(again)).replace(str(tmp_path), str(out))
    assert json.loads(text) == untimed(log)


def test_a_resumed_study_repeats_nothing(log: Lines, out: Path) -> None:
    again = log_of(out)
    events = [line["event"] for line in again if line["event"] not in FOR_PEOPLE]
    assert events == ["begin", "finalists", "winner", "end"]
    (begun,) = of(again, "begin")
    assert begun["complete"] + begun["pruned"] == begun["trials"] == 16
    assert untimed(of(again, "end")) == untimed(of(log, "end"))


def test_what_people_read_once_is_told_as_an_event_alone() -> None:
    stream = io.StringIO()
    log = JsonLog(stream)
    log.stage("trials")
    log.stage("trials")
    log.note("`batch_size` is odd")
    log.event("s", Failed(3, "no"))
    log.event("s", Outage("gone", 600.0))
    log.event("s", Back(2.5))
    log.event(None, Retry(None, 2, 0, 1, "died"))
    log.event("s", Stored(0.25))
    lines = lines_of(stream.getvalue())
    assert [(line["event"], line["study"], line["trial"]) for line in lines] == [
        ("stage", None, None), ("note", None, None), ("failed", "s", 3), ("outage", "s", None),
        ("back", "s", None), ("retry", None, None),
    ]  # fmt: skip


def test_numbers_that_json_lacks_are_null() -> None:
    stream = io.StringIO()
    JsonLog(stream).event("s", Back(float("inf")))
    assert lines_of(stream.getvalue())[0]["seconds"] is None


def test_a_log_that_cannot_be_written_ends_nothing() -> None:
    full = open("/dev/full", "w")
    log = JsonLog(full)
    log.event("s", Back(1.0))
    log.stage("trials")
    with pytest.raises(OSError, match="No space left"):  # nor was anything written before
        full.close()


def test_a_name_is_one_events(log: Lines) -> None:
    names = [each.name for each in DECISIONS]
    assert len(set(names)) == len(names) and not {*names} & {*FOR_PEOPLE}
    assert {line["event"] for line in log} <= {*names, *FOR_PEOPLE}


def test_on_the_command_line_there_is_nothing_else_on_stderr(
    out: Path, log: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--out", str(out), "--workers", "0", "--trials", "16", "--json", "--log-json"]
    argv += [word for key, value in RACE.items() if key != "trials"
             for word in (f"--{key.replace('_', '-')}", str(value))]  # fmt: skip
    assert main(argv) == 0
    shown, err = capsys.readouterr()
    assert json.loads(shown)["study"] == "s"
    assert lines_of(err)[-1]["event"] == "end"


def test_what_others_print_becomes_events(capsys: pytest.CaptureFixture[str]) -> None:
    with logged():
        print("a line, and")
        print("half", end="")
        print(" another", file=sys.stderr)
    out, err = capsys.readouterr()
    assert out == ""
    assert [(line["event"], line["text"]) for line in lines_of(err)] == [
        ("output", "a line, and"), ("output", "half another")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["--storage", "postgresql+psycopg://u:secret@127.0.0.1:1/x"], 1),
        (["--stora", "oracle://u:secret@h/x"], 2),
        (["--storage", "oracle://u:secret@h/x"], 2),
    ],
)
def test_a_mistake_is_a_line_without_its_password(
    argv: list[str], status: int, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if status == 1:
        pytest.importorskip("psycopg")
        monkeypatch.setattr("ztp_search.study.outage.FIRST_PATIENCE", 0.0)
    assert main(["--budget", "50%", "--space", "digits", *argv, "--log-json"]) == status
    out, err = capsys.readouterr()
    assert out == "" and "secret" not in err
    line = lines_of(err)[-1]
    assert line["event"] == "error" and line["status"] == status and line["text"]
