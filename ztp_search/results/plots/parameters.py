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


class _ByBlock(Plot):
    """Panels below one another, over the blocks that pruning layers stand behind."""

    def lacks(self, found: Found) -> str | None:
        return _too_few(found)

    def panels(self, found: Found, titles: Sequence[str]) -> dict[str, Any]:
        """The axes of the panels, and no data yet."""
        last = int(found.contract["geometry"]["depth"]) - 1
        height = 1 / len(titles)
        layout: dict[str, Any] = {
            "barmode": "group", "boxmode": "group",
            "xaxis": axis("after block", dtick=1 if last < 24 else 4, anchor=f"y{len(titles)}",
                          range=[0.4, last + 0.6]),
        }  # fmt: skip
        above = {"xref": "paper", "yref": "paper", "x": 0, "xanchor": "left", "yanchor": "bottom",
                 "showarrow": False}  # fmt: skip
        for panel, title in enumerate(titles):
            low = 1 - (panel + 1) * height
            high = low + 0.8 * height
            layout["yaxis" if panel == 0 else f"yaxis{panel + 1}"] = {"domain": [low, high]}
            layout.setdefault("annotations", []).append({"text": title, "y": high, **above})
        return {"data": [], "layout": layout}


class Layers(_ByBlock):
    """Where pruning layers stand, and how many tokens they leave."""

    title = "The top tenth: where layers stand"
    caption = (
        "Per block: how many trials have a pruning layer behind it, and the share of tokens that "
        "it keeps, as boxes of quartiles (whiskers: 5 to 95 %)."
    )

    def draw(self, found: Found) -> dict[str, Any]:
        drawn = self.panels(found, ("share of trials, %", "tokens kept, %"))
        prefix = int(found.contract["geometry"]["prefix_tokens"])
        for name, role, trials in _groups(found):
            kept: dict[int, list[float]] = {block: [] for block in _blocks(found)}
            for trial in trials:
                tokens = [count - prefix for count in trial.attrs["tokens"]]
                for layer in trial.config.layers:
                    block = layer.after_block
                    kept[block].append(100 * tokens[block] / tokens[block - 1])
            share = [round(100 * len(each) / len(trials), 1) for each in kept.values()]
            drawn["data"] += [
                {"type": "bar", "name": name, "x": list(kept), "y": share,
                 "marker": {"color": colour(role)}, "legendgroup": name, "offsetgroup": name,
                 "hovertemplate": f"%{{y}} % of {name}<extra></extra>"},
                _boxes(name, role, kept) | {"yaxis": "y2"},
            ]  # fmt: skip
        return drawn


class LayerValues(_ByBlock):
    """What pruning layers do where they stand."""

    title = "The top tenth: what layers do"
    caption = (
        "Per block, the values of the pruning layers behind it, as boxes of quartiles (whiskers: "
        "5 to 95 %): all trials in grey, the top tenth in blue."
    )

    def draw(self, found: Found) -> dict[str, Any]:
        fields = list(_method(found).fields)
        drawn = self.panels(found, [field.replace("_", " ") for field in fields])
        for name, role, trials in _groups(found):
            for panel, field in enumerate(fields, 1):
                values: dict[int, list[float]] = {block: [] for block in _blocks(found)}
                for trial in trials:
                    for layer in trial.config.layers:
                        values[layer.after_block].append(float(getattr(layer, field)))
                own = {"yaxis": f"y{panel}" if panel > 1 else "y", "showlegend": panel == 1}
                drawn["data"].append(_boxes(name, role, values) | own)
        return drawn


class Choices(Plot):
    """The design variants and scales of configurations as a whole."""

    title = "The top tenth: choices"
    caption = (
        "How often each variant, and each quarter of a threshold's values, occurs: worth "
        "having where the bar of the top tenth is the longer one."
    )

    def lacks(self, found: Found) -> str | None:
        return _too_few(found) or (
            None if _options(found) else "this search space leaves nothing but layers to be chosen"
        )

    def draw(self, found: Found) -> dict[str, Any]:
        options = _options(found)[::-1]  # from below
        data = []
        for name, role, trials in _groups(found):
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
                "height": max(self.height, 34 * len(options) + 90),
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


def _boxes(name: str, role: str, values: Mapping[int, Sequence[float]]) -> dict[str, Any]:
    """Boxes of quartiles over blocks, where there are values."""
    there = {block: each for block, each in values.items() if each}
    lines = {
        part: [round(float(np.percentile(each, percent)), 4) for each in there.values()]
        for part, percent in (
            ("lowerfence", 5), ("q1", 25), ("median", 50), ("q3", 75), ("upperfence", 95),
        )
    }  # fmt: skip
    return {
        "type": "box", "name": name, "x": list(there), **lines,
        "line": {"color": colour(role), "width": 1.2}, "fillcolor": see_through(role, 0.35),
        "legendgroup": name, "showlegend": False, "hoverinfo": "y", "offsetgroup": name,
    }  # fmt: skip


def _groups(found: Found) -> list[tuple[str, str, Sequence[StoredTrial]]]:
    """What is compared: name, role and trials."""
    return [("all trials", "trial", found.standing), ("top tenth", "best", found.top)]


def _blocks(found: Found) -> range:
    """The blocks that a pruning layer may follow."""
    return range(1, int(found.contract["geometry"]["depth"]))


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
