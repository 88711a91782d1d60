"""The first sentences of a report and its key numbers: what was found, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ztp_search.results.report.blocks import Interval, KeyFigure
from ztp_search.results.report.material import Material, differences, states
from ztp_search.results.report.tables import gflops_text, interval
from ztp_search.results.tables import percent, sentence

SCORES = {
    "top1": "classifies {} % of {:,} {} images correctly",
    "agreement": "predicts what the unpruned model predicts on {} % of {:,} {} images",
}
OTHER_SCORE = "scores {} % on {:,} {} images"


def first_sentences(of: Material) -> tuple[str, str]:
    """What was found, and how sure that is."""
    if of.winner is None:
        return _without_winner(of)
    gflops, objective = of.winner["gflops"], of.found.objective
    share = f"{100 * gflops['total'] / gflops['unpruned']:.3g} %"
    where = f"{gflops_text(gflops['total'])} of {gflops_text(gflops['unpruned'])} GFLOPs per image "
    where += f"({share})"
    if of.confirmed is not None and of.found.holdout is not None:
        holdout = of.found.holdout
        what = _score(objective, of.confirmed[objective], holdout["images"], "holdout")
        sure = f"{sentence(holdout['verdict'])} {_beside_unpruned(of)}"
        return f"At {where}, {of.trial} {what}.", sure
    search = of.winner["evidence"]["search"]
    what = _score(objective, search[objective], search["images"], "search")
    sure = "The best of many trials looks better than it is on the images that chose it"
    if of.found.contract["holdout"]["count"]:
        sure = f"This is not confirmed on holdout images yet. {sure}: resume the search to confirm "
        sure += "its best."
    else:
        sure = f"No holdout images were set aside. {sure}, and nothing here says by how much."
    return f"At {where}, {of.trial} {what}.", sure


def _without_winner(of: Material) -> tuple[str, str]:
    there, counts = len(of.found.standing), of.result.trials
    if not counts.running + counts.pruned + counts.failed:
        return "Nothing has been found yet.", "No trial has begun."
    if not there and counts.failed:
        return "Nothing has been found: no trial could be evaluated.", states(of)
    best = f"{there:,} trials have been evaluated so far." if there else ""
    return "Nothing has been found yet: no trial is complete.", f"{best} {states(of)}".strip()


def _score(objective: str, value: float, images: int, image_set: str) -> str:
    return SCORES.get(objective, OTHER_SCORE).format(percent(value), images, image_set)


def _beside_unpruned(of: Material) -> str:
    assert of.confirmed is not None
    against = interval(of.confirmed, "unpruned", "")
    return {
        "better": "It is shown to be better than the unpruned model",
        "worse": "It is shown to be worse than the unpruned model",
        "neither": "It is not shown to differ from the unpruned model",
    }[against.verdict] + f" ({_in_points(against)})."


def _in_points(of: Interval) -> str:
    return f"{of.value:+.2f} points, 95 % interval {of.low:+.2f} to {of.high:+.2f}"


def key_figures(of: Material) -> list[KeyFigure]:
    if of.winner is None:
        return []
    gflops = of.winner["gflops"]
    share = 100 * gflops["total"] / gflops["unpruned"]
    detail = f"{share:.3g} % of {gflops_text(gflops['unpruned'])}"
    cost = KeyFigure("GFLOPs per image", gflops_text(gflops["total"]), detail)
    return [cost, *_accuracy(of), *_speed(of.winner["evidence"].get("speed", {}))]


def _accuracy(of: Material) -> list[KeyFigure]:
    objective = of.found.objective
    if of.confirmed is None or of.found.holdout is None:
        assert of.winner is not None
        search = of.winner["evidence"]["search"]
        detail = f"{search['images']:,} search images, which chose it"
        return [KeyFigure(objective, f"{percent(search[objective])} %", detail)]
    images = f"{of.found.holdout['images']:,} holdout images"
    return [
        KeyFigure(objective, f"{percent(of.confirmed[objective])} %", images),
        *(
            KeyFigure(f"against {each.label}", f"{each.value:+.2f} points",
                      f"95 % interval {each.low:+.2f} to {each.high:+.2f}", each.verdict)
            for each in differences(of)
        ),
    ]  # fmt: skip


def _speed(speed: Mapping[str, Any]) -> list[KeyFigure]:
    """How many times as fast it is in the first engine: in large batches, and in small ones."""
    measured = [each for each in speed.get("measured", ()) if "failed" not in each]
    rows = [each for each in measured if each["engine"] == measured[0]["engine"]]
    if not rows:
        return []
    *others, largest = sorted(rows, key=lambda each: int(each["batch_size"]))
    details = [f"{largest['engine']}, {largest['batch_size']} images per pass"]
    details += [f"{each['speedup']:.2f} × with {each['batch_size']}" for each in others]
    return [KeyFigure("measured speed", f"{largest['speedup']:.2f} ×", "; ".join(details))]
