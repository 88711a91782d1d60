"""What all tables for people look like."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text


class PlainTable(Table):
    """A table of text: what looks like markup in it, as a folder's name may, is none."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*(Text(cell) for cell in cells), **options)


def plain_table(title: str, *columns: str) -> Table:
    """A table without rows; its first column is text, the others are numbers."""
    table = PlainTable(
        title=Text(title, "bold") if title else None, title_justify="left", box=box.SIMPLE_HEAD,
        padding=(0, 1), collapse_padding=True, pad_edge=False,
    )  # fmt: skip
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    return table
