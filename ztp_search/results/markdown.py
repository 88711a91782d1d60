"""Markdown as dashboards and reports render it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[object]], numbers: bool = True) -> str:
    """A table; all columns but the first are set to the right where they are `numbers`."""
    side = "---:" if numbers else "---"
    lines = [header, ["---", *[side] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(_cell(each) for each in line) + " |" for line in lines)


def code(text: object) -> str:
    """Text as it stands, whatever signs are in it."""
    quoted = str(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", quoted)), default=0))
    space = " " if quoted.startswith("`") or quoted.endswith("`") else ""
    return f"{fence}{space}{quoted}{space}{fence}"


def tidy(text: str) -> str:
    """Without the gaps that empty parts of a template leave."""
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
