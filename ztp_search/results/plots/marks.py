"""Traces and axes that several plots share, as Plotly's JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ztp_search.pruning.schedules import BASELINES
from ztp_search.results.plots.theme import colour

SYMBOLS = ("square", "diamond", "triangle-up", "pentagon", "hexagon", "star")
"""Of the baselines, in their order."""


def percent(fraction: float) -> float:
    """In %, to a thousandth: enough to draw."""
    return round(100 * fraction, 3)


def label(baseline: str) -> str:
    """What a legend calls a baseline."""
    return f"{BASELINES[baseline].label} schedule"


def dots(
    name: str, x: Iterable[Any], y: Iterable[Any], role: str, hover: Sequence[str] | None = None,
    size: float = 8, symbol: str = "circle", opacity: float = 1.0, **more: Any,
) -> dict[str, Any]:  # fmt: skip
    """A trace of marks. role: what they stand for, by which they are coloured."""
    marker = {"color": colour(role), "size": size, "symbol": symbol, "opacity": opacity}
    trace = {"type": "scatter", "mode": "markers", "name": name, "x": list(x), "y": list(y),
             "marker": marker}  # fmt: skip
    if hover is not None:
        trace |= {"text": list(hover), "hovertemplate": "%{text}<extra></extra>"}
    return trace | more


def baseline_dot(name: str, x: Sequence[float], y: Sequence[float], **more: Any) -> dict[str, Any]:
    """A hand-set schedule."""
    symbol = SYMBOLS[list(BASELINES).index(name) % len(SYMBOLS)]
    return dots(label(name), x, y, name, size=10, symbol=symbol, **more)


def line(name: str, x: Iterable[Any], y: Iterable[Any], role: str, **style: Any) -> dict[str, Any]:
    """A trace of straight lines. style: of Plotly's line: dash, shape, width."""
    return {"type": "scatter", "mode": "lines", "name": name, "x": list(x), "y": list(y),
            "line": {"color": colour(role), "width": 2, **style}}  # fmt: skip


def bars_of(values: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> Mapping[
    str, Any
]:  # fmt: skip
    """Error bars from lows to highs, in % of fractions."""
    return {
        "type": "data", "symmetric": False, "thickness": 1, "width": 3,
        "array": [percent(max(0.0, high - value))
                  for value, high in zip(values, highs, strict=True)],
        "arrayminus": [percent(max(0.0, value - low))
                       for value, low in zip(values, lows, strict=True)],
    }  # fmt: skip


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with a title."""
    return {"title": {"text": title}, **more}
