"""Text that must not run into what stands beside it."""

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from ztp_search.results.inches import Sheet, fitted


@pytest.mark.parametrize("weight", ["normal", "bold"])
@pytest.mark.parametrize(
    "words", ["W" * 60, "a little lily in still light, " * 5, "a $b_{c}$ " * 9, "short"]
)
def test_words_are_cut_to_what_fits(words: str, weight: str) -> None:
    sheet = Sheet(4.0, 1.0)
    sheet.text(0.5, 0.1, words, 1.5, fontweight=weight)
    renderer = FigureCanvasAgg(sheet.figure).get_renderer()
    (drawn,) = sheet.axes.texts
    width = drawn.get_window_extent(renderer).width / sheet.figure.dpi
    assert width <= 1.5 * 1.05  # glyphs are hinted when they are drawn
    shown = drawn.get_text()
    assert shown == words if words == "short" else shown.endswith("…") and width > 1.3
    assert words.startswith(shown.removesuffix("…"))


def test_where_nothing_fits_nothing_is_shown() -> None:
    assert fitted("words", 0.01) == ""
