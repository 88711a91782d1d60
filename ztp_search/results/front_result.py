"""What a search under several budgets has found: a winner each, and the front they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ztp_search.results.measured import throughput
from ztp_search.results.search_result import SearchResult


@dataclass(frozen=True, slots=True)
class FrontResult:
    """What a search under several budgets has found.

    results: of each budget, in the order in which they were given. seconds: of all of them.
    figure: file that draws the front, None where none could be written.
    """

    results: tuple[SearchResult, ...]
    seconds: float | None = None
    figure: str | None = None

    @property
    def objective(self) -> str:
        """What the accuracies are of: the name of the searches' objective."""
        return str(_winner(self.results[0])["provenance"]["objective"])

    @property
    def front(self) -> list[dict[str, Any]]:
        """Per budget its winner on holdout (without holdout on search images), by GFLOPs.

        `on_front` holds where no winner of fewer GFLOPs is as accurate. `speedup` is how many times
        as fast as the unpruned model a winner was measured to be, in batches.
        """
        points = sorted((_point(each) for each in self.results), key=lambda point: point["gflops"])
        highest = float("-inf")
        for point in points:
            point["on_front"] = point["accuracy"] > highest
            highest = max(highest, point["accuracy"])
        return points

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


def _point(result: SearchResult) -> dict[str, Any]:
    best, holdout = _winner(result), result.holdout
    objective = best["provenance"]["objective"]
    point = {
        "study": result.study,
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
