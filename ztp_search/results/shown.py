"""Results that show themselves: as the command line prints them, wherever Python shows a value."""

from __future__ import annotations

from abc import ABC, abstractmethod
from io import StringIO
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table

from ztp_search.results.html import html_of


class Shown(ABC):
    """A result that is shown as tables: at a prompt, in a notebook, by `rich.print`.

    A subclass says which tables; they are made of `to_dict`, as those of the command line are.
    Dataclasses say `repr=False`, else their own takes the place of this one.
    """

    __slots__ = ()

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """The document that the command line prints with `--json`."""

    @abstractmethod
    def __rich__(self) -> RenderableType:
        """The tables that it prints without."""

    def __repr__(self) -> str:
        shown = self.__rich__()
        console = Console(
            file=StringIO(), markup=False, emoji=False, color_system=None, force_terminal=False,
            force_jupyter=False,
        )  # fmt: skip
        console.width = natural_width(shown, console)
        with console.capture() as capture:
            console.print(shown)
        return "\n".join(line.rstrip() for line in capture.get().strip("\n").splitlines())

    def _repr_html_(self) -> str:
        return html_of(self.__rich__())


def natural_width(shown: RenderableType, console: Console) -> int:
    """Columns in which no table needs to fold a cell; the console's, where that is more."""
    if isinstance(shown, Group):
        parts = (natural_width(part, console) for part in shown.renderables)
        return max(parts, default=console.width)
    if not isinstance(shown, Table):
        return console.width
    endless = console.options.update(width=10_000)
    return max(console.width, Measurement.get(console, endless, shown).maximum)
