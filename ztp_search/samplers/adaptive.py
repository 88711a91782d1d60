"""What samplers that adapt to results share: points are drawn a generation at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from ztp_search.samplers.base import Point, Sampler
from ztp_search.samplers.best import Result
from ztp_search.samplers.monte_carlo import uniform
from ztp_search.space.decoder import Decoder

NEIGHBOURS = 64
"""Attempts that move the drawn point, ever farther; those after it are uniform."""
LEAST_MOVE = 0.004
DECIMALS = 8
"""Drawn points are rounded, so that another machine's linear algebra, which may differ in the
last bits, hardly ever changes one."""


class AdaptiveSampler(Sampler):
    """Draws the points of a generation at once, from the results so far and (seed, start) alone.

    So a resumed study, which reports the same results, has the same points drawn, also from the
    middle of a generation. A generation may turn out shorter or longer than `generation`; the next
    one begins behind it.
    """

    generation: int = 32

    def __init__(self, decoder: Decoder, seed: int, seen: set[bytes] | None = None) -> None:
        super().__init__(decoder, seed, seen)
        self._next_start = 0
        self._drawn_at = -1
        self._drawn: list[Point] = []

    @abstractmethod
    def draw(self, start: int) -> Sequence[Sequence[float]]:
        """The `generation` points to try from trial `start` on, whatever was drawn before."""

    @abstractmethod
    def update(self, results: Sequence[Result]) -> None:
        """Adapt to points and values of one generation, in order of trial number."""

    def point(self, index: int, attempt: int) -> Sequence[float]:
        """The drawn point; after it points near by, then ever farther, then anywhere."""
        if attempt > NEIGHBOURS:
            return uniform(self.seed, index, attempt, self.decoder.dimensions)
        drawn = self._drawn_point(index)
        if attempt == 0:
            return drawn
        width = LEAST_MOVE ** (1 - attempt / NEIGHBOURS)
        generator = np.random.default_rng([self.seed, index, attempt])
        steps = generator.normal(0.0, width, self.decoder.dimensions)
        return [reflected(u + step) for u, step in zip(drawn, steps.tolist(), strict=True)]

    def tell(
        self, start: int, points: Sequence[Point], values: Sequence[float | None]
    ) -> None:
        """A failed trial counts as the worst of its generation: a reason to keep off."""
        succeeded = [value for value in values if value is not None]
        if succeeded:
            worst = min(succeeded)
            filled = [worst if value is None else value for value in values]
            self.update([(tuple(p), value) for p, value in zip(points, filled, strict=True)])
        self._next_start = start + len(points)
        self._drawn_at = -1

    def _drawn_point(self, index: int) -> Point:
        if index < self._next_start:
            raise ValueError(
                f"trials must be proposed in ascending order, but got {index} after results up to "
                f"trial {self._next_start - 1}"
            )
        start = index - (index - self._next_start) % self.generation
        if start != self._drawn_at:
            self._drawn = [tuple(round(u, DECIMALS) for u in point) for point in self.draw(start)]
            self._drawn_at = start
        return self._drawn[index - start]


def reflected(u: float) -> float:
    """u folded back into [0, 1] at both ends."""
    u = abs(u) % 2.0
    return 2.0 - u if u > 1.0 else u
