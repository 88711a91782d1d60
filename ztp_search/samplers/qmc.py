"""Quasi-Monte Carlo: points that leave fewer holes in the cube than independent ones do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ztp_search.samplers.base import Sampler
from ztp_search.samplers.monte_carlo import uniform

CHUNK = 256
"""Points drawn at once: making a sequence costs milliseconds, a point of it microseconds."""


class QuasiMonteCarlo(Sampler):
    """Point i of the Sobol' sequence (Owen 1998, scrambled by the seed).

    Drawn from scipy.stats.qmc, as Optuna's QMCSampler does: that one counts the points it has
    handed out in its study, so its point i is not to be had from the seed and i alone. A point
    that is no new configuration is replaced by uniform ones.
    """

    _chunk = -1
    _points: Sequence[Sequence[float]] = ()

    def point(self, index: int, attempt: int) -> Sequence[float]:
        if attempt:
            return uniform(self.seed, index, attempt, self.decoder.dimensions)
        chunk, row = divmod(index, CHUNK)
        if chunk != self._chunk:
            self._points, self._chunk = self._draw(chunk), chunk
        return self._points[row]

    def _draw(self, chunk: int) -> list[list[float]]:
        from scipy.stats import qmc  # half a second to import, for this sampler alone

        generator = np.random.default_rng([self.seed])
        sequence = qmc.Sobol(self.decoder.dimensions, scramble=True, rng=generator)
        if chunk:
            sequence.fast_forward(chunk * CHUNK)
        points: list[list[float]] = sequence.random(CHUNK).tolist()
        return points
