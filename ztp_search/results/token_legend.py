"""The legend of a token figure: only what occurs in it, below the cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ztp_search.results.inches import LINE_INCHES, Box, Sheet
from ztp_search.results.token_cells import (
    HATCH,
    HATCH_COLOUR,
    MERGED_COLOURS,
    Scale,
    outline_strokes,
)
from ztp_search.results.token_maps import Fate
from ztp_search.results.token_pictures import DROPPED_COLOURS, shares_token
from ztp_search.results.visualization import Visualization

SHARED = "shares"
ENTRIES: dict[Fate | str, str] = {
    Fate.S_DROPPED: "dropped here as similar (S-stage)",
    Fate.I_DROPPED: "dropped here as unimportant (I-stage)",
    Fate.DROPPED_BEFORE: "dropped before",
    Fate.S_MERGED: "merged here as similar (S-stage)",
    Fate.I_MERGED: "merged here as unimportant (I-stage)",
    SHARED: "outlined: one token, in its mean colour",
}
ENTRY_WIDTH, ENTRY_HEIGHT, SWATCH = 2.65, 0.2, 0.13
BAR_WIDTH, BAR_HEIGHT, BAR_INDENT = 2.0, 0.1, 0.1
SCALE_WORDS = """importance over its mean in the layer
white hatching: taken out by the layer
grey: not ranked, as taken out before"""
SCALE_HEIGHT = 0.04 + 3 * LINE_INCHES


def legend_entries(drawn: Visualization) -> list[Fate | str]:
    """What occurs in the cells, in the order of `ENTRIES`."""
    layers = [layer for image in drawn.images for row in image.reduced for layer in row.layers]
    found: set[Fate | str] = {Fate(fate) for layer in layers for fate in np.unique(layer.fates)}
    if any(shares_token(layer.groups).any() for layer in layers):
        found.add(SHARED)
    return [entry for entry in ENTRIES if entry in found]


def legend_height(entries: Sequence[Fate | str], scale: Scale | None, width: float) -> float:
    """Inches that the legend takes where it may be `width` inches wide."""
    rows = math.ceil(len(entries) / _columns(width))
    return rows * ENTRY_HEIGHT + (0.0 if scale is None else SCALE_HEIGHT)


def draw_legend(
    sheet: Sheet, entries: Sequence[Fate | str], scale: Scale | None, left: float, top: float
) -> None:
    """Entries from left to right and down, and the scale of importance below them."""
    columns = _columns(sheet.width - 2 * left)
    for index, entry in enumerate(entries):
        x = left + index % columns * ENTRY_WIDTH
        y = top + index // columns * ENTRY_HEIGHT
        _draw_swatch(sheet, entry, x, y)
        sheet.text(x + SWATCH + 0.06, y + 0.01, ENTRIES[entry])
    if scale is not None:
        rows = math.ceil(len(entries) / columns)
        _draw_scale(sheet, scale, left + BAR_INDENT, top + rows * ENTRY_HEIGHT)


def _columns(width: float) -> int:
    return max(1, int(width / ENTRY_WIDTH))


def _draw_swatch(sheet: Sheet, entry: Fate | str, x: float, y: float) -> None:
    corner = np.array([[x, y]])
    if isinstance(entry, Fate) and entry in MERGED_COLOURS:
        colour = MERGED_COLOURS[entry]
        sheet.dots(corner + SWATCH / 2, 5.0, color=colour, edgecolors="white", linewidths=0.4)
        return
    face = DROPPED_COLOURS[entry] if isinstance(entry, Fate) else "0.7"
    sheet.squares(corner, SWATCH, SWATCH, facecolor=face, linewidth=0.0)
    if entry == Fate.DROPPED_BEFORE:
        sheet.squares(
            corner, SWATCH, SWATCH, facecolor="none", edgecolor=HATCH_COLOUR, hatch=HATCH,
            linewidth=0.0,
        )  # fmt: skip
    if entry == SHARED:
        for colour, points in outline_strokes(SWATCH):
            sheet.squares(
                corner, SWATCH, SWATCH, facecolor="none", edgecolor=colour, linewidth=points
            )


def _draw_scale(sheet: Sheet, scale: Scale, left: float, top: float) -> None:
    exponents = np.linspace(-scale.octaves, scale.octaves, 256)
    box = Box(left, top + 0.02, BAR_WIDTH, BAR_HEIGHT)
    sheet.image(scale.colours(2.0 ** exponents[None]), box)
    for octave in range(-scale.octaves, scale.octaves + 1):
        x = left + BAR_WIDTH * (octave + scale.octaves) / (2 * scale.octaves)
        words = f"{2**octave}" if octave >= 0 else f"1/{2**-octave}"
        if abs(octave) == scale.octaves:
            words = ("≤ " if octave < 0 else "≥ ") + words
        sheet.text(x, top + BAR_HEIGHT + 0.04, words, horizontalalignment="center", fontsize=6.5)
    sheet.text(left + BAR_WIDTH + 0.2, top - 0.01, SCALE_WORDS, linespacing=1.1)
