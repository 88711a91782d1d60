"""Measured speed as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from ztp_search.results.plain_table import plain_table


def speed_table(speed: Mapping[str, Any], name: str = "pruned") -> RenderableType:
    """What was measured of the speed of a configuration, and what could not be.

    Args:
        speed: the record, as `evaluation.speed` makes it.
        name: of the configuration.
    """
    machine, measured = speed["machine"], speed["measured"]
    rows = [row for row in measured if "failed" not in row]
    failed = {row["engine"]: row["failed"] for row in measured if "failed" in row}
    parts: list[RenderableType] = [
        Text(f"Speed in {engine} is not measured: {why}") for engine, why in failed.items()
    ]
    if rows:
        where = machine["gpu"] if speed["device"] == "cuda" else machine["processor"]
        turns = [row["repeats"] for row in rows]
        table = plain_table(
            f"Speed on {where}, {speed['threads']} thread{'s' * (speed['threads'] > 1)}, beside "
            f"{speed['unpruned']}: medians and quartiles of {_span(min(turns), max(turns))} turns; "
            f"GFLOPs promise {speed['promised_speedup']:.2f} times",
            "", "precision", "images", "unpruned", name, "times as fast",
        )  # fmt: skip
        for row in rows:
            low, high = row["speedup_quartiles"]
            table.add_row(
                row["engine"], row["precision"], str(row["batch_size"]),
                *(_speed(row, which) for which in ("unpruned", "pruned")),
                f"{row['speedup']:.2f} [{low:.2f}, {high:.2f}]",
            )  # fmt: skip
        parts.insert(0, table)
    return Group(*parts)


def _speed(row: Mapping[str, Any], which: str) -> str:
    """Latency of single images, throughput of batches."""
    if row["batch_size"] == 1:
        return f"{row[which]['milliseconds']:.3g} ms"
    speed = row[which]["images_per_second"]
    return f"{speed:,.0f} images/s" if speed >= 100 else f"{speed:.3g} images/s"


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"
