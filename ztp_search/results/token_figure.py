"""Zero-TPrune's figure 5, for any model, images and configurations: a cell per pruning layer.

A row per image and configuration: what these are and what the model says, the image as the model
sees it, then the image as each pruning layer leaves it. With importance a second line of cells
shows what each layer ranked tokens by. Sizes are in inches.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ztp_search.errors import ZtpError
from ztp_search.results.inches import LINE_INCHES, Box, Sheet
from ztp_search.results.picture_file import save_picture
from ztp_search.results.token_cells import DOTS_PER_INCH, CellPainter, Scale, scale_of
from ztp_search.results.token_legend import draw_legend, legend_entries, legend_height
from ztp_search.results.visualization import (
    ImageView,
    NamedOutput,
    ReducedImage,
    Visualization,
)

MOST_CELLS = 400
MARGIN, GAP, ROW_GAP = 0.12, 0.08, 0.16
TEXT_WIDTH, TEXT_ROOM, TITLE_HEIGHT = 1.8, 1.68, 2 * LINE_INCHES + 0.05
"""Of the column of words: with and without the gap before the cells."""
LEAST_CELL, LEAST_PATCH = 1.5, 0.07
"""A cell is that wide, or as its patches need to be seen apart."""
LINES_OF_WORDS, LINES_OF_MORE_WORDS = 9, 5
"""Beside the first row of an image, and beside its others."""


def check_cells(images: int, layers: Sequence[int], importance: bool) -> None:
    """Refuse more cells than a picture can show.

    Args:
        images: how many images.
        layers: pruning layers of each configuration.
        importance: whether that is drawn too.

    Raises:
        ZtpError: says how many images would fit.
    """
    of_image = len(layers) * (2 if importance else 1) * (1 + max(layers, default=0))
    cells = images * of_image
    if cells <= MOST_CELLS:
        return
    most = MOST_CELLS // of_image
    fix = f"draw at most {most} of the images" if most else "draw fewer configurations"
    raise ZtpError(
        f"a picture must have at most {MOST_CELLS} cells, but {images} images, {len(layers)} "
        f"configurations and up to {max(layers)} pruning layers make {cells}; {fix}"
    )


def token_figure(drawn: Visualization, path: Path) -> None:
    """Draw it as PNG, SVG or PDF, by the suffix.

    Raises:
        ZtpError: the path cannot be written.
    """
    layout = _Layout(drawn)
    entries = legend_entries(drawn)
    width = layout.width
    scale = scale_of(drawn)
    below = legend_height(entries, scale, width - 2 * MARGIN)
    sheet = Sheet(width, layout.rows_height + below + 2 * MARGIN)
    y = MARGIN
    for image in drawn.images:
        for row in image.reduced:
            first = row is image.reduced[0]
            y = _draw_row(sheet, layout, image, row, first, y, scale)
    draw_legend(sheet, entries, scale, MARGIN, y)
    save_picture(sheet.figure, path, DOTS_PER_INCH)


class _Layout:
    """How large cells and rows are."""

    def __init__(self, drawn: Visualization) -> None:
        height, width = drawn.images[0].pixels.shape[:2]
        columns = width // drawn.patch_size[1]
        self.drawn = drawn
        self.cell_width: float = max(LEAST_CELL, columns * LEAST_PATCH)
        self.cell_height: float = self.cell_width * height / width
        rows = [row for image in drawn.images for row in image.reduced]
        self.columns = 1 + max(1, *(len(row.layers) for row in rows))
        self.several = len(drawn.images[0].reduced) > 1
        self.rows_height = sum(
            self.title_height(image, row) + self.row_height(image, row)
            for image in drawn.images
            for row in image.reduced
        )

    @property
    def width(self) -> float:
        return 2 * MARGIN + TEXT_WIDTH + self.columns * (self.cell_width + GAP)

    def shows_importance(self, row: ReducedImage) -> bool:
        """Whether there is any to be shown."""
        ranks = any(layer.importance is not None for layer in row.layers)
        return self.drawn.importance and ranks

    def title_height(self, image: ImageView, row: ReducedImage) -> float:
        """Of what stands above the cells: once, where all rows are of one configuration."""
        first = image is self.drawn.images[0] or (self.several and row is image.reduced[0])
        return TITLE_HEIGHT if first or (self.several and row.layers) else 0.0

    def row_height(self, image: ImageView, row: ReducedImage) -> float:
        """Of a row without its titles."""
        first = row is image.reduced[0]
        lines = LINES_OF_WORDS if first else LINES_OF_MORE_WORDS
        cells = self.cell_height if first or row.layers else 0.0
        cells += self.shows_importance(row) * (GAP + self.cell_height)
        return max(cells, lines * LINE_INCHES) + ROW_GAP

    def box(self, column: int, top: float) -> Box:
        """The cell of a column; the input's is column 0."""
        left = MARGIN + TEXT_WIDTH + column * (self.cell_width + GAP)
        return Box(left, top, self.cell_width, self.cell_height)


def _draw_row(
    sheet: Sheet,
    layout: _Layout,
    image: ImageView,
    row: ReducedImage,
    first: bool,
    top: float,
    scale: Scale | None,
) -> float:
    """One configuration on one image; returns where the next row begins."""
    drawn = layout.drawn
    painter = CellPainter(sheet, image.pixels, drawn.patch_size, scale)
    title_height = layout.title_height(image, row)
    if title_height:
        if first:
            sheet.text(layout.box(0, top).left, top + LINE_INCHES, "input")
        for column, layer in enumerate(row.layers, 1):
            tokens = f"{layer.tokens_in} → {layer.tokens_out} tokens"
            words = f"after block {layer.after_block}\n{tokens}"
            sheet.text(layout.box(column, top).left, top, words)
        top += title_height
    _draw_words(sheet, MARGIN, top, image, row, first)
    if first:
        painter.input(layout.box(0, top))
    if not row.layers:
        sheet.text(layout.box(1, top).left, top, "no pruning layer", color="0.4")
    for column, layer in enumerate(row.layers, 1):
        painter.tokens(layout.box(column, top), layer)
        if layout.shows_importance(row):
            painter.importance(layout.box(column, top + layout.cell_height + GAP), layer)
    return top + layout.row_height(image, row)


def _draw_words(
    sheet: Sheet, left: float, top: float, image: ImageView, row: ReducedImage, first: bool
) -> None:
    """What stands to the left of a row."""
    y = top
    if first:
        sheet.text(left, y, image.name, TEXT_ROOM, fontweight="bold")
        label = "unknown" if image.label is None else _output(image.label)
        sheet.text(left, y + LINE_INCHES, f"label: {label}", TEXT_ROOM)
        y += 2 * LINE_INCHES
        y = _draw_prediction(sheet, left, y, "unpruned", image.unpruned, image.label)
        y += 0.5 * LINE_INCHES
    gflops = row.gflops
    sheet.text(left, y, Path(row.config).name, TEXT_ROOM, fontweight="bold")
    sheet.text(
        left, y + LINE_INCHES, f"{gflops['total']:.3g} of {gflops['unpruned']:.3g} GFLOPs"
    )
    _draw_prediction(sheet, left, y + 2 * LINE_INCHES, "pruned", row.prediction, image.label)


def _draw_prediction(
    sheet: Sheet, left: float, top: float, whose: str, prediction: NamedOutput,
    label: NamedOutput | None,
) -> float:  # fmt: skip
    """What is predicted, with its probability; returns where the next line begins."""
    verdict = ""
    if label is not None:
        verdict = " (right)" if prediction.output == label.output else " (wrong)"
    if prediction.probability is None:
        lines = [f"{whose}: not finite"]
    else:
        share = f"{100 * prediction.probability:.1f} %"
        lines = [f"{whose}: {_output(prediction)}", f"    {share}{verdict}"]
    for number, words in enumerate(lines):
        sheet.text(left, top + number * LINE_INCHES, words, TEXT_ROOM)
    return top + len(lines) * LINE_INCHES


def _output(output: NamedOutput) -> str:
    return f"{output.output}" + (f" {output.name}" if output.name else "")
