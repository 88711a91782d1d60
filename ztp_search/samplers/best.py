"""The best of the results so far."""

from __future__ import annotations

from collections.abc import Sequence

from ztp_search.samplers.base import Point

Result = tuple[Point, float]
"""A point and the value that its trial came to; more is better."""


def best(results: Sequence[Result], count: int) -> list[Result]:
    """The `count` results of highest value, best first; of equals the first."""
    return sorted(results, key=lambda result: -result[1])[:count]
