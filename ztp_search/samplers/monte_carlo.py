"""Plain Monte Carlo, as the paper searches: independent uniform points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ztp_search.samplers.base import Sampler


class MonteCarlo(Sampler):
    """A point drawn uniformly from the unit cube, from (seed, index, attempt) alone."""

    def point(self, index: int, attempt: int) -> Sequence[float]:
        return uniform(self.seed, index, attempt, self.decoder.dimensions)


def uniform(seed: int, index: int, attempt: int, dimensions: int) -> list[float]:
    """The uniform point of this attempt at trial `index`, coordinates in [0, 1)."""
    point: list[float] = np.random.default_rng([seed, index, attempt]).random(dimensions).tolist()
    return point
