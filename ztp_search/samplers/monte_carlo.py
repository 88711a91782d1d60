"""Plain Monte Carlo, as the paper searches: independent uniform points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ztp_search.samplers.base import Sampler


class MonteCarlo(Sampler):
    """A point drawn uniformly from the unit cube, from (seed, index, attempt) alone."""

    def point(self, index: int, attempt: int) -> Sequence[float]:
        generator = np.random.default_rng([self.seed, index, attempt])
        point: list[float] = generator.random(self.decoder.dimensions).tolist()
        return point
