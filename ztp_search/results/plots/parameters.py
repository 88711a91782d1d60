"""What the top trials have in common: their parameters beside those of all trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ztp_search.pruning.methods import DEFAULT_METHOD, METHODS, Method, method_of
from ztp_search.results.plots.base import TOP, Found, Plot
from ztp_search.results.plots.marks import axis
from ztp_search.results.plots.theme import colour, see_through
from ztp_search.study import StoredTrial

ENOUGH = 2 * TOP
"""Trials of which a tenth says anything."""
PARTS = 4
"""Ranges into which the values of a scale are divided, as many trials in each."""
GROUPS = (("all trials", "trial"), ("top tenth", "best"))


class Layers(Plot):
    """Where pruning layers stand, and what they do there."""

    title = "The top tenth: pruning layers"
    caption = (
        "Per block: how many of the trials have a pruning layer behind it, and the values of "
        "these layers as boxes from the lower to the upper quartile (whiskers from the 5th to "
        "the 95th percentile), of all trials in grey and of the top tenth in blue."
    )
    height = 760

    def lacks(self, found: Found) -> str | None:
        return _too_few(found)

    def draw(self, found: Found) -> dict[str, Any]:
        method = _method(found)
        blocks = list(range(1, int(found.contract["geometry"]["depth"])))
        panels = ("share of trials, %", *method.neutral)
        data: list[dict[str, Any]] = []
        layout: dict[str, Any] = {
            "barmode": "group", "boxmode": "group",
            "xaxis": axis("after block", dtick=1 if len(blocks) < 25 else 4,
                          anchor=f"y{len(panels)}"),
        }  # fmt: skip
        height = 1 / len(panels)
        for panel, title in enumerate(panels):
            top = 1 - panel * height
            layout["yaxis" if panel == 0 else f"yaxis{panel + 1}"] = axis(
                title.replace("_", " "), domain=[max(0.0, top - 0.82 * height), top]
            )
        for (name, role), trials in zip(GROUPS, (found.standing, found.top), strict=True):
            layers = [
                {layer.after_block: layer for layer in trial.config.layers} for trial in trials
            ]
            share = [100 * sum(block in each for each in layers) / len(layers) for block in blocks]
            data.append(
                {"type": "bar", "name": name, "x": blocks, "y": [round(y, 1) for y in share],
                 "marker": {"color": colour(role)}, "legendgroup": name, "offsetgroup": name,
                 "hovertemplate": f"%{{y}} % of {name}<extra></extra>"}
            )  # fmt: skip
            for panel, field in enumerate(method.neutral, 2):
                values = [[float(getattr(each[block], field)) for each in layers if block in each]
                          for block in blocks]  # fmt: skip
                data.append(_boxes(name, role, blocks, values) | {"yaxis": f"y{panel}"})
        return {"data": data, "layout": layout}


class Choices(Plot):
    """The design variants and scales of configurations as a whole."""

    title = "The top tenth: choices of whole configurations"
    caption = (
        "How often each variant, and each quarter of the values of a threshold, occurs among all "
        "trials and among the top tenth: where blue is longer than grey, it is worth having."
    )
    height = 620

    def lacks(self, found: Found) -> str | None:
        return _too_few(found) or (
            None if _options(found) else "this search space leaves nothing but layers to be chosen"
        )

    def draw(self, found: Found) -> dict[str, Any]:
        options = _options(found)[::-1]  # from below
        data = []
        for (name, role), trials in zip(GROUPS, (found.standing, found.top), strict=True):
            share = [100 * sum(each.holds(trial) for trial in trials) / len(trials)
                     for each in options]  # fmt: skip
            data.append(
                {"type": "bar", "orientation": "h", "name": name,
                 "y": [[each.name for each in options], [each.option for each in options]],
                 "x": [round(x, 1) for x in share], "marker": {"color": colour(role)},
                 "hovertemplate": f"%{{x}} % of {name}<extra></extra>"}
            )  # fmt: skip
        return {
            "data": data,
            "layout": {
                "barmode": "group",
                "height": max(self.height, 34 * len(options) + 120),
                "xaxis": axis("share of trials, %"),
                "yaxis": {"type": "multicategory"},
                "legend": {"traceorder": "normal"},
            },
        }


class Option:
    """A value that a choice, or a range that a scale, may take."""

    def __init__(self, name: str, option: str, low: float | None, high: float | None) -> None:
        self.name, self.option = name, option
        self._low, self._high = low, high

    def holds(self, trial: StoredTrial) -> bool:
        value = getattr(trial.config, self.name)
        if self._low is None or self._high is None:
            return bool(value == self.option)
        return bool(self._low <= value < self._high)


def _options(found: Found) -> list[Option]:
    """All of those that the study's parameters leave open, in their order."""
    method, ranges = _method(found), found.contract.get("parameters", {})
    out = []
    for name in method.choices:
        if len(ranges.get(name, ())) > 1:
            out += [Option(name, str(each), None, None) for each in ranges[name]]
    for name in method.scales:
        drawn = [float(getattr(trial.config, name)) for trial in found.standing]
        edges = np.unique(np.quantile(drawn, np.linspace(0, 1, PARTS + 1))).tolist()
        for low, high in zip(edges, edges[1:], strict=False):
            end = np.inf if high == edges[-1] else high
            out.append(Option(name, f"{low:.3g} to {high:.3g}", low, end))
    return out


def _boxes(
    name: str, role: str, blocks: Sequence[int], values: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """Boxes of quartiles where there are values."""
    there = [(block, each) for block, each in zip(blocks, values, strict=True) if each]
    lines = {
        part: [round(float(np.percentile(each, percent)), 4) for _, each in there]
        for part, percent in (
            ("lowerfence", 5), ("q1", 25), ("median", 50), ("q3", 75), ("upperfence", 95),
        )
    }  # fmt: skip
    return {
        "type": "box", "name": name, "x": [block for block, _ in there], **lines,
        "line": {"color": colour(role), "width": 1.2}, "fillcolor": see_through(role, 0.35),
        "legendgroup": name, "showlegend": False, "hoverinfo": "y", "offsetgroup": name,
    }  # fmt: skip


def _method(found: Found) -> Method:
    if found.trials:
        return method_of(found.trials[0].config)
    return METHODS[DEFAULT_METHOD]


def _too_few(found: Found) -> str | None:
    there = len(found.standing)
    if there >= ENOUGH:
        return None
    return f"{there} trials have been evaluated, and a tenth says something from {ENOUGH} on"


def parameters_of(trials: Sequence[StoredTrial], depth: int) -> tuple[list[str], np.ndarray]:
    """Names of the parameters and their values, (trials, parameters); names as their places.

    Layers that do not stand have the values of a layer that prunes nothing.
    """
    method = method_of(trials[0].config)
    columns: dict[str, list[float]] = {}
    for block in range(1, depth):
        at = [{each.after_block: each for each in t.config.layers}.get(block) for t in trials]
        for field, neutral in method.neutral.items():
            columns[f"block{block:02d}.{field}"] = [
                float(neutral if layer is None else getattr(layer, field)) for layer in at
            ]
    for name, options in method.choices.items():
        places: Mapping[str, int] = {option: place for place, option in enumerate(options)}
        columns[name] = [float(places[getattr(trial.config, name)]) for trial in trials]
    for name in method.scales:
        columns[name] = [float(getattr(trial.config, name)) for trial in trials]
    return list(columns), np.array(list(columns.values())).T
