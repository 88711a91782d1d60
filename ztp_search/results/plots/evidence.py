"""What estimates are worth: on other images, and beside what ranks the trials."""

from __future__ import annotations

from typing import Any

from ztp_search.pruning.schedules import BASELINES
from ztp_search.results.documents import MEASURED
from ztp_search.results.plots.base import Found, Plot, estimate_of, images_of
from ztp_search.results.plots.marks import axis, baseline_dot, dots, line, percent
from ztp_search.study import StoredTrial

Z95 = 1.959964


class SearchAndHoldout(Plot):
    """The best few on the images that chose them, and on others."""

    title = "Search against holdout estimates"
    caption = (
        "The best trials on other images than those that chose them, with 95 % intervals: "
        "below the dotted line they do worse there."
    )

    def lacks(self, found: Found) -> str | None:
        return None if found.holdout else "no trial has been confirmed on holdout images yet"

    def draw(self, found: Found) -> dict[str, Any]:
        assert found.holdout is not None  # nothing is lacking
        holdout, objective = found.holdout, found.objective
        finalists = holdout["candidates"]
        errors = {trial.number: trial.attrs["standard_error"] for trial in found.complete}
        data = []
        for name, role, which in (
            ("finalists", "best", finalists[1:]), ("winner", "winner", finalists[:1]),
        ):  # fmt: skip
            trace = dots(
                name, [percent(each[f"search_{objective}"]) for each in which],
                [percent(each[objective]) for each in which], role, size=9,
                hover=[f"trial {each['trial']}: {percent(each[f'search_{objective}']):.2f} % on "
                       f"search, {percent(each[objective]):.2f} % on holdout" for each in which],
            )  # fmt: skip
            trace["error_x"] = _symmetric([errors.get(each["trial"], 0.0) for each in which])
            trace["error_y"] = _symmetric([each["standard_error"] for each in which])
            data.append(trace)
        for name in BASELINES:
            record = holdout.get(name)
            if record and name in found.baselines:
                data.append(
                    baseline_dot(
                        name, [percent(found.baselines[name][objective])],
                        [percent(record[objective])],
                        error_y=_symmetric([record["standard_error"]]),
                    )
                )  # fmt: skip
        if found.unpruned is not None:
            data.append(dots("unpruned", [percent(found.unpruned)],
                             [percent(holdout["unpruned"][objective])], "unpruned", size=10,
                             symbol="x"))  # fmt: skip
        values = [value for trace in data for each in ("x", "y") for value in trace[each]]
        ends = [min(values), max(values)]
        data.append(line("equal", ends, ends, "trial", dash="dot", width=1))
        return {
            "data": [each for each in data if each["x"]],
            "layout": {
                "xaxis": axis(f"{objective} in %, search images"),
                "yaxis": axis(f"{objective} in %, {holdout['images']:,} holdout images"),
            },
        }


class Signal(Plot):
    """Accuracy beside the losses that trials race by."""

    title = "Accuracy over the racing signal"
    caption = (
        "Estimated accuracy over the mean loss that racing tells trials apart by, on the "
        "images that each has seen: the more, the larger the dot."
    )

    def lacks(self, found: Found) -> str | None:
        if not found.standing:
            return "no trial has been evaluated yet"
        if _measure(found) is None:
            return "trials of this search race by right and wrong alone"
        return None

    def draw(self, found: Found) -> dict[str, Any]:
        name = _measure(found)
        assert name is not None  # nothing is lacking
        rungs = list(found.contract["racing"]["rungs"])
        data = []
        for title, role, opacity, trials in (
            (found.others_name, "trial", 0.45, found.others),
            ("complete", "best", 0.9, found.complete),
        ):  # fmt: skip
            trace = dots(title, [float(f"{t.attrs[name]:.4g}") for t in trials],
                         [percent(estimate_of(t) or 0.0) for t in trials], role,
                         hover=[_about(t, name) for t in trials], opacity=opacity)  # fmt: skip
            trace["marker"] |= {"size": [_size(t, rungs) for t in trials], "line": {"width": 0}}
            data.append(trace)
        return {
            "data": [each for each in data if each["x"]],
            "layout": {
                "xaxis": axis(f"mean {name.replace('_', ' ')}", type="log"),
                "yaxis": axis(f"{found.objective} in %, search images"),
                "legend": {"itemsizing": "constant"},
            },
        }


def _measure(found: Found) -> str | None:
    """The name of what the race measures."""
    first = found.standing[0].attrs
    return next((name for name in MEASURED if name in first), None)


def _size(trial: StoredTrial, rungs: list[int]) -> float:
    """In pixels, by the rungs that a trial has climbed."""
    climbed = sum(images_of(trial) >= rung for rung in rungs)
    return round(3 + 7 * climbed / len(rungs), 1)


def _about(trial: StoredTrial, name: str) -> str:
    value = percent(estimate_of(trial) or 0.0)
    return (f"trial {trial.number}: {value:.2f} %, {name.replace('_', ' ')} "
            f"{trial.attrs[name]:.4f} on {images_of(trial):,} images")  # fmt: skip


def _symmetric(errors: list[float]) -> dict[str, Any]:
    """95 % intervals of standard errors, in %."""
    return {"type": "data", "array": [percent(Z95 * each) for each in errors], "thickness": 1,
            "width": 3}  # fmt: skip
