"""Images before and after pruning, as pictures with words beside them rather than in them."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg

from ztp_search.results.inches import Box, Sheet
from ztp_search.results.report.blocks import Cell, Pictures, Row
from ztp_search.results.tables import percent
from ztp_search.results.token_cells import DOTS_PER_INCH, CellPainter
from ztp_search.results.token_figure import LEAST_CELL, LEAST_PATCH
from ztp_search.results.token_legend import ENTRIES, SHARED, legend_entries
from ztp_search.results.token_maps import Fate, LayerMap
from ztp_search.results.token_pictures import BEFORE_COLOUR, I_COLOUR, S_COLOUR, grid_of
from ztp_search.results.visualization import ImageView, NamedOutput, ReducedImage, Visualization

NAMES = {Fate.S_DROPPED: "s-dropped", Fate.I_DROPPED: "i-dropped",
         Fate.DROPPED_BEFORE: "before", Fate.S_MERGED: "s-merged", Fate.I_MERGED: "i-merged",
         SHARED: "shared"}  # fmt: skip
"""Of the marks of the legend."""
MARKS = {
    "s-dropped": f"background: {S_COLOUR}",
    "i-dropped": f"background: {I_COLOUR}",
    "before": f"background: repeating-linear-gradient(135deg, #999 0 1px, {BEFORE_COLOUR} 1px 4px)",
    "s-merged": f"border: 1px solid #fff; border-radius: 50%; background: {S_COLOUR}",
    "i-merged": f"border: 1px solid #fff; border-radius: 50%; background: {I_COLOUR}",
    "shared": "border: 2px solid #000; outline: 1px solid #fff; background: #b3b3b3",
}
"""How they look, as CSS."""
STAGES = {"s": "as similar", "i": "as unimportant"}


def pictures(seen: Visualization) -> Pictures:
    """What one configuration has done to images."""
    return Pictures(
        [_row(seen, image, image.reduced[0]) for image in seen.images],
        [(NAMES[entry], ENTRIES[entry]) for entry in legend_entries(seen)],
    )


def _row(seen: Visualization, image: ImageView, reduced: ReducedImage) -> Row:
    cells = [Cell("input", "", _png(seen, image, None), f"{image.name}, as the model sees it")]
    for layer in reduced.layers:
        title = f"after block {layer.after_block}"
        detail = f"{layer.tokens_in} → {layer.tokens_out} tokens"
        words = f"{image.name} {title}: {_taken_out(layer)}; {layer.tokens_out} tokens are left"
        cells.append(Cell(title, detail, _png(seen, image, layer), words))
    label = [] if image.label is None else [f"label: {_output(image.label)}"]
    lines = [
        *label,
        f"unpruned: {_prediction(image.unpruned, image.label)}",
        f"pruned: {_prediction(reduced.prediction, image.label)}",
    ]
    return Row(image.name, lines, cells)


def _png(seen: Visualization, image: ImageView, layer: LayerMap | None) -> bytes:
    """The image as a layer leaves it; None: as it comes in."""
    height, width = image.pixels.shape[:2]
    columns = grid_of(image.pixels, seen.patch_size)[1]
    inches = max(LEAST_CELL, columns * LEAST_PATCH)
    sheet = Sheet(inches, inches * height / width)
    box = Box(0.0, 0.0, sheet.width, sheet.height)
    painter = CellPainter(sheet, image.pixels, seen.patch_size, None)
    if layer is None:
        painter.input(box)
    else:
        painter.tokens(box, layer)
    FigureCanvasAgg(sheet.figure)
    out = io.BytesIO()
    sheet.figure.savefig(
        out, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None},
        pil_kwargs={"optimize": True},
    )  # fmt: skip
    return out.getvalue()


def _taken_out(layer: LayerMap) -> str:
    parts = [
        f"{count} {fate} {why}"
        for stage, why in STAGES.items()
        for fate, counts in (("dropped", layer.dropped), ("merged", layer.merged))
        if (count := counts[stage])
    ]
    return ", ".join(parts) or "nothing taken out"


def _prediction(output: NamedOutput, label: NamedOutput | None) -> str:
    if output.probability is None:
        return "not finite"
    verdict = ""
    if label is not None:
        verdict = ", right" if output.output == label.output else ", wrong"
    return f"{_output(output)} ({percent(output.probability)} %{verdict})"


def _output(output: NamedOutput) -> str:
    return f"{output.output}" + (f" {output.name}" if output.name else "")
