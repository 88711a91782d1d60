"""A study as one file for people: what was asked, what was found, how sure that is.

`contents.report` says it once, as sections of words, tables, plots and pictures (`blocks`); a
format is a function from these to text, and a line below.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ztp_search.errors import ZtpError
from ztp_search.results.report.blocks import Report
from ztp_search.results.whole_file import check_place, in_place_of


@dataclass(frozen=True, slots=True)
class Format:
    """A form that reports come in.

    renderer: module (of this package) and function. suffixes: of its files.
    pictures: whether it can hold plots and pictures. needs: libraries.
    """

    renderer: str
    suffixes: tuple[str, ...]
    pictures: bool
    needs: tuple[str, ...] = ()

    def load(self) -> Callable[[Report], str]:
        """The function that renders it; ZtpError without a library that it needs."""
        for library in self.needs:
            if importlib.util.find_spec(library) is None:
                raise ZtpError(
                    f"a report of this format needs {library}; install it with: pip install "
                    "'ztp-search[report]'"
                )
        module, _, name = self.renderer.partition(":")
        found: Callable[[Report], str] = getattr(
            importlib.import_module(f"{__name__}.{module}"), name
        )
        return found


FORMATS: Mapping[str, Format] = {
    "html": Format("html:html", (".html", ".htm"), pictures=True, needs=("jinja2", "plotly")),
    "markdown": Format("markdown:markdown", (".md", ".markdown"), pictures=False),
}
"""By the name that `format` takes."""


def format_of(path: Path, name: str | None) -> Format:
    """The format that is asked for, by its name or by the suffix of the file.

    Raises:
        ZtpError: neither is one, or the file cannot be written.
    """
    with refused_in_one_line(path):
        check_place(path)
    if name is not None:
        if name not in FORMATS:
            raise ZtpError(f"`format` must be one of {', '.join(FORMATS)}, but got {name!r}")
        return FORMATS[name]
    for each in FORMATS.values():
        if path.suffix.lower() in each.suffixes:
            return each
    suffixes = [suffix for each in FORMATS.values() for suffix in each.suffixes]
    raise ZtpError(
        f"`output` must end in one of {', '.join(suffixes)}, but got {path}; rename it, or give "
        "`format`"
    )


def write_report(text: str, path: Path) -> None:
    """Write a report, whole or not at all; ZtpError where the path cannot be written."""
    with refused_in_one_line(path), in_place_of(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


@contextlib.contextmanager
def refused_in_one_line(path: Path) -> Iterator[None]:
    """What the file system says inside is a ZtpError."""
    try:
        yield
    except OSError as error:
        raise ZtpError(f"`output` {path} cannot be written: {error.strerror}") from None


__all__ = ["FORMATS", "Format", "Report", "format_of", "write_report"]
