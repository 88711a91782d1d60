"""How a share of tokens becomes a number of tokens."""

from __future__ import annotations

import math


def round_half_up(value: float) -> int:
    """Round to the nearest integer, halves up.

    A product such as 0.7 * 105 is 73.49999999999999 in binary; the 1e-9 honours the decimal.
    """
    return math.floor(value + 0.5 + 1e-9)


def units_within(interval: tuple[float, float], unit: int) -> tuple[int, int]:
    """Least and most multiple of 1 / unit in an interval, ends included; least > most if none."""
    low, high = interval
    return math.ceil(low * unit - 1e-6), math.floor(high * unit + 1e-6)
