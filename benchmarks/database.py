"""What the database costs a search: milliseconds per trial, and a large study's seconds.

    python benchmarks/database.py [--trials 10000] [--batches 1 16 64 256] [--space deit_small]

A trial is started, reaches three rungs and is finished at a fourth; batch: trials per transaction.
Then a study of that many trials is opened, resumed and listed. SQLite, on the disk of --folder.
To reach: 30 ms a trial; a study of 10,000 trials opens, resumes and lists in seconds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import timm
from common import record

from ztp_search.backbones import geometry_of
from ztp_search.pruning.budget import parse_budget
from ztp_search.pruning.cost import cost_dict, flops
from ztp_search.samplers import MonteCarlo
from ztp_search.space import load_space
from ztp_search.space.decoder import Decoder
from ztp_search.study import NewTrial, StudyDriver, StudyReader, Update
from ztp_search.study.packing import pack

RUNGS = (384, 768, 1536, 3072)
"""Images seen by the end of each rung."""
RACED = 512
"""Trials for the cost per trial."""
REPEATS = 3
STEPS = ("start", *(f"{images} images" for images in RUNGS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--space", default="deit_small")
    parser.add_argument("--budget", default="3.08")
    parser.add_argument("--folder", help="where the databases go; a temporary one where not given")
    args = parser.parse_args()
    decoder = decoder_of(args.space, args.budget)
    trials = list(proposed(decoder, args.trials))
    per_trial = {}
    print("ms per trial     batch  " + "  ".join(f"{step:>11}" for step in (*STEPS, "together")))
    for batch in args.batches:
        with database(args.folder) as url, opened(url, decoder) as study:
            steps = race(study, trials[:RACED], batch)
        per_trial[batch] = {step: 1000 * seconds for step, seconds in steps.items()}
        per_trial[batch]["together"] = sum(per_trial[batch].values())
        print(f"{batch:22}  " + "  ".join(f"{ms:11.3f}" for ms in per_trial[batch].values()))
    result = {
        "arguments": vars(args),
        "parameters_per_trial": len(decoder.parameter_ranges()),
        "ms_per_trial_by_batch": per_trial,
        "large_study": large_study(decoder, trials, args.folder),
    }
    record("database", result)


def large_study(decoder: Decoder, trials: list[NewTrial], folder: str | None) -> dict[str, Any]:
    """Seconds to open, resume and list a study of these trials, all complete but the last few."""
    with database(folder) as url:
        with opened(url, decoder) as study:
            race(study, trials[:-RACED], 256)
            study.start(trials[-RACED:])
        loaded = StudyReader.open(url, "benchmark")
        with loaded:
            result = {
                "trials": len(trials),
                "mebibytes": Path(url.removeprefix("sqlite:///")).stat().st_size / 2**20,
                "open_to_read_seconds": seconds(lambda: StudyReader.open(url, "benchmark").close()),
                "resume_seconds": seconds(lambda: opened(url, decoder).close()),
                "trials_seconds": seconds(loaded.trials),
                "best_10_seconds": seconds(lambda: loaded.best(10)),
            }
    for key, value in result.items():
        print(f"{key}: {value}")
    return result


def race(study: StudyDriver, trials: list[NewTrial], batch: int) -> dict[str, float]:
    """Seconds per trial of each step of all trials, so many to a transaction."""
    generator = np.random.default_rng(0)
    correct = generator.random((len(trials), RUNGS[-1])) < 0.75
    spent = dict.fromkeys(STEPS, 0.0)
    for first in range(0, len(trials), batch):
        part = trials[first : first + batch]
        began = time.perf_counter()
        study.start(part)
        spent["start"] += time.perf_counter() - began
        for images, step in zip(RUNGS, STEPS[1:], strict=True):
            state = "complete" if images == RUNGS[-1] else "running"
            updates = [
                Update(trial.number, state, *evidence(correct[first + i, :images]), images)
                for i, trial in enumerate(part)
            ]
            began = time.perf_counter()
            study.update(updates)
            spent[step] += time.perf_counter() - began
    return {step: each / len(trials) for step, each in spent.items()}


def evidence(correct: np.ndarray[Any, np.dtype[np.bool_]]) -> tuple[float, dict[str, Any]]:
    """An estimate, and attributes as a search stores them."""
    mean = float(correct.mean())
    error = float(np.sqrt(mean * (1 - mean) / len(correct)))
    return mean, {
        "images": len(correct),
        "standard_error": error,
        "minus_unpruned": mean - 0.8,
        "minus_unpruned_ci95": [mean - 0.8 - 1.96 * error, mean - 0.8 + 1.96 * error],
        "fallback_share": 0.0,
        "evaluation_seconds": len(correct) / 97,
        "correct": pack(correct),
        "rung": RUNGS.index(len(correct)),
    }


def proposed(decoder: Decoder, count: int) -> Iterator[NewTrial]:
    sampler = MonteCarlo(decoder, seed=0)
    for number in range(count):
        proposal = sampler.propose(number)
        assert proposal is not None
        attrs = cost_dict(flops(decoder.geometry, proposal.config))
        yield NewTrial(number, proposal.config, attrs | {"point": list(proposal.point)})


def decoder_of(name: str, budget: str) -> Decoder:
    space = load_space(name)
    model = timm.create_model(space.model["name"], **space.model.get("kwargs", {}))
    geometry = geometry_of(model)
    return Decoder(space, geometry, parse_budget(budget, geometry))


@contextmanager
def database(folder: str | None) -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=folder) as path:
        yield f"sqlite:///{path}/study.db"


def opened(url: str, decoder: Decoder) -> StudyDriver:
    blocks = [block.block for block in decoder.blocks]
    return StudyDriver.open(url, "benchmark", {}, blocks=blocks, ranges=decoder.parameter_ranges())


def seconds(call: Callable[[], object]) -> float:
    """The median of a few calls."""
    spent = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


if __name__ == "__main__":
    main()
