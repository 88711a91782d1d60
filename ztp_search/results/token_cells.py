"""The cells of a token figure: an image as a layer leaves it, and what the layer ranked by."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from numpy.typing import NDArray

from ztp_search.results.inches import Box, Sheet
from ztp_search.results.token_maps import Fate, Indices, LayerMap, Mask
from ztp_search.results.token_pictures import (
    BEFORE_COLOUR,
    I_COLOUR,
    S_COLOUR,
    Lines,
    Pixels,
    corners,
    grid_of,
    outlines,
    painted,
    relative_importance,
    rgb,
)
from ztp_search.results.visualization import Visualization

MERGED_COLOURS = {Fate.S_MERGED: S_COLOUR, Fate.I_MERGED: I_COLOUR}
HATCH, HATCH_COLOUR = "//////", "0.6"
MOST_OCTAVES = 4
"""The scale of importance ends at 2 to this power, and its inverse, times the mean."""
DOTS_PER_INCH = 200
WIDE_PATCH = 0.14


@dataclass(frozen=True, slots=True)
class Scale:
    """The colours of importance, logarithmic from 2^-octaves to 2^octaves times the mean."""

    octaves: int

    def colours(self, relative: NDArray[np.float64]) -> Pixels:
        """Of importances over their mean, (R, C) -> (R, C, 3); grey where there is none."""
        low, high = 2.0**-self.octaves, 2.0**self.octaves
        known = np.isfinite(relative)
        clipped = np.clip(np.where(known, relative, 1.0), low, high)
        out: Pixels = colormaps["viridis"](LogNorm(low, high)(clipped), bytes=True)[..., :3]
        out[~known] = rgb(BEFORE_COLOUR)
        return out


def scale_of(drawn: Visualization) -> Scale | None:
    """One for all cells, wide enough for 19 of 20 importances; None where none is drawn.
    """
    if not drawn.importance:
        return None
    found = [
        np.abs(np.log2(np.maximum(values[np.isfinite(values)], 1e-9)))
        for image in drawn.images
        for row in image.reduced
        for layer in row.layers
        if (values := relative_importance(layer, len(layer.groups))) is not None
    ]
    if not found:
        return None
    widest = float(np.quantile(np.concatenate(found), 0.95))
    return Scale(min(MOST_OCTAVES, max(1, math.ceil(widest))))


def outline_strokes(patch: float) -> tuple[tuple[str, float], ...]:
    """Colours and points of the lines around patches of so many inches, the lowest first.

    White between black, to be seen on any ground; odd numbers of dots, which stay centred.
    """
    dots = (3, 1) if patch < WIDE_PATCH else (5, 3)
    return tuple(zip(("black", "white"), (72 * n / DOTS_PER_INCH for n in dots), strict=True))


class CellPainter:
    """Draws the cells of one image.

    Args:
        sheet: to draw on.
        pixels: the image as the model sees it, (H, W, 3).
        patch_size: height and width of a patch in pixels.
        scale: of importance; None where that is not drawn.
    """

    def __init__(
        self, sheet: Sheet, pixels: Pixels, patch_size: tuple[int, int], scale: Scale | None
    ) -> None:
        self.sheet = sheet
        self.pixels = pixels
        self.patch_size = patch_size
        self.scale = scale
        self.columns = grid_of(pixels, patch_size)[1]

    def input(self, box: Box) -> None:
        """The image itself."""
        self.sheet.image(self.pixels, box)

    def tokens(self, box: Box, layer: LayerMap) -> None:
        """The image as a layer leaves it."""
        self.sheet.image(painted(self.pixels, self.patch_size, layer), box)
        self._hatch(box, layer.fates == Fate.DROPPED_BEFORE, HATCH_COLOUR)
        self._outline(box, layer.groups)
        width, height = self._patch(box)
        for fate, colour in MERGED_COLOURS.items():
            centres = corners(layer.fates == fate, self.columns) + 0.5
            self.sheet.dots(
                self._placed(box, centres), 0.42 * 72 * min(width, height),
                color=colour, edgecolors="white", linewidths=0.4, zorder=4,
            )  # fmt: skip

    def importance(self, box: Box, layer: LayerMap) -> None:
        """What the layer ranked tokens by; hatched: the tokens that it took out."""
        relative = relative_importance(layer, self.columns)
        if relative is None:
            self.sheet.text(box.left, box.top, "ranks no tokens", color="0.4")
            return
        assert self.scale is not None
        height, width = self.patch_size
        colours = self.scale.colours(relative).repeat(height, axis=0).repeat(width, axis=1)
        covered = np.full_like(self.pixels, 255)  # what lies beyond is in no patch
        covered[: colours.shape[0], : colours.shape[1]] = colours
        self.sheet.image(covered, box)
        unknown = np.isnan(relative).reshape(-1)
        self._hatch(box, unknown, HATCH_COLOUR)
        self._hatch(box, layer.taken_out & ~unknown, "white")
        self._outline(box, layer.groups_in)

    def _hatch(self, box: Box, patches: Mask, colour: str) -> None:
        width, height = self._patch(box)
        self.sheet.squares(
            self._placed(box, corners(patches, self.columns)), width, height,
            facecolor="none", edgecolor=colour, hatch=HATCH, linewidth=0.0, zorder=2,
        )  # fmt: skip

    def _outline(self, box: Box, groups: Indices) -> None:
        """Around patches that share a token."""
        segments = self._placed(box, outlines(groups, self.columns))
        for colour, points in outline_strokes(min(self._patch(box))):
            self.sheet.lines(
                segments, colors=colour, linewidths=points, capstyle="projecting", zorder=3
            )

    def _placed(self, box: Box, in_patches: Lines) -> Lines:
        """From units of patches to inches on the sheet, (…, x and y)."""
        placed: Lines = in_patches * np.array(self._patch(box)) + np.array([box.left, box.top])
        return placed

    def _patch(self, box: Box) -> tuple[float, float]:
        """Width and height of a patch, in inches."""
        height, width = self.patch_size
        return (
            box.width * width / self.pixels.shape[1], box.height * height / self.pixels.shape[0]
        )  # fmt: skip
