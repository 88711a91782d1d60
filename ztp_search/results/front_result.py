"""What a search under several budgets has found: a winner each, and the front they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from ztp_search.results.html import html_of, picture_html
from ztp_search.results.measured import throughput
from ztp_search.results.search_result import SearchResult
from ztp_search.results.shown import Shown
from ztp_search.results.tables import search_tables


@dataclass(frozen=True, slots=True, repr=False)
class FrontResult(Shown):
    """What a search under several budgets has found.

    Attributes:
        results: of each budget, in the order in which they were given.
        seconds: of all of them.
        figure: file that draws the front, None where none could be written.
    """

    results: tuple[SearchResult, ...]
    seconds: float | None = None
    figure: str | None = None

    @property
    def objective(self) -> str:
        """The name of the objective that the accuracies are of."""
        return str(_winner(self.results[0])["provenance"]["objective"])

    @property
    def front(self) -> list[dict[str, Any]]:
        """Per budget its winner on holdout (without holdout on search images), by GFLOPs.

        `on_front` holds where no winner of fewer GFLOPs is as accurate. `speedup` is how many times
        as fast as the unpruned model a winner was measured to be, in batches.
        """
        return marked_front(
            [budget_point(each.study, _winner(each), each.holdout) for each in self.results]
        )

    def to_dict(self) -> dict[str, Any]:
        """The document that `ztp-search --json` prints under several budgets."""
        document: dict[str, Any] = {
            "storage": self.results[0].storage,
            "objective": self.objective,
            "image_evaluations": sum(each.image_evaluations for each in self.results),
            "front": self.front,
            "budgets": [replace(each, seconds=None).to_dict() for each in self.results],
        }
        if self.seconds is not None:
            document["seconds"] = self.seconds
        if self.figure is not None:
            document["figure"] = self.figure
        return document

    def __rich__(self) -> RenderableType:
        return search_tables(self.to_dict())

    def _repr_html_(self) -> str:
        figure = None if self.figure is None else Path(self.figure)
        return html_of(self.__rich__()) + picture_html(figure)


def marked_front(points: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Points by GFLOPs, each marked as `on_front` where none of fewer GFLOPs is as accurate."""
    points = sorted(points, key=lambda point: point["gflops"])
    highest = float("-inf")
    for point in points:
        point["on_front"] = point["accuracy"] > highest
        highest = max(highest, point["accuracy"])
    return points


def budget_point(
    study: str, best: Mapping[str, Any], holdout: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The winner of a budget on holdout images, without any on search images.

    Args:
        study: its name.
        best: the winner's configuration file.
        holdout: the comparison on holdout images.
    """
    objective = best["provenance"]["objective"]
    point = {
        "study": study,
        "budget_gflops": best["provenance"]["budget"]["macs"] / 1e9,
        "trial": best["provenance"]["trial"],
        "gflops": best["gflops"]["total"],
        "unpruned_gflops": best["gflops"]["unpruned"],
        "search_accuracy": best["evidence"]["search"][objective],
    }
    row = throughput(best["evidence"].get("speed"))
    if row is not None:
        point["speedup"] = row["speedup"]
    if holdout is None:
        search = best["evidence"]["search"]
        return point | {
            "image_set": "search",
            "images": search["images"],
            "accuracy": search[objective],
            "standard_error": search["standard_error"],
            "unpruned_accuracy": search[f"unpruned_{objective}"],
            "minus_unpruned": search["minus_unpruned"],
            "minus_unpruned_ci95": search["minus_unpruned_ci95"],
        }
    winner = holdout["candidates"][0]
    names = [name for name in winner if name.startswith("minus_") or name == "standard_error"]
    return point | {
        "image_set": "holdout",
        "images": holdout["images"],
        "accuracy": winner[objective],
        "unpruned_accuracy": holdout["unpruned"][objective],
        **{name: winner[name] for name in names},
    }


def _winner(result: SearchResult) -> Mapping[str, Any]:
    """The winner as a document; a search that ends has one."""
    assert result.winner is not None
    return result.winner.to_dict()
