"""Local refinement: small moves of the best points so far."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ztp_search.samplers.adaptive import AdaptiveSampler, reflected
from ztp_search.samplers.base import Point
from ztp_search.samplers.best import Result, best
from ztp_search.samplers.monte_carlo import uniform
from ztp_search.space.decoder import Decoder


class Refine(AdaptiveSampler):
    """(mu + lambda) evolution: each point is one of the best, moved in one to three coordinates.

    It is told of every generation of a study, the main sampler's too. Only coordinates that
    decide something in the parent are moved: the set of locations, the thresholds, and those of
    blocks that a pruning layer follows. Wide and narrow steps are mixed throughout: no schedule
    has to guess how many generations there will be, and none is lost to a width gone stale.
    """

    generation = 16
    """Small: the best of one generation are the parents of the next."""
    parents = 8
    """Enough that a value which noise has raised does not lead all moves."""
    widths = (0.4, 0.2, 0.1)
    """Standard deviations; wide ones, as meeting the budget takes back a part of each move."""

    def __init__(self, decoder: Decoder, seed: int, seen: set[bytes] | None = None) -> None:
        super().__init__(decoder, seed, seen)
        self._best: list[Result] = []

    def draw(self, start: int) -> list[Sequence[float]]:
        return [self._child(index) for index in range(start, start + self.generation)]

    def update(self, results: Sequence[Result]) -> None:
        self._best = best([*self._best, *results], self.parents)

    def _child(self, index: int) -> Sequence[float]:
        if not self._best:
            return uniform(self.seed, index, 0, self.decoder.dimensions)
        generator = np.random.default_rng([self.seed, index, 0])
        rank = generator.integers(len(self._best), size=2).min()  # the better of two parents
        child = list(self._best[rank][0])
        columns = self._columns(self._best[rank][0])
        width = generator.choice(self.widths)
        count = min(len(columns), int(generator.integers(1, 4)))
        for column in generator.choice(columns, size=count, replace=False).tolist():
            child[column] = reflected(child[column] + float(generator.normal(0.0, width)))
        return child

    def _columns(self, point: Point) -> list[int]:
        """Coordinates that decide something at this point."""
        blocks = {f"block{layer.after_block:02d}" for layer in self.decoder.decode(point).layers}
        return [
            i for i, name in enumerate(self.decoder.names)
            if name.split(".")[0] in blocks or "." not in name
        ]
