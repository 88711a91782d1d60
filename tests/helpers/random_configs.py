"""Random valid configurations, which the cost tests share."""

from __future__ import annotations

import random
from typing import Any

from helpers import reference

from ztp_search.pruning.config import CHOICES, PruningConfig, PruningLayer
from ztp_search.pruning.geometry import Geometry


def random_config(rng: random.Random, geometry: Geometry, least_layers: int = 1) -> PruningConfig:
    """A valid configuration of any variant.

    One in five of its rates is 1, one in four of its layers has s = 0, and one in three each merge
    none, some or all of what the I-stage prunes.
    """
    variant: dict[str, Any] = {name: rng.choice(choices) for name, choices in CHOICES.items()}
    n, layers = geometry.patch_tokens, []
    count = rng.randint(least_layers, geometry.depth - 1)
    for block in sorted(rng.sample(range(1, geometry.depth), count)):
        retention = rng.choice([1.0, *(rng.uniform(0.2, 1.0) for _ in range(4))])
        ranked = n if variant["order"] == "i'-s-i" else reference.round_half_up(retention, n)
        s_tokens = rng.choice([0, *(rng.randint(0, ranked // 2) for _ in range(3))])
        merge_share = rng.choice([0.0, round(rng.random(), 2), 1.0])
        layers.append(PruningLayer(block, retention, s_tokens, rng.randint(1, 30), merge_share))
        n = reference.patch_tokens_kept(n, retention, s_tokens)
    return PruningConfig(tuple(layers), **variant)
