"""What a written report says in short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from ztp_search.results.shown import Shown


@dataclass(frozen=True, slots=True, repr=False)
class WrittenReport(Shown):
    """A report that was written.

    Attributes:
        output: the file.
        study: its name.
        headline: what was found, in one sentence.
        qualification: how sure that is.
        lacks: what was asked for and could not be had, each a sentence.
    """

    output: str
    study: str
    headline: str
    qualification: str
    lacks: Sequence[str] = ()

    def to_dict(self) -> dict[str, Any]:
        """The same as a document."""
        return {
            "output": self.output,
            "study": self.study,
            "headline": self.headline,
            "qualification": self.qualification,
            "lacks": list(self.lacks),
        }

    def __rich__(self) -> RenderableType:
        last = f"Written to {self.output}."
        return Group(
            Text(self.headline, "bold"), Text(self.qualification), *map(Text, self.lacks),
            Text(last),
        )  # fmt: skip
