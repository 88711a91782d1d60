"""Figures as files: PNG, SVG or PDF by the suffix, whole or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ztp_search.errors import ZtpError
from ztp_search.results.whole_file import check_place, in_place_of

CANVASES: dict[str, type[FigureCanvasBase]] = {
    ".png": FigureCanvasAgg, ".svg": FigureCanvasSVG, ".pdf": FigureCanvasPdf,
}  # fmt: skip
UNDATED = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""Metadata by suffix, so that the same picture is the same file on another day."""


def check_picture_path(path: Path) -> None:
    """Refuse a path that no picture could be written to, before any work; leaves nothing there.

    Raises:
        ZtpError: the suffix is unknown, or the path cannot be written.
    """
    if path.suffix.lower() not in CANVASES:
        raise ZtpError(
            f"`output` must end in one of {', '.join(CANVASES)}, but got {path}; rename it"
        )
    with refused_in_one_line(path):
        check_place(path)


def save_picture(figure: Figure, path: Path, dots_per_inch: int = 100) -> None:
    """Write a figure in the format that the suffix names, one of `CANVASES`.

    It is written beside its place and then put there, so no half of it is ever seen.

    Raises:
        ZtpError: the path cannot be written.
    """
    suffix = path.suffix.lower()
    CANVASES[suffix](figure)
    with refused_in_one_line(path), in_place_of(path) as temporary:
        figure.savefig(
            temporary, format=suffix[1:], dpi=dots_per_inch, metadata=UNDATED.get(suffix)
        )


@contextlib.contextmanager
def refused_in_one_line(path: Path) -> Iterator[None]:
    """What the file system says inside is a ZtpError."""
    try:
        yield
    except OSError as error:
        raise ZtpError(
            f"the picture {path} cannot be written: {error.strerror}; give another path"
        ) from None
