"""How fast a configuration makes a model, beside the unpruned model, on this machine.

GFLOPs are not milliseconds: attention, ranking and memory have their own price, and single images
leave a processor half idle. Both models take turns, so that whatever else the machine does falls
on both, and the ratio is taken turn by turn. A batch of one is waited for image by image: that is
latency. Images are noise, as what a forward takes does not depend on what they show.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from ztp_search.backbones import apply, pruner_of
from ztp_search.data.hub import one_line
from ztp_search.evaluation.engines import load_engine
from ztp_search.evaluation.engines.base import Engine, Forward
from ztp_search.evaluation.machine import machine
from ztp_search.evaluation.runtime import Runtime
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.cost import flops

WARM_UP_SECONDS = 0.2
"""Forwards of a model, one at least, before its first turn."""
TURN_SECONDS = 0.1
"""As many forwards as fill it make a turn, one at least."""
SECONDS, LEAST, MOST = 1.0, 5, 50
"""Unless told how many, turns go on for so long: so many of each model at least and at most."""


class Clock(NamedTuple):
    """now: seconds. wait: until the device has done what it was given."""

    now: Callable[[], float]
    wait: Callable[[], object]


CLOCKS: Mapping[str, Clock] = {
    "cpu": Clock(time.perf_counter, lambda: None),
    "cuda": Clock(time.perf_counter, torch.cuda.synchronize),
}


def speed_header(model: nn.Module, config: PruningConfig, runtime: Runtime) -> dict[str, Any]:
    """What goes for all that is measured of a configuration: `machine`, `device`, `threads`, and
    `promised_speedup`, which is the ratio of GFLOPs."""
    cost = flops(pruner_of(model).geometry, config)
    return {
        "machine": machine(),
        "device": runtime.device,
        "threads": runtime.threads,
        "unpruned": "stock timm",
        "promised_speedup": cost.unpruned / cost.total,
    }


def measure_speed(
    model: nn.Module,
    config: PruningConfig,
    runtime: Runtime,
    engine: str,
    batch_sizes: Sequence[int],
    repeats: int | None = None,
) -> list[dict[str, Any]]:
    """Measure a configuration and the unpruned model in one engine.

    Args:
        model: is copied, so it stays as it is.
        config: what the copy is pruned by.
        runtime: device, precision and threads; how many images make a batch is said apart.
        engine: a name of `ENGINES`.
        batch_sizes: images per forward, each measured apart.
        repeats: turns of each model; None: what fits into SECONDS.

    Returns:
        Per batch size {"engine", "precision", "batch_size", "repeats", "unpruned", "pruned",
        "speedup", "speedup_quartiles"} (see `summary`). What cannot be measured is
        {"engine", "precision", "batch_size", "failed": why, on one line}, and the last.
    """
    rows: list[dict[str, Any]] = []
    made: dict[str, Engine] = {}
    with _threads(runtime.threads), torch.inference_mode():
        try:
            for batch_size in batch_sizes:
                rows.append(
                    {"engine": engine, "precision": runtime.precision, "batch_size": batch_size}
                )
                made = made or _made(load_engine(engine), model, config, runtime)
                rows[-1]["precision"] = made["pruned"].precision(runtime)
                images = _noise(batch_size, model)
                forwards = {name: each.bind(images) for name, each in made.items()}
                turns = take_turns(forwards, CLOCKS[runtime.device], repeats, batch_size == 1)
                rows[-1] |= summary(turns, batch_size)
        except Exception as error:  # of any library and kind: nothing else depends on it
            rows[-1]["failed"] = one_line(error)
        finally:
            if made:
                made["pruned"].close()
    return rows


def _made(
    kind: type[Engine], model: nn.Module, config: PruningConfig, runtime: Runtime
) -> dict[str, Engine]:
    """Both models in an engine, the unpruned one as stock timm has it."""
    configs = {"unpruned": None, "pruned": config}
    return {
        name: kind(apply(copy.deepcopy(model), each), runtime) for name, each in configs.items()
    }


@dataclass(frozen=True, slots=True)
class Turns:
    """The turns of one model.

    warm_up: forwards before the first turn. forwards: in one turn.
    seconds: of one forward, the mean over each turn.
    """

    warm_up: int
    forwards: int
    seconds: tuple[float, ...]


def take_turns(
    forwards: Mapping[str, Forward],
    clock: Clock,
    repeats: int | None = None,
    one_by_one: bool = True,
) -> dict[str, Turns]:
    """Time forwards in turns: after a warm-up of each, A B, B A, A B, …

    Args:
        forwards: what is timed, by name.
        clock: of the device.
        repeats: turns of each; None: until SECONDS have passed, between LEAST and MOST.
        one_by_one: wait for every forward, not only for the last of a turn.
    """
    warm = {name: _warm_up(forward, clock) for name, forward in forwards.items()}
    names = list(forwards)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    began = clock.now()
    for turn in range(MOST if repeats is None else repeats):
        if repeats is None and turn >= LEAST and clock.now() - began >= SECONDS:
            break
        for name in names if turn % 2 == 0 else reversed(names):
            seconds[name].append(_turn(forwards[name], warm[name][1], clock, one_by_one))
    return {name: Turns(*warm[name], tuple(seconds[name])) for name in names}


def summary(turns: Mapping[str, Turns], batch_size: int) -> dict[str, Any]:
    """Medians, and quartiles as their spread.

    Args:
        turns: of "unpruned" and "pruned", equally many.
        batch_size: images of one forward.

    Returns:
        `repeats`; of each model `milliseconds` of a forward, `milliseconds_quartiles`,
        `images_per_second`, `forwards` in a turn and `warm_up`; `speedup`, the median over turns
        of the ratio of both, and `speedup_quartiles`.
    """
    unpruned, pruned = turns["unpruned"].seconds, turns["pruned"].seconds
    ratios = [theirs / mine for theirs, mine in zip(unpruned, pruned, strict=True)]
    document: dict[str, Any] = {"repeats": len(ratios)}
    for name, each in turns.items():
        median = statistics.median(each.seconds)
        document[name] = {
            "milliseconds": 1e3 * median,
            "milliseconds_quartiles": [1e3 * value for value in _quartiles(each.seconds)],
            "images_per_second": batch_size / median,
            "forwards": each.forwards,
            "warm_up": each.warm_up,
        }
    return document | {
        "speedup": statistics.median(ratios), "speedup_quartiles": _quartiles(ratios)
    }  # fmt: skip


def _warm_up(forward: Forward, clock: Clock) -> tuple[int, int]:
    """How many forwards warmed it up, and how many of the last one's kind make a turn."""
    began = last = clock.now()
    count, taken = 0, 0.0
    while count == 0 or last - began < WARM_UP_SECONDS:
        forward()
        clock.wait()
        now = clock.now()
        count, taken, last = count + 1, now - last, now
    return count, max(1, math.ceil(TURN_SECONDS / taken)) if taken > 0.0 else 1


def _turn(forward: Forward, forwards: int, clock: Clock, one_by_one: bool) -> float:
    """Seconds of a forward, the mean of so many."""
    clock.wait()
    began = clock.now()
    for _ in range(forwards):
        forward()
        if one_by_one:
            clock.wait()
    clock.wait()
    return (clock.now() - began) / forwards


def _quartiles(values: Sequence[float]) -> list[float]:
    """The first and the third, between values where they fall there."""
    if len(values) == 1:
        return [values[0]] * 2
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return [first, third]


def _noise(batch_size: int, model: nn.Module) -> torch.Tensor:
    """Normalised images as the model takes them, (B, C, H, W)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch_size, *pruner_of(model).backbone.input_size, generator=generator)


@contextmanager
def _threads(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
