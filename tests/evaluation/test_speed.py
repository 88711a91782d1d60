"""Measured speed: turns, medians and spreads on a clock of the tests', and what a row says."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from helpers.small_vits import TWO_LAYERS, images_for, make
from torch import Tensor, nn

import ztp_search.evaluation.speed as speed
from ztp_search.backbones import apply, geometry_of
from ztp_search.evaluation.engines.base import Engine, Forward
from ztp_search.evaluation.engines.eager import Eager
from ztp_search.evaluation.runtime import Runtime
from ztp_search.evaluation.speed import (
    LEAST,
    MOST,
    Clock,
    Turns,
    measure_speed,
    speed_header,
    summary,
    take_turns,
)
from ztp_search.pruning.cost import flops

CPU = Runtime("cpu", "fp32", 4)


@pytest.fixture(autouse=True)
def speed_at_a_glance() -> None:
    """Here it is measured as users have it measured."""


class Track:
    """A clock that moves when something runs on it, and the log of what ran.

    Half of the time of a forward passes when it is called, the rest when it is waited for.
    """

    def __init__(self) -> None:
        self.time = 0.0
        self.pending = 0.0
        self.log: list[str] = []
        self.clock = Clock(lambda: self.time, self.wait)

    def wait(self) -> None:
        self.log.append("wait")
        self.time += self.pending
        self.pending = 0.0

    def forward(self, name: str, seconds: Callable[[], float]) -> Forward:
        def run() -> None:
            taken = seconds()
            self.log.append(name)
            self.time += taken / 2
            self.pending += taken / 2

        return run

    @property
    def ran(self) -> list[str]:
        return [each for each in self.log if each != "wait"]


def constant(seconds: float) -> Callable[[], float]:
    return lambda: seconds


def listed(*seconds: float) -> Callable[[], float]:
    return iter(seconds).__next__


def test_models_take_turns_and_each_begins_as_often_as_the_other() -> None:
    track = Track()
    forwards = {name: track.forward(name, constant(1.0)) for name in ("a", "b")}
    take_turns(forwards, track.clock, repeats=4)
    assert track.ran == ["a", "b"] + ["a", "b", "b", "a", "a", "b", "b", "a"]


def test_each_turn_is_the_mean_of_as_many_forwards_as_fill_it() -> None:
    track = Track()
    # Warm-up: 0.2 s take seven forwards of 0.03125 s; four of them fill 0.1 s.
    taken = listed(*[0.03125] * 7, 1.0, 2.0, 3.0, 4.0, 5.0, 5.0, 5.0, 9.0)
    turns = take_turns({"a": track.forward("a", taken)}, track.clock, repeats=2)
    assert turns == {"a": Turns(warm_up=7, forwards=4, seconds=(2.5, 6.0))}


def test_a_forward_that_takes_longer_than_the_warm_up_is_run_once_for_it() -> None:
    track = Track()
    turns = take_turns({"a": track.forward("a", listed(9.0, 2.0, 4.0))}, track.clock, repeats=2)
    assert turns == {"a": Turns(warm_up=1, forwards=1, seconds=(2.0, 4.0))}


@pytest.mark.parametrize(
    ("seconds", "expected"), [(10.0, LEAST), (0.1, 5), (0.0625, 8), (0.001, MOST)]
)
def test_turns_go_on_for_a_second_within_bounds(
    seconds: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "TURN_SECONDS", seconds)  # one forward fills a turn
    track = Track()
    forwards = {name: track.forward(name, constant(seconds)) for name in ("a", "b")}
    turns = take_turns(forwards, track.clock)
    assert [len(each.seconds) for each in turns.values()] == [expected] * 2


@pytest.mark.parametrize(
    ("one_by_one", "turn"),
    [(True, ["wait", "a", "wait", "a", "wait", "wait"]), (False, ["wait", "a", "a", "wait"])],
)
def test_single_images_are_waited_for_and_batches_follow_one_another(
    one_by_one: bool, turn: list[str]
) -> None:
    track = Track()
    found = take_turns({"a": track.forward("a", constant(0.0625))}, track.clock, 1, one_by_one)
    assert found["a"] == Turns(warm_up=4, forwards=2, seconds=(0.0625,))
    assert track.log == ["a", "wait"] * 4 + turn


def test_a_summary_is_of_medians_and_quartiles_and_its_ratio_is_taken_turn_by_turn() -> None:
    turns = {
        "unpruned": Turns(3, 2, (4.0, 8.0, 6.0, 5.0, 7.0)),
        "pruned": Turns(5, 4, (2.0, 2.0, 4.0, 1.0, 7.0)),
    }
    # Ratios 2, 4, 1.5, 5, 1: their median is 2, though that of the medians is 3.
    assert summary(turns, batch_size=10) == {
        "repeats": 5,
        "unpruned": {
            "milliseconds": 6000.0, "milliseconds_quartiles": [5000.0, 7000.0],
            "images_per_second": 10 / 6, "forwards": 2, "warm_up": 3,
        },
        "pruned": {
            "milliseconds": 2000.0, "milliseconds_quartiles": [2000.0, 4000.0],
            "images_per_second": 5.0, "forwards": 4, "warm_up": 5,
        },
        "speedup": 2.0,
        "speedup_quartiles": [1.5, 4.0],
    }  # fmt: skip


def test_one_turn_has_no_spread() -> None:
    turns = {"unpruned": Turns(1, 1, (3.0,)), "pruned": Turns(1, 1, (2.0,))}
    found = summary(turns, 1)
    assert found["speedup"] == 1.5 and found["speedup_quartiles"] == [1.5, 1.5]
    assert found["unpruned"]["milliseconds_quartiles"] == [3000.0, 3000.0]


# ---- models --------------------------------------------------------------------------------


class Recorder(Engine):
    """Keeps what it is given and what its models say."""

    made: list[Recorder] = []
    closed = 0

    def __init__(self, model: nn.Module, runtime: Runtime) -> None:
        self.model, self.runtime, self.threads = model, runtime, 0
        self.seen: list[tuple[int, Tensor]] = []
        Recorder.made.append(self)

    @staticmethod
    def precision(runtime: Runtime) -> str:
        return f"not {runtime.precision}"

    def bind(self, images: Tensor) -> Forward:
        if len(images) == 13:
            raise MemoryError("thirteen\nare too many")

        def run() -> None:
            self.threads = torch.get_num_threads()
            self.seen.append((len(images), self.model(images)))

        return run

    def close(self) -> None:
        Recorder.closed += 1


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Recorder]]:
    monkeypatch.setattr(speed, "load_engine", lambda name: Recorder)
    monkeypatch.setattr(Recorder, "made", [])
    monkeypatch.setattr(Recorder, "closed", 0)
    yield Recorder


def test_a_row_per_batch_size_as_json_has_it() -> None:
    model = make("class token")
    rows = measure_speed(model, TWO_LAYERS, CPU, "eager", (1, 4), repeats=2)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert [row["batch_size"] for row in rows] == [1, 4]
    for row in rows:
        assert row.keys() == {
            "engine", "precision", "batch_size", "repeats", "unpruned", "pruned", "speedup",
            "speedup_quartiles",
        }  # fmt: skip
        assert (row["engine"], row["precision"], row["repeats"]) == ("eager", "fp32", 2)
        for which in ("unpruned", "pruned"):
            per_second = row[which]["images_per_second"]
            assert per_second * row[which]["milliseconds"] == pytest.approx(1e3 * row["batch_size"])


def test_the_unpruned_model_is_stock_and_the_other_one_is_pruned(
    recorder: type[Recorder]
) -> None:
    model = make("class token")
    stock, pruned = make("class token"), apply(make("class token"), TWO_LAYERS)
    apply(model, TWO_LAYERS)  # whatever it was last used for
    measure_speed(model, TWO_LAYERS, CPU, "any", (3,), repeats=1)
    images = speed._noise(3, model)
    assert images.shape == (3, 3, 32, 32) and 0.9 < images.std() < 1.1
    with torch.inference_mode():
        for engine, expected in zip(recorder.made, (stock(images), pruned(images)), strict=True):
            assert engine.seen and all(torch.equal(out, expected) for _, out in engine.seen)
    fused = [[block.attn.fused_attn for block in e.model.blocks] for e in recorder.made]  # type: ignore[union-attr, operator]
    assert fused == [[True] * 4, [False, True, False, True]]


def test_the_model_stays_as_it_is(recorder: type[Recorder]) -> None:
    model = apply(make("class token"), TWO_LAYERS)
    images = images_for(model)
    with torch.inference_mode():
        before = model(images)
        measure_speed(model, TWO_LAYERS, Runtime("cpu", "bf16", 4), "any", (1,), repeats=1)
        assert torch.equal(model(images), before)
    assert next(model.parameters()).dtype == torch.float32


def test_it_runs_on_the_threads_of_the_runtime_and_gives_them_back(
    recorder: type[Recorder]
) -> None:
    before = torch.get_num_threads()
    runtime = Runtime("cpu", "fp32", 4, threads=before + 1)
    measure_speed(make("class token"), TWO_LAYERS, runtime, "any", (1,), repeats=1)
    assert {engine.threads for engine in recorder.made} == {before + 1}
    assert torch.get_num_threads() == before


def test_an_engine_makes_its_models_once_says_its_precision_and_is_closed_once(
    recorder: type[Recorder]
) -> None:
    rows = measure_speed(make("class token"), TWO_LAYERS, CPU, "any", (1, 2, 4), repeats=1)
    assert len(recorder.made) == 2 and recorder.closed == 1
    assert {row["precision"] for row in rows} == {"not fp32"}
    assert {size for size, _ in recorder.made[0].seen} == {1, 2, 4}


def test_what_fails_is_one_line_behind_what_was_measured(recorder: type[Recorder]) -> None:
    rows = measure_speed(make("class token"), TWO_LAYERS, CPU, "any", (1, 13, 4), repeats=1)
    assert [row["batch_size"] for row in rows] == [1, 13]
    assert rows[1] == {
        "engine": "any", "precision": "not fp32", "batch_size": 13,
        "failed": "thirteen are too many",
    }  # fmt: skip
    assert "failed" not in rows[0] and recorder.closed == 1


def test_an_engine_that_cannot_be_loaded_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise ImportError(f"no {name}")

    monkeypatch.setattr(speed, "load_engine", broken)
    assert measure_speed(make("class token"), TWO_LAYERS, CPU, "any", (1, 4)) == [
        {"engine": "any", "precision": "fp32", "batch_size": 1, "failed": "no any"}
    ]


def test_an_interrupt_goes_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(speed, "load_engine", interrupted)
    with pytest.raises(KeyboardInterrupt):
        measure_speed(make("class token"), TWO_LAYERS, CPU, "any", (1,))


def test_the_header_says_where_and_what_is_promised() -> None:
    model = make("class token")
    header = speed_header(model, TWO_LAYERS, Runtime("cpu", "bf16", 4, threads=3))
    cost = flops(geometry_of(model), TWO_LAYERS)
    assert header["promised_speedup"] == cost.unpruned / cost.total > 1
    assert (header["device"], header["threads"], header["unpruned"]) == ("cpu", 3, "stock timm")
    machine = header["machine"]
    assert torch.__version__.startswith(machine["torch"]) and machine["processor"]
    assert json.loads(json.dumps(header)) == header


# ---- a GPU ---------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_is_waited_for() -> None:
    """The clock stops when the work is done: a second forward of it takes as long again."""
    a = torch.randn(4096, 4096, device="cuda")

    def run() -> None:
        for _ in range(50):
            a @ a

    turns = take_turns({"a": run}, speed.CLOCKS["cuda"], repeats=5, one_by_one=False)
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    run()
    ended.record()
    ended.synchronize()
    seconds = began.elapsed_time(ended) / 1000.0
    assert min(turns["a"].seconds) > 0.2 * seconds  # launching alone is far below


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_is_measured_on_a_gpu() -> None:
    model = make("class token")
    rows = measure_speed(model, TWO_LAYERS, Runtime("cuda", "bf16", 4), "eager", (1, 4), repeats=2)
    assert [row["batch_size"] for row in rows] == [1, 4]
    assert not any("failed" in row for row in rows)
    assert next(model.parameters()).device.type == "cpu"
    assert isinstance(Eager(copy.deepcopy(model), Runtime("cuda", "bf16", 4)), Engine)
