"""The tables of a report, from the documents that `--json` prints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ztp_search.pruning.methods import DEFAULT_METHOD, METHODS
from ztp_search.pruning.schedules import BASELINES
from ztp_search.results.report.blocks import Interval, Table
from ztp_search.study import StoredTrial

REASONS = 5
"""So many different failures are shown, the most frequent first."""


def layer_table(file: Mapping[str, Any]) -> Table:
    """The pruning layers of a configuration file, as a document."""
    config, tokens = file["config"], file["tokens"]
    method = METHODS[config.get("method", DEFAULT_METHOD)]
    rows = []
    for layer in config["layers"]:
        block = layer["after_block"]
        change = f"{tokens[block - 1]} → {tokens[block]}"
        rows.append((str(block), *method.cells(layer), change))
    return Table(
        "Pruning layers of the winner",
        ("after block", *method.columns, "tokens"),
        rows,
        note=f"For all layers: {method.heading(config)}.",
    )


def holdout_table(holdout: Mapping[str, Any]) -> Table:
    """References and finalists on holdout images."""
    objective = holdout["objective"]
    baselines = {name: holdout[name] for name in BASELINES if holdout.get(name)}
    finalists = holdout["candidates"]
    signal = any("total_variation" in each for each in finalists)
    columns = ["", "GFLOPs", *["TV"] * signal, "search", "holdout"]
    columns += ["− unpruned", *(f"− {BASELINES[name].label}" for name in baselines)]

    def row(name: str, record: Mapping[str, Any]) -> list[str]:
        search = record.get(f"search_{objective}")
        variation = record.get("total_variation")
        return [
            name,
            gflops_text(record["gflops"]["total"]) if "gflops" in record else "",
            *([f"{variation:.4f}" if variation is not None else ""] if signal else []),
            "" if search is None else percent(search),
            percent(record[objective]),
            *(difference(record, against) for against in ("unpruned", *baselines)),
        ]

    rows = [row("unpruned", holdout["unpruned"])]
    rows += [row(f"{BASELINES[name].label} schedule", each) for name, each in baselines.items()]
    rows += [row(finalist_name(each), each) for each in finalists]
    return Table(
        f"{objective} in % on {holdout['images']:,} holdout images, which chose nothing", columns,
        rows, note=_holdout_note(baselines, signal),
    )  # fmt: skip


def _holdout_note(baselines: Mapping[str, Mapping[str, Any]], signal: bool) -> str:
    about = [
        f"{BASELINES[name].label} schedule: {BASELINES[name].about.format(shape=record['shape'])}"
        for name, record in baselines.items()
    ]
    if signal:
        about.append(
            "TV: mean total variation from the unpruned model's output on the search images, by "
            "which and by the accuracy on them trials are ranked"
        )
    note = "Differences in points, with 95 % intervals: all are measured on the same images. "
    note += "The finalists are in the order in which the search images rank them; the first is "
    note += "the winner."
    return f"{note} {'. '.join(sentence(each) for each in about)}." if about else note


def budget_table(points: Sequence[Mapping[str, Any]], objective: str, study: str) -> Table:
    """The winners of all budgets of a search, side by side."""
    baselines = [name for name in BASELINES if any(f"minus_{name}" in each for each in points)]
    first = points[0]
    rows = []
    for each in points:
        rows.append(
            [
                each["study"] + (" (this one)" if each["study"] == study else ""),
                str(each["trial"]), gflops_text(each["gflops"]), percent(each["search_accuracy"]),
                percent(each["accuracy"]) + ("*" if each["on_front"] else ""),
                difference(each, "unpruned"), *(difference(each, name) for name in baselines),
            ]
        )  # fmt: skip
    columns = ("study", "trial", "GFLOPs", "search", first["image_set"], "− unpruned")
    return Table(
        f"Winner of each budget, {objective} in % on {first['images']:,} {first['image_set']} "
        "images",
        (*columns, *(f"− {BASELINES[name].label}" for name in baselines)),
        rows,
        note="*: no winner of fewer GFLOPs is as accurate. Differences in points, with 95 % "
        f"intervals. The unpruned model: {percent(first['unpruned_accuracy'])} % at "
        f"{gflops_text(first['unpruned_gflops'])} GFLOPs.",
    )


def speed_table(speed: Mapping[str, Any]) -> Table | None:
    """What was measured of the winner's speed; None where nothing was."""
    measured = measured_speeds(speed)
    if not measured:
        return None
    rows = []
    for each in measured:
        low, high = each["speedup_quartiles"]
        rows.append(
            (each["engine"], each["precision"], str(each["batch_size"]),
             _speed(each, "unpruned"), _speed(each, "pruned"),
             f"{each['speedup']:.2f} [{low:.2f}, {high:.2f}]")
        )  # fmt: skip
    machine, threads = speed["machine"], speed["threads"]
    where = machine["gpu"] if speed["device"] == "cuda" else machine["processor"]
    return Table(
        f"Measured speed on {where}, {threads} thread{'s' * (threads > 1)}",
        ("engine", "precision", "images per pass", "unpruned", "winner", "times as fast"),
        rows,
        note=f"Beside {speed['unpruned']}: medians, and quartiles of how many times as fast. By "
        f"GFLOPs alone it would be {speed['promised_speedup']:.2f} times.",
    )


def measured_speeds(speed: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rows of a speed record that were measured."""
    return [each for each in speed.get("measured", ()) if "failed" not in each]


def _speed(row: Mapping[str, Any], which: str) -> str:
    """Latency of single images, throughput of batches."""
    if row["batch_size"] == 1:
        return f"{row[which]['milliseconds']:.3g} ms"
    speed = row[which]["images_per_second"]
    return f"{speed:,.0f} images/s" if speed >= 100 else f"{speed:.3g} images/s"


def failure_table(trials: Iterable[StoredTrial]) -> Table | None:
    """Why trials failed; None where none has."""
    failed = [each for each in trials if each.state == "failed"]
    if not failed:
        return None
    reasons = Counter(str(each.attrs.get("failure", "unknown")) for each in failed)
    first = {str(each.attrs.get("failure", "unknown")): each.number for each in reversed(failed)}
    rows = [
        (str(count), f"trial {first[reason]}", reason)
        for reason, count in reasons.most_common(REASONS)
    ]
    more = len(reasons) - len(rows)
    return Table(
        f"{len(failed):,} failed trials", ("trials", "first", "reason"), rows, words=True,
        note=f"{more} further reasons are in the database." if more else "",
    )  # fmt: skip


def interval(record: Mapping[str, Any], other: str, label: str, about: str = "") -> Interval:
    """The difference of a record from another one, in points."""
    low, high = record[f"minus_{other}_ci95"]
    return Interval(label, 100 * record[f"minus_{other}"], 100 * low, 100 * high, about)


def difference(record: Mapping[str, Any], other: str) -> str:
    """The same as text; empty where there is none."""
    return interval(record, other, "").text if f"minus_{other}" in record else ""


def finalist_name(finalist: Mapping[str, Any]) -> str:
    """`trial 629`, and where it comes from if that was known beforehand."""
    name = f"trial {finalist['trial']}"
    if "hand_set" in finalist:
        return f"{name} ({BASELINES[finalist['hand_set'].split(' ')[0]].label} schedule)"
    if "enqueued" in finalist:
        return f"{name} ({Path(finalist['enqueued']).name})"
    return name


def gflops_text(gflops: float) -> str:
    """To four digits, zeros too: 0.05300."""
    return f"{gflops:#.4g}".rstrip(".")


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


def sentence(text: str) -> str:
    """With a capital at its beginning."""
    return f"{text[:1].upper()}{text[1:]}"
