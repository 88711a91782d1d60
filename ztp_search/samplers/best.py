"""The best of a history."""

from __future__ import annotations

from collections.abc import Sequence

from ztp_search.samplers.base import Point

Result = tuple[Point, float]


def best(results: Sequence[Result], count: int) -> list[Result]:
    """The best `count` of them, best first; of equals the first."""
    return sorted(results, key=lambda result: -result[1])[:count]
