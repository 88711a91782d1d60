"""Documents as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from ztp_search.pruning.schedules import BASELINES
from ztp_search.results.picture_file import refused_in_one_line, save_picture


def front_figure(document: Mapping[str, Any], path: Path) -> None:
    """Accuracy over GFLOPs of each budget's winner, with 95 % intervals, as PNG, SVG or PDF.

    document: of a search under several budgets. The intervals are those of the difference from
    the unpruned model, which is what sets the winners apart; its own accuracy is a line. Hand-set
    schedules stand beside the winners of the same budgets. ZtpError where it cannot be written.
    """
    points = document["front"]
    unpruned = 100 * points[0]["unpruned_accuracy"]
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(unpruned, color="0.5", linestyle=":", label=f"unpruned ({_of(points[0])})")
    front = [point for point in points if point["on_front"]]
    front.append(front[-1] | {"gflops": points[-1]["gflops"]})  # as far as was looked
    axes.plot(
        [point["gflops"] for point in front], [100 * point["accuracy"] for point in front],
        color="C0", drawstyle="steps-post", linewidth=1, label="front",
    )  # fmt: skip
    values = [100 * point["accuracy"] for point in points]
    bounds = [_interval(point) for point in points]
    axes.errorbar(
        [point["gflops"] for point in points], values,
        yerr=[
            [max(0.0, value - low) for value, (low, _) in zip(values, bounds, strict=True)],
            [max(0.0, high - value) for value, (_, high) in zip(values, bounds, strict=True)],
        ],
        fmt="o", color="C0", capsize=3, label="winner, 95 % interval",
    )  # fmt: skip
    for index, (name, baseline) in enumerate(BASELINES.items(), 1):
        fitting = [point for point in points if f"minus_{name}" in point]
        if fitting:
            axes.plot(
                [point["gflops"] for point in fitting],
                [100 * (point["accuracy"] - point[f"minus_{name}"]) for point in fitting],
                color=f"C{index}", marker="sD^v"[index % 4], markersize=5, linestyle="--",
                linewidth=1, label=baseline.title,
            )  # fmt: skip
    axes.set_xlabel("GFLOPs per image")
    axes.set_ylabel(
        f"{document['objective']} in % on {points[0]['images']:,} {points[0]['image_set']} images"
    )
    axes.grid(alpha=0.3)
    figure.legend(loc="outside upper center", ncols=3, fontsize="small")  # off the data
    with refused_in_one_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(figure, path)


def _of(point: Mapping[str, Any]) -> str:
    return f"{point['unpruned_gflops']:.3g} GFLOPs"


def _interval(point: Mapping[str, Any]) -> tuple[float, float]:
    """In %: the interval of the difference, laid at the unpruned model's accuracy."""
    low, high = point["minus_unpruned_ci95"]
    return 100 * (point["unpruned_accuracy"] + low), 100 * (point["unpruned_accuracy"] + high)
