"""A figure in inches from its upper left corner, so that cells align and text stays apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray

POINTS = 7.5
"""Size of text."""
LINE_INCHES = 0.135
"""From one line of it to the next."""


class Sheet:
    """A figure of one pair of axes, whose units are inches; x to the right, y down."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))
        self.axes = self.figure.add_axes((0.0, 0.0, 1.0, 1.0))
        self.axes.set_axis_off()
        self._restore_limits()

    def image(self, pixels: NDArray[Any], box: Box) -> None:
        """Pixels, (H, W, 3 or 4), that fill a box."""
        self.axes.imshow(
            pixels, extent=(box.left, box.left + box.width, box.top + box.height, box.top),
            aspect="auto",
        )  # fmt: skip
        self._restore_limits()

    def text(
        self, x: float, y: float, words: str, width: float | None = None, **style: Any
    ) -> None:
        """Words as they stand; the upper left corner of the first line is at x and y.

        width: what does not fit into it is left out at the end.
        """
        if width is not None:
            words = fitted(words, width, style.get("fontweight", "normal"))
        usual: dict[str, Any] = {"fontsize": POINTS, "verticalalignment": "top"}
        self.axes.text(x, y, words, parse_math=False, **(usual | style))

    def lines(self, segments: NDArray[Any], **style: Any) -> None:
        """Line segments, (segments, 2 ends, x and y)."""
        if len(segments):
            self.axes.add_collection(LineCollection(list(segments), **style), autolim=False)

    def dots(self, centres: NDArray[Any], points: float, **style: Any) -> None:
        """Dots of so many points across, (dots, x and y)."""
        if len(centres):
            self.axes.scatter(centres[:, 0], centres[:, 1], s=points**2, **style)
            self._restore_limits()

    def squares(self, corners: NDArray[Any], width: float, height: float, **style: Any) -> None:
        """Rectangles of one size as one shape, by their upper left corners, (squares, x and y)."""
        if not len(corners):
            return
        around = np.array([[0, 0], [width, 0], [width, height], [0, height], [0, 0]])
        vertices = (corners[:, None] + around).reshape(-1, 2)
        codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
        path = Path(vertices, np.tile(codes, len(corners)))
        self.axes.add_patch(PathPatch(path, **style))

    def _restore_limits(self) -> None:
        self.axes.set(xlim=(0.0, self.width), ylim=(self.height, 0.0))


def fitted(words: str, width: float, weight: str = "normal") -> str:
    """As much of a line as fits into so many inches, but for hinting; cut with an ellipsis."""
    font = FontProperties(weight=weight, size=POINTS)
    kept = words
    while kept:
        shown = kept if kept == words else kept.rstrip() + "…"
        points, _, _ = text_to_path.get_text_width_height_descent(shown, font, ismath=False)
        if points / 72 <= width:
            return shown
        kept = kept[:-1]
    return ""


class Box:
    """A place on a sheet, in inches."""

    def __init__(self, left: float, top: float, width: float, height: float) -> None:
        self.left, self.top, self.width, self.height = left, top, width, height
