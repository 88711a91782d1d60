"""What a report is made of: sections of words, tables, code, plots and pictures.

All of it is plain text and numbers; how they look is for the renderers. In words, `backticks` set
code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph."""

    kind: ClassVar[str] = "words"
    text: str


@dataclass(frozen=True, slots=True)
class Points:
    """A list of sentences."""

    kind: ClassVar[str] = "points"
    items: Sequence[str]


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text; the first of a row is its heading.

    Attributes:
        title: what the table shows.
        columns: heading of each.
        rows: of as many cells as there are columns.
        note: how to read it.
        words: whether its cells are words rather than numbers.
    """

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    words: bool = False


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference with its 95 % interval, in points.

    Attributes:
        label: from what.
        value, low, high: in points (percent of accuracy).
        about: what is compared with, in a few words.
    """

    label: str
    value: float
    low: float
    high: float
    about: str = ""

    @property
    def text(self) -> str:
        """`+1.45 [+0.66, +2.24]`."""
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"

    @property
    def verdict(self) -> str:
        """What the interval shows, plainly: better, worse or neither."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "neither"

    @property
    def words(self) -> str:
        """The verdict in words."""
        return {
            "better": "shown to be better",
            "worse": "shown to be worse",
            "neither": "not shown to be better or worse",
        }[self.verdict]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Differences of one configuration from several others."""

    kind: ClassVar[str] = "comparison"
    title: str
    intervals: Sequence[Interval]
    note: str = ""

    @property
    def span(self) -> tuple[float, float]:
        """The least and the highest value to be drawn; 0 lies between them."""
        low = min(0.0, *(each.low for each in self.intervals))
        high = max(0.0, *(each.high for each in self.intervals))
        room = 0.06 * max(high - low, 0.1)
        return low - room, high + room

    def place(self, points: float) -> float:
        """Where a value lies between the ends of `span`, in %."""
        low, high = self.span
        return round(100 * (points - low) / (high - low), 2)


@dataclass(frozen=True, slots=True)
class Code:
    """Something to be copied. language: sh, python or json."""

    kind: ClassVar[str] = "code"
    language: str
    text: str
    title: str


@dataclass(frozen=True, slots=True)
class Attached:
    """A file within the report, text. name: what it is called when it is saved."""

    kind: ClassVar[str] = "attached"
    name: str
    text: str
    title: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """A plot. figure: Plotly's `data` and `layout`. tables: what it shows, in numbers."""

    kind: ClassVar[str] = "drawing"
    name: str
    title: str
    caption: str
    figure: Mapping[str, Any]
    height: int
    tables: Sequence[Table]


@dataclass(frozen=True, slots=True)
class Cell:
    """One picture of a row. png: its bytes. alternative: what it shows, in words."""

    title: str
    detail: str
    png: bytes
    alternative: str


@dataclass(frozen=True, slots=True)
class Row:
    """One image, from layer to layer."""

    title: str
    lines: Sequence[str]
    cells: Sequence[Cell]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Images before and after pruning. legend: what colours mean: class of the mark, and words."""

    kind: ClassVar[str] = "pictures"
    rows: Sequence[Row]
    legend: Sequence[tuple[str, str]] = field(default_factory=tuple)


Block: TypeAlias = Words | Points | Table | Comparison | Code | Attached | Drawing | Pictures


@dataclass(frozen=True, slots=True)
class Section:
    """id: its anchor. short: its title in a list of contents."""

    id: str
    short: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class KeyFigure:
    """One of the few numbers that come first. tone: "", better, worse or neither."""

    label: str
    value: str
    detail: str = ""
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """A study for its readers.

    Attributes:
        study: its name.
        headline: what was found, in one sentence.
        qualification: how sure that is, in one or two more.
        figures: the key numbers.
        sections: the rest, in reading order.
        lacks: what was asked for and could not be had, each a sentence.
        written: when, as ISO 8601 in UTC; by: the version of ztp-search.
    """

    study: str
    headline: str
    qualification: str
    figures: Sequence[KeyFigure]
    sections: Sequence[Section]
    lacks: Sequence[str]
    written: str
    by: str
