"""What samplers that learn share: points are asked for a generation at a time."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from ztp_search.samplers.base import Point, Sampler
from ztp_search.samplers.best import Result
from ztp_search.samplers.monte_carlo import uniform
from ztp_search.samplers.seen import Seen
from ztp_search.space.decoder import Decoder

MOVES = 64
"""Attempts that move the asked point, ever farther; those after it are uniform."""
LEAST_MOVE = 0.004
DECIMALS = 8
"""Asked points are rounded, so that another machine's linear algebra, which may differ in the
last bits, hardly ever changes one."""


class Learning(Sampler):
    """Asks for the points of a generation at once, from the history and (seed, start) alone.

    So a resumed study, which learns the same history, asks for the same points, also from the
    middle of a generation. A generation may be shorter or longer than `generation` when it is
    learned; the next one begins behind it.
    """

    generation: int = 32

    def __init__(self, decoder: Decoder, seed: int, seen: Seen | None = None) -> None:
        super().__init__(decoder, seed, seen)
        self._next = 0
        self._asked_at = -1
        self._asked: list[Point] = []

    @abstractmethod
    def ask(self, start: int) -> Sequence[Sequence[float]]:
        """The `generation` points to try from trial `start` on, whatever was asked before."""

    @abstractmethod
    def tell(self, results: Sequence[Result]) -> None:
        """Take in points and values of one generation, in order of trial number."""

    def point(self, index: int, attempt: int) -> Sequence[float]:
        """The asked point; after it points near by, then ever farther, then anywhere."""
        if attempt > MOVES:
            return uniform(self.seed, index, attempt, self.decoder.dimensions)
        asked = self._point_asked(index)
        if attempt == 0:
            return asked
        width = LEAST_MOVE ** (1 - attempt / MOVES)
        generator = np.random.default_rng([self.seed, index, attempt])
        steps = generator.normal(0.0, width, self.decoder.dimensions)
        return [reflected(u + step) for u, step in zip(asked, steps.tolist(), strict=True)]

    def learn(
        self, start: int, points: Sequence[Point], values: Sequence[float | None]
    ) -> None:
        """A failed trial counts as the worst of its generation: a reason to keep off."""
        known = [value for value in values if value is not None]
        if known:
            told = [min(known) if value is None else value for value in values]
            self.tell([(tuple(p), value) for p, value in zip(points, told, strict=True)])
        self._next = start + len(points)
        self._asked_at = -1

    def _point_asked(self, index: int) -> Point:
        assert index >= self._next, f"trial {index} belongs to a generation that was learned"
        start = index - (index - self._next) % self.generation
        if start != self._asked_at:
            self._asked = [tuple(round(u, DECIMALS) for u in point) for point in self.ask(start)]
            self._asked_at = start
        return self._asked[index - start]


def reflected(u: float) -> float:
    """u folded back into [0, 1] at both ends."""
    u = abs(u) % 2.0
    return 2.0 - u if u > 1.0 else u
