"""Pixels of an image as a layer leaves it: dropped, merged and kept patches, on any grid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ztp_search.errors import ZtpError
from ztp_search.results.token_figure import MOST_CELLS, check_cells, token_figure
from ztp_search.results.token_legend import legend_entries
from ztp_search.results.token_maps import DROPPED, Fate, LayerMap
from ztp_search.results.token_pictures import (
    BEFORE_COLOUR,
    I_COLOUR,
    S_COLOUR,
    outlines,
    painted,
    relative_importance,
    rgb,
)
from ztp_search.results.visualization import (
    ImageView,
    NamedOutput,
    ReducedImage,
    Visualization,
)


def layer(fates: list[int], groups: list[int], importance: Any = None) -> LayerMap:
    return LayerMap(
        1, len(fates) + 1, 1 + len({group for group in groups if group >= 0}),
        {"s": 0, "i": 0}, {"s": 0, "i": 0}, np.array(fates, np.uint8),
        np.arange(len(fates)), np.array(groups), importance,
    )  # fmt: skip


PIXELS = np.random.default_rng(0).integers(0, 256, (6, 12, 3)).astype(np.uint8)
PATCH = (3, 4)
"""Two rows of three patches, of three by four pixels."""
MIXED = layer(
    [Fate.KEPT, Fate.S_DROPPED, Fate.S_MERGED, Fate.DROPPED_BEFORE, Fate.I_DROPPED, Fate.KEPT],
    [0, DROPPED, 5, DROPPED, DROPPED, 5],
)  # fmt: skip


def patch(pixels: Any, number: int) -> Any:
    row, column = divmod(number, 3)
    return pixels[3 * row : 3 * row + 3, 4 * column : 4 * column + 4].reshape(-1, 3)


def test_a_dropped_patch_has_the_colour_of_its_stage_and_a_kept_one_shows_the_image() -> None:
    out = painted(PIXELS, PATCH, MIXED)
    assert np.array_equal(patch(out, 0), patch(PIXELS, 0))
    for number, colour in ((1, S_COLOUR), (4, I_COLOUR), (3, BEFORE_COLOUR)):
        assert (patch(out, number) == rgb(colour)).all()


def test_patches_of_one_token_have_their_mean_colour() -> None:
    out = painted(PIXELS, PATCH, MIXED)
    together = np.concatenate([patch(PIXELS, 2), patch(PIXELS, 5)]).astype(float)
    mean = [round(sum(channel) / len(channel)) for channel in together.T]
    for number in (2, 5):
        assert (patch(out, number) == mean).all()


def test_pixels_beyond_the_last_patch_are_in_none() -> None:
    wider = np.concatenate([PIXELS, PIXELS[:, :3]], axis=1)
    nothing_left = layer([Fate.S_DROPPED] * 6, [DROPPED] * 6)
    out = painted(wider, PATCH, nothing_left)
    assert np.array_equal(out[:, 12:], wider[:, 12:])
    assert (out[:, :12] == rgb(S_COLOUR)).all()


def borders_by_hand(groups: list[int], columns: int) -> set[tuple[tuple[float, float], ...]]:
    """One patch and one side at a time."""
    rows = len(groups) // columns
    out = set()
    for number, group in enumerate(groups):
        if group < 0 or groups.count(group) == 1:
            continue
        row, column = divmod(number, columns)
        sides = {
            (row - 1, column): ((column, row), (column + 1, row)),
            (row + 1, column): ((column, row + 1), (column + 1, row + 1)),
            (row, column - 1): ((column, row), (column, row + 1)),
            (row, column + 1): ((column + 1, row), (column + 1, row + 1)),
        }
        for (r, c), line in sides.items():
            inside = 0 <= r < rows and 0 <= c < columns
            if not inside or groups[r * columns + c] != group:
                out.add(line)
    return out


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("columns", [3, 4])
def test_outlines_are_around_the_patches_that_share_a_token(seed: int, columns: int) -> None:
    groups = np.random.default_rng(seed).integers(-1, 6, 12)
    found = outlines(groups, columns)
    assert {tuple(map(tuple, line)) for line in found.tolist()} == borders_by_hand(
        groups.tolist(), columns
    )
    assert len(found) == len({tuple(map(tuple, line)) for line in found.tolist()})


def test_importance_is_over_its_mean_of_the_tokens_that_were_ranked() -> None:
    values = np.array([0.1, 0.2, 0.6, np.nan, 0.3, 0.3])
    shared = LayerMap(
        1, 6, 5, {}, {}, np.zeros(6, np.uint8), np.array([0, 1, 2, DROPPED, 4, 4]),
        np.arange(6), values,
    )  # fmt: skip
    expected = np.array([[0.1, 0.2, 0.6], [np.nan, 0.3, 0.3]]) / 0.3  # the last two are one
    found = relative_importance(shared, 3)
    assert found is not None
    np.testing.assert_allclose(found, expected)
    assert relative_importance(MIXED, 3) is None


# ---- the whole figure ----------------------------------------------------------------------

MAGENTA = (200, 0, 200)


def drawing(*layers: LayerMap, importance: bool = False, images: int = 1) -> Visualization:
    """Of pictures in one colour, four by four pixels with four patches."""
    pixels = np.full((4, 4, 3), MAGENTA, np.uint8)
    prediction = NamedOutput(1, "a $name_ of} some length, which is cut", 0.5)
    reduced = ReducedImage(
        "c.json", {"total": 1.0, "unpruned": 2.0}, prediction, layers
    )
    image = ImageView("a.png", pixels, NamedOutput(3), prediction, (reduced,))
    return Visualization("out", "vit", (2, 2), importance, (image,) * images)


def inches_of(path: Path, colour: tuple[int, ...]) -> float:
    """The area of a colour in a PNG, in square inches."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
        dots = image.info["dpi"][0]
    return float((pixels == colour).all(-1).sum()) / dots**2


def test_the_picture_shows_each_patch_in_its_colour(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    fates = [Fate.S_DROPPED, Fate.S_DROPPED, Fate.I_DROPPED, Fate.KEPT]
    token_figure(drawing(layer(fates, [DROPPED, DROPPED, DROPPED, 3])), path)
    of_patch = 0.75**2  # a quarter of a cell of 1.5 inches
    of_legend = 0.13**2
    assert inches_of(path, rgb(S_COLOUR)) == pytest.approx(2 * of_patch + of_legend, rel=0.02)
    assert inches_of(path, rgb(I_COLOUR)) == pytest.approx(of_patch + of_legend, rel=0.02)
    assert inches_of(path, MAGENTA) == pytest.approx((4 + 1) * of_patch, rel=0.02)


def test_the_legend_names_what_occurs_and_no_more() -> None:
    assert legend_entries(drawing(layer([Fate.KEPT] * 4, [0, 1, 2, 3]))) == []
    merged = layer([Fate.KEPT, Fate.I_MERGED, Fate.S_DROPPED, Fate.KEPT], [0, 0, DROPPED, 3])
    assert legend_entries(drawing(merged)) == [Fate.S_DROPPED, Fate.I_MERGED, "shares"]


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".PNG"])
def test_the_suffix_names_the_format_and_nothing_else_is_left(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    ranked = layer([Fate.I_DROPPED] + [Fate.KEPT] * 3, [DROPPED, 1, 2, 3], np.arange(4.0))
    token_figure(drawing(ranked, MIXED_FOUR, importance=True, images=3), path)
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix.lower()]
    assert path.read_bytes().startswith(start)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


MIXED_FOUR = layer([Fate.KEPT, Fate.S_MERGED, Fate.I_MERGED, Fate.MERGED_BEFORE], [0] * 4)


def test_the_same_drawing_is_the_same_file(tmp_path: Path) -> None:
    for suffix in ("png", "pdf"):
        one, two = tmp_path / f"1.{suffix}", tmp_path / f"2.{suffix}"
        for path in (one, two):
            token_figure(drawing(MIXED_FOUR), path)
        assert one.read_bytes() == two.read_bytes()


def test_a_configuration_without_layers_is_drawn_too(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    token_figure(drawing(importance=True), path)
    assert inches_of(path, MAGENTA) == pytest.approx(1.5**2, rel=0.02)


def test_a_picture_that_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "folder.png", tmp_path / "missing" / "a.png"):
        with pytest.raises(ZtpError, match="cannot be written"):
            token_figure(drawing(MIXED_FOUR), path)
    assert [each.name for each in tmp_path.iterdir()] == ["folder.png"]


def test_more_cells_than_a_picture_shows_are_refused_with_what_fits() -> None:
    check_cells(20, [3], importance=False)  # 80
    assert MOST_CELLS == 400
    with pytest.raises(ZtpError, match="at most 400 cells, but 101 images.*404; draw at most 100"):
        check_cells(101, [3], importance=False)
    with pytest.raises(ZtpError, match="2 configurations .* up to 11 .* draw at most 8 of"):
        check_cells(9, [3, 11], importance=True)
    with pytest.raises(ZtpError, match="draw fewer configurations"):
        check_cells(1, [11] * 40, importance=False)
