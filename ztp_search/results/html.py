"""Tables for people as HTML, for notebooks. What they hold is text, and is escaped as such."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

PICTURES = {".png": "image/png", ".svg": "image/svg+xml"}
"""Suffixes of pictures that a page can show."""


def html_of(shown: RenderableType) -> str:
    """HTML of a table, a line of text, or a group of these."""
    if isinstance(shown, Group):
        return "\n".join(html_of(part) for part in shown.renderables)
    if isinstance(shown, Table):
        return _table(shown)
    text = _escaped(str(shown))
    bold = isinstance(shown, Text) and shown.style == "bold"
    return f"<p><b>{text}</b></p>" if bold else f"<p>{text}</p>"


def picture_html(path: Path | None) -> str:
    """The picture itself, for a page that outlives its file; "" where there is none to show."""
    kind = None if path is None else PICTURES.get(path.suffix.lower())
    if path is None or kind is None or not path.is_file():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<img src="data:{kind};base64,{data}" alt="{_escaped(path.name)}" style="max-width:100%">'
    )


def _table(table: Table) -> str:
    """One of `plain_table`: cells are strings, and a bar may stand below a row."""
    cells = [[str(cell) for cell in column.cells] for column in table.columns]
    sides = [column.justify for column in table.columns]
    title = str(table.title or "")
    caption = f'<caption style="text-align:left">{_escaped(title)}</caption>' if title else ""
    head = _row([str(column.header) for column in table.columns], sides, "th")
    body = [
        _row([column[index] for column in cells], sides, "td", bar=row.end_section)
        for index, row in enumerate(table.rows)
    ]
    parts = ["<table>", caption, f"<thead>{head}</thead>", "<tbody>", *body, "</tbody></table>"]
    return "\n".join(part for part in parts if part)


def _row(cells: Sequence[str], sides: Sequence[str], tag: str, bar: bool = False) -> str:
    style = ";border-bottom:1px solid" if bar else ""
    return "<tr>" + "".join(
        f'<{tag} style="text-align:{side}{style}">{_escaped(cell)}</{tag}>'
        for cell, side in zip(cells, sides, strict=True)
    ) + "</tr>"  # fmt: skip


def _escaped(text: str) -> str:
    return html.escape(text).replace("\n", "<br>")
