"""The tables of a report: those of `results.tables`, as the terminal shows them, and a few more."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import rich.table
from rich.console import Group, RenderableType

from ztp_search.results.report.blocks import Block, Interval, Table, Words
from ztp_search.results.tables import front_table, holdout_table, layer_table, sentence
from ztp_search.study import StoredTrial

REASONS = 5
"""So many different failures are shown, the most frequent first."""


def blocks_of(shown: RenderableType) -> list[Block]:
    """Tables and lines as blocks.

    Of a table's title what stands before the first semicolon is its title here, and what follows
    its note.
    """
    if isinstance(shown, Group):
        return [block for part in shown.renderables for block in blocks_of(part)]
    if not isinstance(shown, rich.table.Table):
        return [Words(f"{shown}.")]
    title, *notes = str(shown.title or "").split("; ")
    columns = [[_line(cell) for cell in column.cells] for column in shown.columns]
    return [
        Table(
            title,
            [_line(column.header) for column in shown.columns],
            list(zip(*columns, strict=True)),
            note=" ".join(sentence(each) for each in notes),
        )
    ]


def winner_table(file: Mapping[str, Any]) -> Table:
    """The pruning layers of the winner's configuration file, as a document."""
    (table,) = blocks_of(layer_table(file))
    assert isinstance(table, Table)
    return dataclasses.replace(table, title="Pruning layers of the winner", note=f"{table.title}.")


def finalist_table(holdout: Mapping[str, Any]) -> Table:
    """The comparison on holdout images."""
    (table,) = blocks_of(holdout_table(holdout))
    assert isinstance(table, Table)
    order = "Finalists are in the order in which the search images rank them, the winner first."
    return dataclasses.replace(table, note=f"{table.note} {order}")


def budget_table(points: Sequence[Mapping[str, Any]], objective: str, study: str) -> Table:
    """The winners of all budgets of a search, side by side."""
    (table,) = blocks_of(front_table(objective, points))
    assert isinstance(table, Table)
    names = [each["study"] + " (this one)" * (each["study"] == study) for each in points]
    columns = ["study", "winner", *table.columns[1:]]
    rows = [(name, *row) for name, row in zip([*names, ""], table.rows, strict=True)]
    return dataclasses.replace(table, columns=columns, rows=rows)


def failure_table(trials: Iterable[StoredTrial]) -> Table | None:
    """Why trials failed; None where none has."""
    failed = [each for each in trials if each.state == "failed"]
    if not failed:
        return None
    reasons = Counter(str(each.attrs.get("failure", "unknown")) for each in failed)
    first = {str(each.attrs.get("failure", "unknown")): each.number for each in reversed(failed)}
    rows = [
        (str(count), f"trial {first[reason]}", reason)
        for reason, count in reasons.most_common(REASONS)
    ]
    more = len(reasons) - len(rows)
    return Table(
        f"{len(failed):,} failed trials", ("trials", "first", "reason"), rows, words=True,
        note=f"{more} further reasons are in the database." if more else "",
    )  # fmt: skip


def interval(record: Mapping[str, Any], other: str, label: str, about: str = "") -> Interval:
    """The difference of a record from another one, in points."""
    low, high = record[f"minus_{other}_ci95"]
    return Interval(label, 100 * record[f"minus_{other}"], 100 * low, 100 * high, about)


def gflops_text(gflops: float) -> str:
    """To four digits, zeros too: 0.05300."""
    return f"{gflops:#.4g}".rstrip(".")


def _line(cell: RenderableType) -> str:
    """A cell in one line."""
    return " ".join(str(cell).split())
