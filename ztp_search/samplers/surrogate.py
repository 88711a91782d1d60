"""Regression of the loss on what configurations do to tokens, and trials where it promises most.

A point of the unit cube says little by itself: what counts is how many tokens each block computes
on, how many each layer drops or merges at which stage, and under which variants. On these the
logarithm of the loss is nearly linear, so that some hundred trials on a few images teach what
thousands of points do not (`benchmarks/samplers.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ztp_search.errors import BudgetError
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.methods import method_of
from ztp_search.pruning.tokens import token_counts
from ztp_search.samplers.adaptive import AdaptiveSampler, reflected
from ztp_search.samplers.base import Point
from ztp_search.samplers.best import Result, best
from ztp_search.samplers.monte_carlo import uniform
from ztp_search.space.decoder import Decoder

Floats = npt.NDArray[np.float64]

LEAST_LOSS = 1e-3
"""Added before the logarithm is taken, so that no lucky trial counts for many."""
RIDGES = tuple(10.0**k for k in np.arange(-1.0, 3.5, 0.5))
"""Penalties on standardised coefficients, of which cross-validation chooses one."""


class Surrogate(AdaptiveSampler):
    """Thompson sampling from a Bayesian ridge regression (Thompson 1933; Hoerl and Kennard 1970).

    The first generation is uniform, and so is a quarter of each later one, which keeps the
    regression honest. Every other point is the best of a pool under coefficients that are drawn
    from their posterior: the more certain the regression is, the more alike the points. The pool
    holds uniform points and such as lie near the best.
    """

    generation = 64
    """Few enough that 256 trials learn three times, and enough to keep many workers busy."""
    explored = 16
    """Of a generation: uniform points."""
    candidates = 8
    """Uniform points of the pool for each of the generation; half as many lie near the best."""
    parents = 16
    width = 0.15

    def __init__(self, decoder: Decoder, seed: int, seen: set[bytes] | None = None) -> None:
        super().__init__(decoder, seed, seen)
        self._points: list[Result] = []
        self._rows: list[Floats] = []
        self._targets: list[float] = []

    def update(self, results: Sequence[Result]) -> None:
        for point, value in results:
            self._rows.append(self._features(self.decoder.decode(point)))
            self._targets.append(math.log(LEAST_LOSS + max(0.0, -value)))
        self._points = best([*self._points, *results], self.parents)

    def draw(self, start: int) -> list[Point]:
        numbers = range(start, start + self.generation)
        points = [tuple(uniform(self.seed, i, 0, self.decoder.dimensions)) for i in numbers]
        if not self._rows:
            return points
        generator = np.random.default_rng([self.seed, start])
        pool, rows = self._pool(generator)
        promised = _promises(
            np.array(self._rows), np.array(self._targets), rows,
            self.generation - self.explored, generator,
        )  # fmt: skip
        points[self.explored :] = [pool[index] for index in promised]
        return points

    def _pool(self, generator: np.random.Generator) -> tuple[list[Point], Floats]:
        """Candidates that meet the budget, and their features, (candidates, features)."""
        count = self.candidates * self.generation
        drawn = generator.random((count, self.decoder.dimensions)).tolist()
        drawn += [self._near_the_best(generator) for _ in range(count // 2)]
        pool, rows = [], []
        for point in drawn:
            try:
                rows.append(self._features(self.decoder.decode(point)))
            except BudgetError:
                continue
            pool.append(tuple(point))
        return pool, np.array(rows)

    def _near_the_best(self, generator: np.random.Generator) -> list[float]:
        """One of the best points, moved in one to four coordinates."""
        point = list(self._points[int(generator.integers(len(self._points)))][0])
        count = min(len(point), int(generator.integers(1, 5)))
        for column in generator.choice(len(point), size=count, replace=False).tolist():
            point[column] = reflected(point[column] + float(generator.normal(0.0, self.width)))
        return point

    def _features(self, config: PruningConfig) -> Floats:
        """What a configuration does, (features,): the same numbers in the same order for all."""
        decoder, method = self.decoder, method_of(config)
        tokens = np.array(token_counts(decoder.geometry, config), np.float64)
        log_tokens = np.log(tokens / tokens[0])
        kinds = len(method.fates)
        taken = np.zeros((decoder.geometry.depth + 1, kinds))  # by block and what becomes of them
        prefix = decoder.geometry.prefix_tokens
        for layer in config.layers:
            block = layer.after_block
            arriving, left = (round(tokens[i]) - prefix for i in (block - 1, block))
            taken[block] = method.taken_out(config, layer, arriving, left)
        taken /= decoder.geometry.patch_tokens
        chosen = np.array(
            [
                float(getattr(config, name) == value)
                for name in method.choices
                for value in decoder.space.offers(name)[1:]
            ]
        )
        scales = [math.log(getattr(config, name) + LEAST_LOSS) for name in method.scales]
        together = np.outer(taken.sum(0), chosen).ravel()  # a variant matters by what it decides
        parts = (log_tokens, log_tokens**2, taken.ravel(), chosen, together, scales)
        return np.concatenate([np.asarray(part, np.float64) for part in parts])


def _promises(
    rows: Floats, targets: Floats, pool: Floats, count: int, generator: np.random.Generator
) -> list[int]:
    """Rows of the pool that are best under as many draws of the coefficients, none twice."""
    centre, scale = rows.mean(0), rows.std(0)
    used = scale > 0  # what differs between the trials
    x = (rows[:, used] - centre[used]) / scale[used]  # (trials, features)
    candidates = (pool[:, used] - centre[used]) / scale[used]
    y = targets - targets.mean()
    u, s, vt = np.linalg.svd(x, full_matrices=False)
    projected = u.T @ y
    ridge, noise = min(
        (_cross_validated(s, projected, y, ridge) for ridge in RIDGES), key=lambda each: each[2]
    )[:2]
    mean = projected * s / (s**2 + ridge)  # in the coordinates of vt
    spread = np.sqrt(noise / (s**2 + ridge))
    inside = candidates @ vt.T  # (candidates, rank)
    chosen: list[int] = []
    for _ in range(min(count, len(pool))):
        draw = mean + spread * generator.standard_normal(len(s))
        predicted = inside @ draw
        predicted[chosen] = np.inf
        chosen.append(int(predicted.argmin()))
    return chosen


def _cross_validated(
    s: Floats, projected: Floats, y: Floats, ridge: float
) -> tuple[float, float, float]:
    """A penalty, its noise variance, and its generalised cross-validation (Golub et al. 1979)."""
    shrink = s**2 / (s**2 + ridge)
    residual = float((y**2).sum() - ((2.0 - shrink) * shrink * projected**2).sum())
    left = len(y) - 1.0 - float(shrink.sum())  # degrees of freedom
    left = max(left, 1.0)
    return ridge, residual / left, len(y) * residual / left**2
