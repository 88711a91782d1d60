"""A report as Markdown (GitHub's), for what shows neither plots nor pictures: words and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ztp_search.results.markdown import escaped, fenced, inline, table, worded
from ztp_search.results.report.blocks import (
    Attached,
    Block,
    Code,
    Comparison,
    Points,
    Report,
    Table,
    Words,
)

ELSEWHERE = "Plots and pictures are in the HTML report: `ztp-search report -o report.html`."


def markdown(report: Report) -> str:
    """The report as Markdown, ended by a line feed."""
    parts = [f"# {escaped(report.study)}", f"**{escaped(report.headline)}** "
             f"{worded(report.qualification)}"]  # fmt: skip
    for section in report.sections:
        blocks = [part for each in section.blocks for part in _block(each)]
        if blocks:
            parts += [f"## {escaped(section.title)}", *blocks]
    parts.append(f"*Written on {report.written} by ztp-search {report.by}.* {ELSEWHERE}")
    return "\n\n".join(parts) + "\n"


def _block(of: Block) -> Iterator[str]:
    if isinstance(of, Words):
        yield worded(of.text)
    elif isinstance(of, Points):
        yield "\n".join(f"- {worded(each)}" for each in of.items)
    elif isinstance(of, Table):
        yield f"**{escaped(of.title)}**"
        yield _table(of.columns, of.rows, numbers=not of.words)
        if of.note:
            yield worded(of.note)
    elif isinstance(of, Comparison):
        yield f"**{escaped(of.title)}**"
        yield _table(
            ("against", "", "difference", ""),
            [(each.label, each.about, each.text, each.words) for each in of.intervals],
        )
        if of.note:
            yield worded(of.note)
    elif isinstance(of, Code):
        yield f"{escaped(of.title)}:"
        yield fenced(of.text, of.language)
    elif isinstance(of, Attached):
        yield f"<details><summary>{escaped(of.title)}</summary>"
        yield fenced(of.text.rstrip("\n"), "json")
        yield "</details>"


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = True
) -> str:
    """A table of plain text."""
    cells = [[inline(each) for each in row] for row in rows]
    return table([inline(each) for each in columns], cells, numbers)
