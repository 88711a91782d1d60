"""Pruned forward against what the GFLOPs ratio promises, stock timm with fused attention beside it.

    python benchmarks/forward.py [--device cpu|cuda] [--models deit_tiny deit_small deit_base]
                                 [--budgets 50% 67% 85%] [--rounds 15] [--profile]

Per model and budget: trial 0 of the shipped space's paper part and of its merging part (sizes
tracked) under Monte Carlo with seed 0; the paper's schedule and ToMe's (a layer behind every block)
solved to the budget, and ToMe's with tokens ranked by importance and compared by the block's
output; of DeiT-S also both Table 1 settings of the paper.
bf16, batches of 16, on a GPU of 256 and 512; random weights, as the same operations run on the
same shapes whatever the weights are. Stock and pruned take turns in one process, and the median
over rounds of the ratio

    (pruned images/s) / (stock images/s x unpruned GFLOPs / pruned GFLOPs)

is the share of the promise. To reach: 0.95. Stock without fused attention takes its turns too, as
there are processors on which it is the faster. --profile says where the time goes.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import timm
import torch
from common import record
from profile_forward import milliseconds_by_stage

from ztp_search.backbones import Pruner, geometry_of, pruner_of
from ztp_search.pruning.budget import parse_budget
from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.pruning.cost import flops
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.schedules import paper_schedule, tome_schedule
from ztp_search.samplers import MonteCarlo
from ztp_search.space import load_space
from ztp_search.space.decoder import Decoder

TABLE_1 = {
    "table 1, I-stage + S-stage": [
        (1, 1.0, 10, 30), (3, 0.9, 10, 5), (6, 0.8, 10, 5), (9, 0.7, 10, 1), (11, 1.0, 10, 1),
    ],
    "table 1, I-stage only": [(3, 0.8, 0, 5), (6, 0.7, 0, 5), (9, 0.7, 0, 1), (11, 0.6, 0, 1)],
}  # fmt: skip
"""Of the paper, on DeiT-S: (after_block, retention, s_tokens, wpr_iterations)."""
WARM_UP_ROUNDS = 2
PROFILE_ROUNDS = 5
LEAST_SECONDS = 0.2
"""Of one measurement: so many forwards follow one another."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--models", nargs="+", default=["deit_tiny", "deit_small", "deit_base"],
                        help="shipped spaces, by name")
    parser.add_argument("--budgets", nargs="+", default=["50%", "67%", "85%"])
    parser.add_argument("--batch-sizes", type=int, nargs="+",
                        help="default 16, on a GPU 256 and 512")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--profile", action="store_true", help="also say where the time goes")
    args = parser.parse_args()
    args.batch_sizes = args.batch_sizes or ([16] if args.device == "cpu" else [256, 512])
    torch.set_num_threads(args.threads)
    rows = []
    for name in args.models:
        model = timm.create_model(load_space(name).model["name"].partition(".")[0])
        model = model.to(args.device, torch.bfloat16).eval()
        for batch_size in args.batch_sizes:
            images = torch.randn(batch_size, *model.pretrained_cfg["input_size"])
            images = images.to(args.device, torch.bfloat16)
            for setting, config in settings(name, geometry_of(model), args.budgets).items():
                row = {"model": name, "batch_size": batch_size, "setting": setting}
                row |= measure(pruner_of(model), images, config, args.rounds)
                print(f"{name}, batch {batch_size}, {setting}: "
                      f"{row['share_of_promise']:.3f} of the promise ({row['speedup']:.3f} "
                      f"of {row['promised_speedup']:.3f} times)", flush=True)  # fmt: skip
                if args.profile:
                    row["ms_per_image"] = profile(pruner_of(model), images, config)
                rows.append(row)
    shares = [row["share_of_promise"] for row in rows]
    result = {"least_share_of_promise": min(shares), "median": statistics.median(shares)}
    print(f"least {min(shares):.3f}, median {statistics.median(shares):.3f}")
    record(f"forward_{args.device}", {"arguments": vars(args), **result, "settings": rows})


def settings(name: str, geometry: Geometry, budgets: list[str]) -> dict[str, PruningConfig]:
    """What is measured of one model."""
    out = {}
    if name == "deit_small":
        for setting, layers in TABLE_1.items():
            out[setting] = PruningConfig(tuple(PruningLayer(*layer) for layer in layers))
    space = load_space(name)
    for text in budgets:
        budget = parse_budget(text, geometry)
        for method in ("zero-tprune", "merge"):
            decoder = Decoder(space.restricted(method), geometry, budget)
            proposal = MonteCarlo(decoder, seed=0).propose(0)
            assert proposal is not None
            out[f"{text}, {method}, Monte Carlo"] = proposal.config
        schedule = paper_schedule(geometry, budget, "declining")
        if schedule is not None:
            out[f"{text}, paper's schedule"] = schedule
        tome = tome_schedule(geometry, budget, "declining")
        if tome is not None:
            out[f"{text}, ToMe's schedule"] = tome
            ranked = dataclasses.replace(tome, partition="alternate", features="x")
            out[f"{text}, ToMe's schedule, ranked"] = ranked
    return out


def measure(
    pruner: Pruner, images: torch.Tensor, config: PruningConfig, rounds: int
) -> dict[str, Any]:
    """Images/s of both, in turns, and what the GFLOPs promise."""
    cost = flops(pruner.geometry, config)
    promised = cost.unpruned / cost.total
    stock: list[float] = []
    unfused: list[float] = []
    pruned: list[float] = []
    for round_ in range(WARM_UP_ROUNDS + rounds):
        pruner.set(None)
        speeds = [len(images) / seconds(pruner.model, images)]
        with without_fused_attention(pruner.model):
            speeds.append(len(images) / seconds(pruner.model, images))
        pruner.set(config)
        speeds.append(len(images) / seconds(pruner.model, images))
        if round_ >= WARM_UP_ROUNDS:
            for taken, speed in zip((stock, unfused, pruned), speeds, strict=True):
                taken.append(speed)
    pruner.set(None)
    shares = [mine / theirs / promised for mine, theirs in zip(pruned, stock, strict=True)]
    return {
        "config": config.to_dict(),
        "gflops": cost.gflops(),
        "stock_images_per_second": statistics.median(stock),
        "stock_unfused_images_per_second": statistics.median(unfused),
        "pruned_images_per_second": statistics.median(pruned),
        "speedup": statistics.median(shares) * promised,
        "promised_speedup": promised,
        "share_of_promise": statistics.median(shares),
        "share_of_promise_quartiles": statistics.quantiles(shares, n=4)[::2],
    }


@contextmanager
def without_fused_attention(model: Any) -> Iterator[None]:
    attentions = [block.attn for block in model.blocks]
    fused = [attn.fused_attn for attn in attentions]
    for attn in attentions:
        attn.fused_attn = False
    try:
        yield
    finally:
        for attn, was in zip(attentions, fused, strict=True):
            attn.fused_attn = was


def seconds(model: torch.nn.Module, images: torch.Tensor) -> float:
    """Of one forward, over as many as make a measurement."""
    with torch.inference_mode():
        first = _forwards(model, images, 1)
        repeats = math.ceil(LEAST_SECONDS / first)
        return first if repeats == 1 else _forwards(model, images, repeats) / repeats


def _forwards(model: torch.nn.Module, images: torch.Tensor, repeats: int) -> float:
    if images.is_cuda:
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(repeats):
        model(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began


def profile(
    pruner: Pruner, images: torch.Tensor, config: PruningConfig
) -> dict[str, dict[str, float]]:
    """Milliseconds per image of each stage, stock and pruned; printed as a table."""
    taken: dict[str, dict[str, list[float]]] = {}
    for _ in range(PROFILE_ROUNDS):
        for which, chosen in (("stock", None), ("pruned", config)):
            pruner.set(chosen)
            for stage, ms in milliseconds_by_stage(pruner.model, images).items():
                taken.setdefault(stage, {}).setdefault(which, []).append(ms)
    pruner.set(None)
    table = {
        stage: {which: statistics.median(ms) for which, ms in of.items()}
        for stage, of in taken.items()
    }
    total = sum(of.get("pruned", 0.0) for of in table.values())
    for stage, of in table.items():
        share = of.get("pruned", 0.0) / total
        print(f"  {stage:28} ms/image: stock {of.get('stock', 0.0):7.3f}  "
              f"pruned {of.get('pruned', 0.0):7.3f}  {share:6.1%} of pruned")  # fmt: skip
    return table


if __name__ == "__main__":
    main()
