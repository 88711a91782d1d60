"""Configurations per second that the Monte Carlo sampler proposes on one core, all within budget.

    python benchmarks/sampler.py [--count 1000000] [--space deit_small] [--budget 3.08]

To reach: 1,000 a second; none outside the tolerance; under 1 % of the shares of tokens that layers
keep at their least; as fast at the end as at the beginning, and at most 100 bytes a configuration
for the set of digests that keeps configurations from coming twice.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import timm
from common import record

from ztp_search.backbones import geometry_of
from ztp_search.pruning.budget import parse_budget
from ztp_search.pruning.rounding import round_half_up
from ztp_search.pruning.tokens import token_counts
from ztp_search.samplers import MonteCarlo
from ztp_search.space import load_space
from ztp_search.space.decoder import Decoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--space", default="deit_small")
    parser.add_argument("--budget", default="3.08")
    args = parser.parse_args()
    space = load_space(args.space)
    model = timm.create_model(space.model["name"], **space.model.get("kwargs", {}))
    geometry = geometry_of(model)
    decoder = Decoder(space, geometry, parse_budget(args.budget, geometry))
    sampler = MonteCarlo(decoder, seed=0)
    cost_model = decoder.budget.cost_model(geometry)
    kept = {block.block: block.kept for block in decoder.blocks}
    outside = at_bound = idle = shares = 0
    used = 0.0
    speeds, memory = [], [resident_mib()]
    began = last = time.perf_counter()
    for index in range(args.count):
        proposal = sampler.propose(index)
        assert proposal is not None
        config = proposal.config
        cost = cost_model.total(config)
        outside += not decoder.budget.holds(cost)
        used += cost / decoder.budget.macs
        tokens = [count - geometry.prefix_tokens for count in token_counts(geometry, config)]
        for layer in config.layers:
            shares += 1
            n_in, n_out = tokens[layer.after_block - 1 : layer.after_block + 1]
            idle += n_out == n_in
            at_bound += n_out <= round_half_up(kept[layer.after_block][0] * n_in)
        if (index + 1) % max(1, args.count // 10) == 0:
            now = time.perf_counter()
            speeds.append(max(1, args.count // 10) / (now - last))
            last = now
            memory.append(resident_mib())
    result = {
        "arguments": vars(args),
        "configurations_per_second": args.count / (time.perf_counter() - began),
        "per_tenth_of_the_run": speeds,
        "outside_tolerance": outside,
        "budget_used": used / args.count,
        "shares_kept_that_stand_at_their_least": at_bound / shares,
        "layers_that_round_to_pruning_nothing": idle / shares,
        "resident_mib_before_and_after_each_tenth": memory,
    }
    for key, value in result.items():
        print(f"{key}: {value}")
    record("sampler", result)


def resident_mib() -> float:
    """Memory of this process, all libraries included (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
