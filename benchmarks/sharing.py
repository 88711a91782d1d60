"""What it saves to run the blocks before the first pruning layer once for all configurations.

    python benchmarks/sharing.py [--spaces digits deit_small] [--configurations 48] [--rounds 3]

One image block, configurations of the Monte Carlo sampler in the order in which the search puts
them into tasks, one thread, this machine's precision. In turns:

    apart     a task per configuration, nothing kept: every block is run for every configuration
    together  tasks of 8 configurations, nothing kept between them
    kept      tasks of 8, and what they share is kept from task to task (--cache-memory)

Random weights for DeiT-S, as speed does not depend on them. Results are the same to the bit.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np
import timm
from common import record

from ztp_search.backbones import geometry_of
from ztp_search.evaluation.image_range import ImageRange
from ztp_search.evaluation.model_runner import ModelRunner, RangeResult
from ztp_search.evaluation.runtime import resolve_runtime
from ztp_search.objectives import OBJECTIVES
from ztp_search.pruning.budget import parse_budget
from ztp_search.pruning.config import PruningConfig
from ztp_search.samplers import MonteCarlo
from ztp_search.space import load_space
from ztp_search.space.decoder import Decoder

TASK = 8
ALL_OF_IT = 1 << 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spaces", nargs="+", default=["digits", "deit_small"])
    parser.add_argument("--budget", default="67%")
    parser.add_argument("--configurations", type=int, default=48)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    rows = [measure(space, args) for space in args.spaces]
    record("sharing", {"arguments": vars(args), "rows": rows})


def measure(name: str, args: argparse.Namespace) -> dict[str, Any]:
    space = load_space(name)
    model = timm.create_model(space.model["name"], **space.model.get("kwargs", {})).eval()
    geometry = geometry_of(model)
    sampler = MonteCarlo(Decoder(space, geometry, parse_budget(args.budget, geometry)), seed=0)
    proposals = [sampler.propose(index) for index in range(args.configurations)]
    configs = [proposal.config for proposal in proposals if proposal is not None]
    configs.sort(key=lambda config: config.layers[0].after_block)
    size = model.patch_embed.img_size
    channels = model.patch_embed.proj.in_channels
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (args.images, channels, *size), dtype=np.uint8)
    runtime = resolve_runtime("auto", "auto", min(64, args.images), 1)
    mean = [0.5] * channels
    runner = ModelRunner(model, {"search": images}, mean, mean, runtime, OBJECTIVES["top1"])
    seconds: dict[str, list[float]] = {"apart": [], "together": [], "kept": []}
    predictions = set()
    kept = 0
    for _ in range(args.rounds):
        for way, taken in seconds.items():
            runner.clear_cache()
            runner.cache_bytes = ALL_OF_IT if way == "kept" else 0
            began = time.perf_counter()
            results = run(runner, configs, 1 if way == "apart" else TASK, args.images)
            taken.append(time.perf_counter() - began)
            predictions.add(b"".join(result.predictions.tobytes() for result in results))
            kept = max(kept, runner.cached_bytes)
    if len(predictions) != 1:
        raise SystemExit("results differ")
    row = {
        "space": name,
        "seconds": seconds,
        "first_layers": [config.layers[0].after_block for config in configs],
        "kept_mib_per_image": kept / args.images / 2**20,
        "speedup_together": ratio(seconds["apart"], seconds["together"]),
        "speedup_kept": ratio(seconds["apart"], seconds["kept"]),
    }
    print(f"{name} at {args.budget}: tasks of {TASK} {row['speedup_together']:.2f} times as fast "
          f"as apart, kept between them {row['speedup_kept']:.2f} times; "
          f"{row['kept_mib_per_image']:.2f} MiB an image", flush=True)  # fmt: skip
    return row


def run(
    runner: ModelRunner, configs: list[PruningConfig], size: int, images: int
) -> list[RangeResult]:
    out: list[RangeResult] = []
    for first in range(0, len(configs), size):
        out += runner.run(configs[first : first + size], ImageRange("search", 0, images))
    return out


def ratio(of: list[float], to: list[float]) -> float:
    """The median over rounds."""
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


if __name__ == "__main__":
    main()
