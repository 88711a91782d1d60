"""How the race went: who is left on which rung, and who led when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ztp_search.racing import Results
from ztp_search.results.plots.base import Found, Plot, estimate_of, images_of, interval_of
from ztp_search.results.plots.marks import axis, bars_of, dots, line, percent
from ztp_search.results.plots.theme import colour
from ztp_search.study import StoredTrial
from ztp_search.study.packing import unpack_bits, unpack_losses


class Survival(Plot):
    """How many trials came how far."""

    title = "Survival from rung to rung"
    caption = (
        "How many trials were evaluated on at least so many images: racing lets the best "
        "go on from rung to rung."
    )

    def lacks(self, found: Found) -> str | None:
        if not found.standing:
            return "no trial has been evaluated yet"
        if len(found.contract["racing"]["rungs"]) < 2:
            return "this search evaluates every trial in full: there are no rungs"
        return None

    def draw(self, found: Found) -> dict[str, Any]:
        rungs = found.contract["racing"]["rungs"]
        seen = Counter(images_of(trial) for trial in found.standing)
        left = [sum(n for images, n in seen.items() if images >= rung) for rung in rungs]
        shares = [f"{n:,}<br>{100 * n / left[0]:.3g} %" for n in left]
        return {
            "data": [
                {"type": "bar", "x": [f"{rung:,}" for rung in rungs], "y": left, "text": shares,
                 "textposition": "outside", "cliponaxis": False, "showlegend": False,
                 "marker": {"color": colour("best")}, "hoverinfo": "skip"}
            ],
            "layout": {
                "uniformtext": {"mode": "show", "minsize": 8},
                "xaxis": axis("search images seen", type="category"),
                "yaxis": axis("trials", **({"type": "log", "dtick": 1} if left[0] >= 50 else {})),
            },
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Lead:
    """After so many image evaluations a trial led the race."""

    evaluations: int
    trial: StoredTrial


class Progress(Plot):
    """What the leading trial is worth, over the image evaluations spent."""

    title = "Progress over image evaluations"
    caption = (
        "Which trial led after so many image evaluations, and what is known of it by now, "
        "with the 95 % interval of its difference from the unpruned model."
    )

    def lacks(self, found: Found) -> str | None:
        return None if found.standing else "no trial has been evaluated yet"

    def draw(self, found: Found) -> dict[str, Any]:
        leads = list(leaders(found))
        x = [each.evaluations for each in leads]
        values = [estimate_of(each.trial) or 0.0 for each in leads]
        lows, highs = zip(*(interval_of(each.trial) for each in leads), strict=True)
        hover = [f"trial {each.trial.number} leads after {each.evaluations:,} image evaluations: "
                 f"{percent(value):.2f} %" for each, value in zip(leads, values, strict=True)]
        trace = dots("leading trial", x, map(percent, values), "best", hover=hover,
                     error_y=bars_of(values, lows, highs))  # fmt: skip
        data = [trace | {"mode": "lines+markers", "line": {"shape": "hv", "width": 1.5,
                                                           "color": colour("best")}}]  # fmt: skip
        if found.unpruned is not None:
            ends = [min(x), max(x)]
            data.append(line("unpruned", ends, 2 * [percent(found.unpruned)], "unpruned",
                             dash="dot"))  # fmt: skip
        return {
            "data": data,
            "layout": {
                "xaxis": axis("image evaluations of trials", type="log"),
                "yaxis": axis(f"{found.objective} in %, search images"),
            },
        }


def leaders(found: Found) -> Iterator[Lead]:
    """Who led when: at the end of every rung, or where there is one alone at every change.

    It leads who loses least on the images of the rung, which all of its trials have seen, the
    leader before them too if it has seen as many.
    """
    evaluated = {trial.number: trial for trial in found.standing}
    results = {number: _results(trial) for number, trial in evaluated.items()}
    rungs = found.contract["racing"]["rungs"]
    spent, leader = 0, -1
    for plan in found.attributes.get("cohorts", []):
        cohort = [n for n in range(plan["start"], plan["stop"]) if n in evaluated]
        for before, rung in zip([0, *rungs], rungs, strict=False):
            climbed = [number for number in cohort if len(results[number]) >= rung]
            if leader not in results or len(results[leader]) < rung:
                leader = climbed[0] if climbed else leader
            for number in climbed:
                spent += rung - before
                if results[number].first(rung).loss < results[leader].first(rung).loss:
                    leader = number
                    if len(rungs) == 1:
                        yield Lead(spent, evaluated[leader])
            if climbed:
                yield Lead(spent, evaluated[leader])


def _results(trial: StoredTrial) -> Results:
    attrs: Mapping[str, Any] = trial.attrs
    losses = attrs.get("losses")
    return Results(
        unpack_bits(attrs["correct"], images_of(trial)),
        None if losses is None else unpack_losses(losses),
    )
