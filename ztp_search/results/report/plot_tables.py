"""What a plot shows as tables, for who cannot see or run it: from Plotly's own `data` and `layout`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ztp_search.results.report.blocks import Table

MOST = 20
"""Rows of a series; of trials the first are the best."""
MOST_COLUMNS = 26
"""Series over the same values, such as blocks, are rows of as many columns."""
BOX = {"lowerfence": "5 %", "q1": "25 %", "median": "50 %", "q3": "75 %", "upperfence": "95 %"}


def plot_tables(title: str, figure: Mapping[str, Any]) -> list[Table]:
    """A table for each pair of axes and kind of trace."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for trace in figure["data"]:
        kind = str(trace.get("type", "scatter"))
        key = (str(trace.get("xaxis", "x")), str(trace.get("yaxis", "y")), kind)
        groups.setdefault(key, []).append(trace)
    tables = []
    for (x, y, kind), traces in groups.items():
        names = _axis_title(figure, x) or "value", _axis_title(figure, y) or "value"
        heading = title if len(groups) == 1 else f"{title}: {names[1]}"
        tables.append(_table(heading, kind, names, traces))
    return tables


def _table(
    title: str, kind: str, names: tuple[str, str], traces: Sequence[Mapping[str, Any]]
) -> Table:
    if kind == "box":
        columns: list[str] = ["series", names[0], *BOX.values()]
        rows = [row for trace in traces for row in _box_rows(trace)]
        return Table(title, columns, rows)
    shared = traces[0]["x"]
    if len(traces) > 1 and len(shared) <= MOST_COLUMNS and all(t["x"] == shared for t in traces):
        columns = [names[0], *map(_text, shared)]
        rows = [[str(t.get("name", "")), *map(_text, t["y"])] for t in traces]
        return Table(title, columns, rows, note=f"In the cells: {names[1]}.")
    bounds = [axis for axis in "xy" if any(f"error_{axis}" in trace for trace in traces)]
    columns = ["series", *names, *(f"95 % of {names['xy'.index(axis)]}" for axis in bounds)]
    rows, left_out = [], 0
    for trace in traces:
        found = list(_rows(trace, bounds))
        rows += found[:MOST]
        left_out += len(found) - len(found[:MOST])
    note = ""
    if left_out:
        note = f"The first {MOST} of each series; all trials: `ztp-search export --format csv`."
    return Table(title, columns, rows, note=note)


def _rows(trace: Mapping[str, Any], bounds: Sequence[str]) -> Iterator[list[str]]:
    for place, (x, y) in enumerate(zip(_flat(trace["x"]), _flat(trace["y"]), strict=True)):
        errors = (_bounds(trace.get(f"error_{axis}"), trace[axis][place], place) for axis in bounds)
        yield [str(trace.get("name", "")), _text(x), _text(y), *errors]


def _box_rows(trace: Mapping[str, Any]) -> Iterator[list[str]]:
    for place, x in enumerate(trace["x"]):
        yield [str(trace.get("name", "")), _text(x), *(_text(trace[part][place]) for part in BOX)]


def _bounds(error: Mapping[str, Any] | None, value: float, place: int) -> str:
    if error is None:
        return ""
    up = error["array"][place]
    down = error.get("arrayminus", error["array"])[place]
    return f"{_text(value - down)} to {_text(value + up)}"


def _flat(values: Sequence[Any]) -> list[Any]:
    """Categories of two levels as one text each."""
    if values and isinstance(values[0], list | tuple):
        return [" ".join(map(str, each)) for each in zip(*values, strict=True)]
    return list(values)


def _axis_title(figure: Mapping[str, Any], axis: str) -> str:
    """x, y2 -> the title of xaxis, yaxis2."""
    found = figure["layout"].get(f"{axis[0]}axis{axis[1:]}", {}).get("title", {})
    return str(found.get("text", ""))


def _text(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
