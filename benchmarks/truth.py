"""The truth that racing is judged by: many configurations of a space, all images in full.

    python benchmarks/truth.py [--configurations 400] [--images 5000] [--budget 50%]

Kept under benchmarks/.cache, so that the benchmarks that replay a search on recorded per-image
results (search_cost, false_kills) evaluate nothing themselves.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from common import CACHE

from ztp_search import SearchSettings
from ztp_search.driver.evaluator import open_evaluator
from ztp_search.driver.progress import Progress
from ztp_search.evaluation.runtime import resolve_runtime
from ztp_search.pruning.budget import parse_budget
from ztp_search.pruning.cost import flops
from ztp_search.samplers import MonteCarlo
from ztp_search.settings import resolve_search
from ztp_search.space.decoder import Decoder


@dataclass(frozen=True)
class Truth:
    """Per-image results of Monte Carlo's configurations 0, 1, 2, ….

    correct: bool (configurations, images). unpruned: bool (images,). gflops: (configurations,).
    """

    correct: npt.NDArray[np.bool_]
    unpruned: npt.NDArray[np.bool_]
    gflops: npt.NDArray[np.float64]


def truth(configurations: int = 400, images: int = 5000, budget: str = "50%") -> Truth:
    """The kept truth, measured first where there is none."""
    path = CACHE / f"truth-{budget.strip('%')}-{configurations}-{images}.npz"
    if not path.exists():
        _measure(path, configurations, images, budget)
    with np.load(path) as kept:
        return Truth(kept["correct"], kept["unpruned"], kept["gflops"])


def _measure(path: Path, configurations: int, images: int, budget: str) -> None:
    asked = resolve_search(
        SearchSettings(space="digits", budget=budget, images=images, holdout=0, out=CACHE)
    )
    runtime = resolve_runtime("auto", "auto", asked.batch_size, 1)
    evaluator = open_evaluator(asked.sources, runtime, "top1", asked.workers, Spoken())
    geometry = evaluator.geometry
    decoder = Decoder(asked.space, geometry, parse_budget(budget, geometry))
    sampler = MonteCarlo(decoder, seed=0)
    proposals = [sampler.propose(i) for i in range(configurations)]
    configs = {str(i): proposal.config for i, proposal in enumerate(proposals) if proposal}
    with evaluator:
        unpruned = evaluator.score("search", evaluator.unpruned("search"))
        scores = {
            name: evaluator.score("search", outcome.predictions)
            for name, outcome in evaluator.outcomes("search", configs, "evaluating")
        }
    correct = [scores[name] for name in configs]
    gflops = [flops(geometry, config).gflops()["total"] for config in configs.values()]
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        path,
        correct=np.stack(correct),
        unpruned=unpruned,
        gflops=np.array(gflops),
    )


class Spoken(Progress):
    """A line every 100,000 images."""

    said = 0

    def images(self, done: int, total: int) -> None:
        if done // 100_000 != self.said:
            self.said = done // 100_000
            print(f"{done:,} of {total:,} images", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--configurations", type=int, default=400)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--budget", default="50%")
    args = parser.parse_args()
    found = truth(args.configurations, args.images, args.budget)
    accuracies = np.sort(found.correct.mean(1))[::-1]
    print(f"unpruned {found.unpruned.mean():.4f}")
    print(f"best {accuracies[:5]}, worst {accuracies[-1]:.4f}")


if __name__ == "__main__":
    main()
