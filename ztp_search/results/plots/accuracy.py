"""Accuracy over GFLOPs: of the trials of a study, and of the budgets of a search."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from ztp_search.pruning.methods import parse_config
from ztp_search.pruning.schedules import BASELINES
from ztp_search.results.plots.base import Found, Plot, estimate_of, images_of, interval_of
from ztp_search.results.plots.marks import axis, bars_of, baseline_dot, dots, line, percent
from ztp_search.study import StoredTrial

ROOM = 0.15
"""Of the range of accuracies shown, left free above and below."""


class Accuracy(Plot):
    """Every trial, with intervals where racing has let it live."""

    title = "Accuracy over GFLOPs"
    caption = (
        "Accuracy on search images: complete trials with the 95 % interval of their "
        "difference from the unpruned model; grey ones were stopped after a few images."
    )

    def lacks(self, found: Found) -> str | None:
        return None if found.standing else "no trial has been evaluated yet"

    def draw(self, found: Found) -> dict[str, Any]:
        hand_set = {parse_config(each["config"]) for each in found.baselines.values()}
        complete = [trial for trial in found.complete if trial.config not in hand_set]
        data = [
            dots(found.others_name, [_gflops(t) for t in found.others],
                 [percent(estimate_of(t) or 0.0) for t in found.others], "trial",
                 hover=[_about(t) for t in found.others], size=5, opacity=0.45)
        ]  # fmt: skip
        shown = [percent(each[found.objective]) for each in found.baselines.values()]
        if complete:
            lows, highs = zip(*(interval_of(t) for t in complete), strict=True)
            values = [t.value or 0.0 for t in complete]
            for name, role, which in (
                ("complete", "best", slice(1, None)), ("best", "winner", slice(0, 1)),
            ):  # fmt: skip
                data.append(
                    dots(name, [_gflops(t) for t in complete[which]],
                         [percent(value) for value in values[which]], role,
                         hover=[_about(t) for t in complete[which]],
                         error_y=bars_of(values[which], lows[which], highs[which]))
                )  # fmt: skip
            shown += [percent(each) for each in (*lows, *highs)]
        for name, record in found.baselines.items():
            value = float(record[found.objective])
            dot = baseline_dot(name, [record["gflops"]["total"]], [percent(value)])
            trial = _trial_of(found, record["config"])
            if trial is not None and trial.value == value:
                low, high = interval_of(trial)
                dot["error_y"] = bars_of([value], [low], [high])
                shown += [percent(low), percent(high)]
            data.append(dot)
        if found.unpruned is not None:
            ends = _ends([_gflops(t) for t in found.standing])
            full = found.standing[0].attrs["gflops"]["unpruned"]
            data.append(line(f"unpruned ({full:.3g} GFLOPs)", ends, 2 * [percent(found.unpruned)],
                             "unpruned", dash="dot"))  # fmt: skip
            shown.append(percent(found.unpruned))
        layout: dict[str, Any] = {
            "xaxis": axis("GFLOPs per image"),
            "yaxis": axis(f"{found.objective} in %, search images"),
        }
        if complete:
            room = ROOM * max(1.0, max(shown) - min(shown))
            layout["yaxis"]["range"] = [min(shown) - room, min(100.5, max(shown) + room)]
        return {"data": [each for each in data if each["x"]], "layout": layout}


class Budgets(Plot):
    """The winner of each budget of one search."""

    title = "Budgets side by side"
    caption = (
        "Each budget's winner with the 95 % interval of its difference from the unpruned "
        "model, beside hand-set schedules; the line joins winners that no cheaper one "
        "reaches."
    )

    def lacks(self, found: Found) -> str | None:
        if len(found.budgets) > 1:
            return None
        return "no other budget of this search has a winner in this database"

    def draw(self, found: Found) -> dict[str, Any]:
        points = found.budgets
        x = [point["gflops"] for point in points]
        values = [point["accuracy"] for point in points]
        lows = [each["unpruned_accuracy"] + each["minus_unpruned_ci95"][0] for each in points]
        highs = [each["unpruned_accuracy"] + each["minus_unpruned_ci95"][1] for each in points]
        front = [point for point in points if point["on_front"]]
        hover = [f"{escape(each['study'])}<br>trial {each['trial']}: "
                 f"{percent(each['accuracy']):.2f} % at {each['gflops']:.4g} GFLOPs"
                 for each in points]  # fmt: skip
        data = [
            line("front", [each["gflops"] for each in front],
                 [percent(each["accuracy"]) for each in front], "best", shape="hv", width=1),
            dots("winner", x, map(percent, values), "best", hover=hover,
                 error_y=bars_of(values, lows, highs)),
        ]  # fmt: skip
        for name in BASELINES:
            fitting = [each for each in points if f"minus_{name}" in each]
            if fitting:
                data.append(
                    baseline_dot(
                        name, [each["gflops"] for each in fitting],
                        [percent(each["accuracy"] - each[f"minus_{name}"]) for each in fitting],
                    )
                )  # fmt: skip
        unpruned = points[0]["unpruned_gflops"]
        data.append(line(f"unpruned ({unpruned:.3g} GFLOPs)", _ends(x),
                         2 * [percent(points[0]["unpruned_accuracy"])], "unpruned",
                         dash="dot"))  # fmt: skip
        mine = [each for each in points if each["study"] == found.study]
        data += [
            dots("this study", [each["gflops"]], [percent(each["accuracy"])], "winner", size=14,
                 symbol="circle-open", hoverinfo="skip")
            for each in mine
        ]  # fmt: skip
        images = f"{points[0]['images']:,} {points[0]['image_set']} images"
        return {
            "data": data,
            "layout": {
                "xaxis": axis("GFLOPs per image"),
                "yaxis": axis(f"{found.objective} in %, {images}"),
            },
        }


def _trial_of(found: Found, config: Mapping[str, Any]) -> StoredTrial | None:
    wanted = parse_config(config)
    return next((trial for trial in found.standing if trial.config == wanted), None)


def _gflops(trial: StoredTrial) -> float:
    gflops: Mapping[str, float] = trial.attrs["gflops"]
    return gflops["total"]


def _about(trial: StoredTrial) -> str:
    value = percent(estimate_of(trial) or 0.0)
    return f"trial {trial.number}: {value:.2f} % on {images_of(trial):,} images"


def _ends(values: list[float]) -> list[float]:
    return [min(values), max(values)]
