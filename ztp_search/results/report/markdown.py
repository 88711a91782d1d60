"""A report as Markdown (GitHub's), for what shows neither plots nor pictures: words and tables."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

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

SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$])")
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
        yield table(of.columns, of.rows, words=of.words)
        if of.note:
            yield worded(of.note)
    elif isinstance(of, Comparison):
        yield f"**{escaped(of.title)}**"
        yield table(
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


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, words: bool = False) -> str:
    """A table; but for the first, columns are flush right unless their cells are words."""
    rule = [":--", *([":--"] if words else ["--:"]) * (len(columns) - 1)]
    lines = [[inline(each) for each in columns], rule]
    lines += [[inline(each) for each in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    """Text that means itself at the beginning of a line."""
    return re.sub(r"^(\d*)([#+.)-])", r"\1\\\2", inline(text))


def inline(text: str) -> str:
    """Text that means itself within a line."""
    return SPECIAL.sub(r"\\\1", re.sub(r"\s+", " ", text))


def worded(text: str) -> str:
    """A paragraph; what stands between backticks is code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one of them stands alone
        return escaped(text)
    return escaped(parts[0]) + "".join(
        f"`{part}`" if place % 2 else inline(part) for place, part in enumerate(parts[1:], 1)
    )


def fenced(text: str, language: str) -> str:
    """A block of code that ends only where the text does."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
