"""Random valid configurations, which the cost tests share."""

from __future__ import annotations

import random
from typing import Any

from helpers import reference

from ztp_search.pruning.config import CHOICES, PruningConfig, PruningLayer
from ztp_search.pruning.geometry import Geometry


def random_config(rng: random.Random, geometry: Geometry) -> PruningConfig:
    """A valid configuration; one in five of its rates is 1, one in four of its layers has s = 0."""
    variant: dict[str, Any] = {name: rng.choice(choices) for name, choices in CHOICES.items()}
    n, layers = geometry.patch_tokens, []
    for block in sorted(rng.sample(range(1, geometry.depth), rng.randint(1, geometry.depth - 1))):
        retention = rng.choice([1.0, *(rng.uniform(0.2, 1.0) for _ in range(4))])
        ranked = n if variant["order"] == "i'-s-i" else reference.round_half_up(retention, n)
        s_tokens = rng.choice([0, *(rng.randint(0, ranked // 2) for _ in range(3))])
        layers.append(PruningLayer(block, retention, s_tokens, rng.randint(1, 30)))
        n = reference.patch_tokens_kept(n, retention, s_tokens)
    return PruningConfig(tuple(layers), **variant)
