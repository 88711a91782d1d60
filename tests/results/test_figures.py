"""The picture of several budgets: what it draws of a document."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from ztp_search.errors import ZtpError
from ztp_search.results.figures import front_figure

SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"


def front(*accuracies: float) -> dict[str, Any]:
    """A document of one winner per GFLOP from 1; on the front is what beats all cheaper ones."""
    points = [
        {
            "gflops": 1.0 + index,
            "accuracy": accuracy,
            "images": 2000,
            "image_set": "holdout",
            "unpruned_accuracy": 0.9,
            "unpruned_gflops": 4.6,
            "minus_unpruned_ci95": [accuracy - 0.91, accuracy - 0.88],
            "on_front": accuracy > max(accuracies[:index], default=0.0),
        }
        for index, accuracy in enumerate(accuracies)
    ]
    return {"objective": "top1", "front": points}


def markers(path: Path) -> list[tuple[float, float]]:
    """Where the winners' points stand in the picture, left to right: x, y in its units."""
    tree = ElementTree.parse(path)
    blue = [use for use in tree.iter(f"{SVG}use") if "fill: #1f77b4" in (use.get("style") or "")]
    point = blue[-1].get(HREF)  # the legend's: other blue shapes end the intervals
    points = [use for use in blue[:-1] if use.get(HREF) == point]
    return sorted((float(use.attrib["x"]), float(use.attrib["y"])) for use in points)


@pytest.mark.parametrize("accuracies", [(0.7, 0.8, 0.85), (0.7, 0.65, 0.85), (0.8,)])
def test_every_budget_is_a_point_in_proportion_to_its_gflops_and_accuracy(
    tmp_path: Path, accuracies: tuple[float, ...]
) -> None:
    path = tmp_path / "front.svg"
    front_figure(front(*accuracies), path)
    found = markers(path)
    assert len(found) == len(accuracies)
    if len(found) == 3:
        (x0, y0), (x1, y1), (x2, y2) = found
        assert x1 - x0 == pytest.approx(x2 - x1, abs=1e-3)
        a0, a1, a2 = accuracies
        assert (y1 - y0) / (y2 - y0) == pytest.approx((a1 - a0) / (a2 - a0), abs=1e-3)
        assert y2 < y0  # SVG counts downwards


def test_the_same_document_is_drawn_as_png_where_the_name_says_so(tmp_path: Path) -> None:
    path = tmp_path / "new" / "front.png"
    front_figure(front(0.7, 0.8), path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ZtpError) as error:
        front_figure(front(0.7), tmp_path / "file" / "front.svg")
    assert "cannot be written" in str(error.value)


def test_hand_set_schedules_stand_below_the_winners_by_their_differences(tmp_path: Path) -> None:
    document = front(0.8, 0.8, 0.8)
    for point, paper in zip(document["front"], (0.2, 0.1, 0.0), strict=True):
        point["minus_paper_schedule"] = paper
    document["front"][0]["minus_tome"] = 0.1  # under the other budgets it does not fit
    path = tmp_path / "front.svg"
    front_figure(document, path)
    winners = markers(path)
    uses = list(ElementTree.parse(path).iter(f"{SVG}use"))
    heights = {}
    for name, colour in (("paper", "#ff7f0e"), ("tome", "#2ca02c")):
        fill = f"fill: {colour}"
        mine = [use for use in uses if fill in (use.get("style") or "")][:-1]  # the legend's
        at = sorted((float(use.attrib["x"]), float(use.attrib["y"])) for use in mine)
        heights[name] = [y for _, y in at]
    unit = (heights["paper"][0] - winners[0][1]) / 0.2
    below = [y - at for y, (_, at) in zip(heights["paper"], winners, strict=True)]
    assert below == pytest.approx([0.2 * unit, 0.1 * unit, 0.0], abs=1e-3)
    assert heights["tome"] == pytest.approx([winners[0][1] + 0.1 * unit], abs=1e-3)
