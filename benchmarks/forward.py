"""Pruned forward against what the GFLOPs ratio promises, stock timm with fused attention beside it.

    python benchmarks/forward.py [--device cpu|cuda] [--batch-size 16] [--rounds 15]

Both Table 1 settings of the paper on the DeiT-S geometry (random weights: time does not depend on
them), bf16. Stock and pruned take turns in one run, and the median over rounds of the ratio
(pruned images/s) / (stock images/s x unpruned GFLOPs / pruned GFLOPs) is printed. To reach: 0.9.
"""

from __future__ import annotations

import argparse
import statistics
import time

import timm
import torch
from common import record

from ztp_search.backbones import geometry_of, pruner_of
from ztp_search.config import PruningConfig, PruningLayer
from ztp_search.cost import flops

SETTINGS = {
    "table 1, I-stage + S-stage": [
        (1, 1.0, 10, 30), (3, 0.9, 10, 5), (6, 0.8, 10, 5), (9, 0.7, 10, 1), (11, 1.0, 10, 1),
    ],
    "table 1, I-stage only": [(3, 0.8, 0, 5), (6, 0.7, 0, 5), (9, 0.7, 0, 1), (11, 0.6, 0, 1)],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--model", default="deit_small_patch16_224")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = timm.create_model(args.model).to(args.device, torch.bfloat16).eval()
    images = torch.randn(args.batch_size, 3, 224, 224, device=args.device, dtype=torch.bfloat16)
    geometry, pruner = geometry_of(model), pruner_of(model)
    rows = {}
    for name, layers in SETTINGS.items():
        config = PruningConfig(tuple(PruningLayer(*layer) for layer in layers))
        cost = flops(geometry, config)
        ratios, stock_speeds, pruned_speeds = [], [], []
        for round_ in range(args.rounds + 2):
            pruner.set(None)
            stock = _seconds(model, images)
            pruner.set(config)
            pruned = _seconds(model, images)
            if round_ >= 2:  # warm-up
                ratios.append(stock * cost.total / cost.unpruned / pruned)
                stock_speeds.append(args.batch_size / stock)
                pruned_speeds.append(args.batch_size / pruned)
        rows[name] = {
            "gflops": cost.gflops(),
            "stock_images_per_second": statistics.median(stock_speeds),
            "pruned_images_per_second": statistics.median(pruned_speeds),
            "speedup": statistics.median(pruned_speeds) / statistics.median(stock_speeds),
            "promised_speedup": cost.unpruned / cost.total,
            "share_of_promise": statistics.median(ratios),
            "share_of_promise_quartiles": statistics.quantiles(ratios, n=4)[::2],
        }
        print(f"{name}: {rows[name]['share_of_promise']:.3f} of the promise "
              f"({rows[name]['speedup']:.3f} of {rows[name]['promised_speedup']:.3f} times)")
    record(f"forward_{args.device}", {"arguments": vars(args), "settings": rows})


def _seconds(model: torch.nn.Module, images: torch.Tensor) -> float:
    with torch.inference_mode():
        if images.is_cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        model(images)
        if images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - began


if __name__ == "__main__":
    main()
