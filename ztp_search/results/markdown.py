"""Markdown as dashboards and reports render it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

SPECIAL = re.compile(r"([\\`*_\[\]<>~&$])")


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


def tidy(text: str) -> str:
    """Without the gaps that empty parts of a template leave."""
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
