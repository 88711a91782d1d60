"""The winner's speed in study, documents and tables: measured once, and deciding nothing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import Finished
from helpers.running import SEARCH, argv_of, attributes, ranked, results, stored
from helpers.small_vits import TWO_LAYERS, make

import ztp_search
import ztp_search.driver.speed
from ztp_search import EvaluateSettings, SearchSettings
from ztp_search.cli.main import main
from ztp_search.driver.progress import Progress
from ztp_search.driver.speed import measure_winner, measured_speed
from ztp_search.evaluation.runtime import Runtime
from ztp_search.settings import SpeedOptions

CPU = Runtime("cpu", "fp32", 32)
BROKEN = "onnxruntime"
"""The engine that fails here, behind its first batch size."""


class Measured:
    """In place of `measure_speed`: what it was asked for, in rows that tell the calls apart."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[int, ...], int | None]] = []

    def __call__(
        self, model: Any, config: Any, runtime: Runtime, engine: str, batch_sizes: list[int],
        repeats: int | None = None,
    ) -> list[dict[str, Any]]:  # fmt: skip
        self.calls.append((engine, tuple(batch_sizes), repeats))
        rows = []
        for size in batch_sizes:
            row = {"engine": engine, "precision": runtime.precision, "batch_size": size}
            if engine == BROKEN and size > 1:
                return [*rows, row | {"failed": "too much"}]
            rows.append(row | {"repeats": repeats or 7, **result(float(len(self.calls)))})
        return rows


def result(speedup: float) -> dict[str, Any]:
    """A made-up measurement: a pruned forward takes 8 ms, an unpruned one the speedup of that."""
    each = {"images_per_second": 125.0, "forwards": 13, "warm_up": 25}
    return {
        "unpruned": {"milliseconds": 8.0 * speedup, "milliseconds_quartiles": [7.0, 9.0], **each},
        "pruned": {"milliseconds": 8.0, "milliseconds_quartiles": [7.0, 9.0], **each},
        "speedup": speedup,
        "speedup_quartiles": [speedup - 0.25, speedup + 0.25],
    }


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    fake = Measured()
    monkeypatch.setattr(ztp_search.driver.speed, "measure_speed", fake)
    return fake


class Heard(Progress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def record(
    options: SpeedOptions, known: dict[str, Any] | None = None, heard: Progress | None = None
) -> dict[str, Any] | None:
    """The record in the end; None where nothing was measured."""
    progress = heard or Progress()
    records = list(measured_speed(make("class token"), TWO_LAYERS, CPU, options, progress, known))
    return records[-1] if records else None


# ---- a record ------------------------------------------------------------------------------


def test_latency_and_throughput_of_the_batch_size_are_measured_unless_others_are_asked_for(
    measured: Measured,
) -> None:
    record(SpeedOptions(("eager",)))
    record(SpeedOptions(("eager",), (8, 2), 3))
    assert measured.calls == [("eager", (1, 32), None), ("eager", (8, 2), 3)]


def test_no_engine_measures_nothing(measured: Measured) -> None:
    assert record(SpeedOptions()) is None and not measured.calls


def test_what_a_record_has_is_not_measured_again(measured: Measured) -> None:
    first = record(SpeedOptions(("eager",)))
    assert record(SpeedOptions(("eager",)), first) is None
    second = record(SpeedOptions(("eager", "compiled"), (1, 4)), first)
    assert measured.calls[1:] == [("eager", (4,), None), ("compiled", (1, 4), None)]
    assert second is not None and first is not None
    assert [(row["engine"], row["batch_size"], row["speedup"]) for row in second["measured"]] == [
        ("eager", 1, 1.0), ("eager", 32, 1.0), ("eager", 4, 2.0), ("compiled", 1, 3.0),
        ("compiled", 4, 3.0),
    ]  # fmt: skip
    assert {key: second[key] for key in first if key != "measured"} == {
        key: first[key] for key in first if key != "measured"
    }


def test_other_repeats_are_measured_in_place_of_those_that_there_are(measured: Measured) -> None:
    first = record(SpeedOptions(("eager",), (1,)))
    assert record(SpeedOptions(("eager",), (1,), 7), first) is None  # as many as there were
    second = record(SpeedOptions(("eager",), (1,), 9), first)
    assert second is not None and [row["repeats"] for row in second["measured"]] == [9]
    assert record(SpeedOptions(("eager",), (1,)), second) is None  # any number will do


def test_what_failed_is_said_and_tried_again(measured: Measured) -> None:
    heard = Heard()
    first = record(SpeedOptions((BROKEN, "eager")), heard=heard)
    assert heard.notes == ["speed in onnxruntime is not measured: too much"]
    assert first is not None
    assert ["failed" in row for row in first["measured"]] == [False, True, False, False]
    second = record(SpeedOptions((BROKEN, "eager")), first)
    assert measured.calls[2:] == [(BROKEN, (32,), None)]
    assert second is not None and len(second["measured"]) == 4


def test_a_record_is_of_one_machine(measured: Measured) -> None:
    first = record(SpeedOptions(("eager",)))
    assert first is not None
    other = {**first, "machine": {**first["machine"], "processor": "another"}}
    assert record(SpeedOptions(("eager",)), other) is None  # nothing lacks: it stays
    again = record(SpeedOptions(("eager", "compiled"), (1,)), other)
    assert again is not None and again["machine"] == first["machine"]
    assert [(row["engine"], row["batch_size"]) for row in again["measured"]] == [
        ("eager", 1), ("compiled", 1)
    ]  # fmt: skip


# ---- a search ------------------------------------------------------------------------------


def search(out: Path, **changes: Any) -> dict[str, Any]:
    settings = {**SEARCH, "workers": 0, "out": out, "speed": "eager", **changes}
    found = ztp_search.search(SearchSettings(**settings)).to_dict()
    return json.loads(json.dumps(found, allow_nan=False))


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """A finished study whose winner's speed nobody has measured."""
    return shutil.copytree(finished.out, tmp_path / "copy")


def without_speed(file: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in file["evidence"].items() if key != "speed"}
    return {**file, "evidence": kept}


def test_the_winner_is_measured_once_and_all_else_stays(
    copied: Path, finished: Finished, measured: Measured
) -> None:
    assert "speed" not in finished.document["best"]["evidence"]
    found = search(copied)
    assert measured.calls == [("eager", (1, 32), None)]
    assert results(stored(copied)) == results(stored(finished.out))
    for key in ("holdout", "trials", "image_evaluations", "racing"):
        assert found[key] == finished.document[key]
    assert without_speed(found["best"]) == finished.document["best"]
    evidence = found["best"]["evidence"]["speed"]
    gflops = found["best"]["gflops"]
    assert evidence["promised_speedup"] == pytest.approx(gflops["unpruned"] / gflops["total"])
    assert [row["batch_size"] for row in evidence["measured"]] == [1, 32]
    winner = ranked(copied)[0]
    assert attributes(copied)["speed"] == {winner.config.digest(): evidence}
    assert search(copied) | {"seconds": 0} == found | {"seconds": 0}
    assert search(copied, speed="off")["best"] == found["best"]
    assert len(measured.calls) == 1


def test_a_winner_is_really_measured(copied: Path) -> None:
    found = search(copied, speed_repeats=1)
    latency, throughput = found["best"]["evidence"]["speed"]["measured"]
    for row, images in ((latency, 1), (throughput, 32)):
        assert (row["batch_size"], row["repeats"], row["precision"]) == (images, 1, "fp32")
        pruned, unpruned = row["pruned"]["milliseconds"], row["unpruned"]["milliseconds"]
        assert row["speedup"] == pytest.approx(unpruned / pruned) and pruned > 0


def test_another_engine_is_added(copied: Path, measured: Measured) -> None:
    search(copied)
    search(copied, speed=["eager", "compiled"], speed_batch_sizes=[2, 2])
    assert measured.calls[1:] == [("eager", (2,), None), ("compiled", (2,), None)]
    (record,) = attributes(copied)["speed"].values()
    assert [row["batch_size"] for row in record["measured"]] == [1, 32, 2, 2]


def test_another_winner_is_measured_beside_the_one_before(measured: Measured) -> None:
    kept: dict[str, Any] = {}
    study: Any = SimpleNamespace(attributes=lambda: kept, set_attribute=kept.__setitem__)
    evaluator: Any = SimpleNamespace(
        loaded=SimpleNamespace(model=make("class token")), runtime=CPU, progress=Progress()
    )
    other = dataclasses.replace(TWO_LAYERS, v_max=9.0)
    for config in (TWO_LAYERS, other, TWO_LAYERS):
        trial: Any = SimpleNamespace(config=config)
        measure_winner(evaluator, study, trial, SpeedOptions(("eager",)))
    assert len(measured.calls) == 2
    assert {digest: each["measured"][0]["speedup"] for digest, each in kept["speed"].items()} == {
        TWO_LAYERS.digest(): 1.0, other.digest(): 2.0
    }  # fmt: skip


def test_trials_that_were_not_measured_say_nothing_of_speed(
    copied: Path, measured: Measured
) -> None:
    search(copied)
    found = ztp_search.best(out=copied, n=3).to_dict()["trials"]
    assert ["speed" in trial["evidence"] for trial in found] == [True, False, False]


def test_the_speed_goes_along_with_an_export(
    copied: Path, measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = search(copied)
    assert main(["export", "--out", str(copied), "-o", str(tmp_path / "best.json")]) == 0
    file = ztp_search.export(tmp_path / "again.json", config=tmp_path / "best.json")
    assert file.to_dict() == found["best"]
    from ztp_search.results.exporters.hugging_face import card

    row = found["best"]["evidence"]["speed"]["measured"][0]
    assert f"| eager | {row['precision']} | 1 |" in card(file)


# ---- the command line ----------------------------------------------------------------------


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[str, str]:
    """What a command line prints on stdout, its spaces made one, and on stderr."""
    capsys.readouterr()
    assert main(argv) == 0
    out, err = capsys.readouterr()
    return " ".join(out.split()), err


def test_a_search_prints_what_was_measured_and_what_could_not_be(
    copied: Path, measured: Measured, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {**SEARCH, "workers": 0, "out": copied, "speed": f"eager,{BROKEN}"}
    out, err = printed(capsys, *argv_of(settings), "--speed-repeats", "5")
    assert [repeats for _, _, repeats in measured.calls] == [5, 5]
    trial = ranked(copied)[0].number
    assert f"precision images unpruned trial {trial} times as fast" in out
    assert "eager fp32 1 8 ms 8 ms 1.00 [0.75, 1.25] " in out
    assert "eager fp32 32 125 images/s 125 images/s 1.00 [0.75, 1.25] " in out
    assert f"{BROKEN} fp32 1 16 ms 8 ms 2.00 [1.75, 2.25] " in out
    (record,) = attributes(copied)["speed"].values()
    assert "1 thread, beside stock timm: medians and quartiles of 5 turns" in out
    assert f"GFLOPs promise {record['promised_speedup']:.2f} times" in out
    why = f"peed in {BROKEN} is not measured: too much"
    assert f"S{why}" in out and f"s{why}\n" in err and f"measuring speed ({BROKEN})" in err


def test_several_budgets_have_a_speed_each(
    tmp_path: Path, measured: Measured, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {
        "space": "digits", "budget": "50%,68%", "trials": 2, "images": 32, "holdout": 8,
        "batch_size": 16, "workers": 0, "out": tmp_path, "speed": "eager",
    }  # fmt: skip
    found = ztp_search.search_front(SearchSettings(**settings)).to_dict()
    assert [point["speedup"] for point in found["front"]] == [1.0, 2.0]  # the calls that made them
    assert [size for _, size, _ in measured.calls] == [(1, 16)] * 2
    out, _ = printed(capsys, *argv_of(settings))
    first = found["front"][0]
    assert f"trial {first['trial']} {first['gflops']:.3g} 1.00 " in out and "times as fast" in out
    without = {**settings, "out": tmp_path / "without", "speed": "off"}
    found = ztp_search.search_front(SearchSettings(**without)).to_dict()
    assert not any("speedup" in point for point in found["front"])


def test_an_evaluation_measures_what_it_is_asked_for(
    finished: Finished, measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "best.json"
    ztp_search.export(path, out=finished.out)
    argv = ["evaluate", str(path), "--workers", "0", "--out", str(finished.out)]
    asked = ["--speed", "eager,compiled", "--speed-batch-sizes", "1", "8", "--speed-repeats", "9"]
    out, _ = printed(capsys, *argv, *asked, "--json")
    assert measured.calls == [("eager", (1, 8), 9), ("compiled", (1, 8), 9)]
    shown = json.loads(out)
    assert [row["engine"] for row in shown["speed"]["measured"]] == ["eager"] * 2 + ["compiled"] * 2
    assert shown["images_per_second"] == shown["unpruned_images_per_second"] == 125.0
    same = EvaluateSettings(
        workers=0, out=finished.out, speed=["eager"], speed_batch_sizes=[1, 8], speed_repeats=9
    )
    result = ztp_search.evaluate(path, same)
    assert result.speed is not None and len(result.speed["measured"]) == 2
    out, _ = printed(capsys, *argv, *asked)
    assert "compiled fp32 8 125 images/s" in out and "pruned times as fast" in out


def test_an_evaluation_without_speed_says_none(
    finished: Finished, measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "best.json"
    ztp_search.export(path, out=finished.out)
    argv = ["evaluate", str(path), "--workers", "0", "--out", str(finished.out), "--speed", "off"]
    out, _ = printed(capsys, *argv, "--json")
    assert json.loads(out)["speed"] is json.loads(out)["images_per_second"] is None
    out, _ = printed(capsys, *argv)
    assert "times as fast" not in out and not measured.calls


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["--speed", "tensorrt"], "--speed must be off, or some of eager, compiled, onnxruntime"),
        (["--speed", "eager,off"], "but got 'off'"),
        (["--speed", ""], "but got ''"),
        (["--speed-batch-sizes", "0"], "--speed-batch-sizes"),
        (["--speed-repeats", "0"], "--speed-repeats"),
    ],
)
def test_a_mistake_is_one_line_before_any_work(
    asked: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for argv in (["--space", "digits", "--budget", "68%", "--out", str(tmp_path)], evaluation()):
        assert main([*argv, *asked]) == 2
        out, err = capsys.readouterr()
        assert out == "" and says in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())
    with pytest.raises(ztp_search.ZtpError, match="`speed` must be"):
        ztp_search.search(SearchSettings(budget="68%", space="digits", speed=["fast"]))


def evaluation() -> list[str]:
    return ["evaluate", "nowhere.json"]
