"""Documents as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ztp_search.pruning.methods import DEFAULT_METHOD, METHODS
from ztp_search.pruning.schedules import BASELINES, OPPONENT
from ztp_search.results.plain_table import plain_table
from ztp_search.results.speed_table import speed_table


def search_tables(document: Mapping[str, Any]) -> RenderableType:
    """The end of a search: the best configuration, and the comparison on holdout.

    Under several budgets: a row per budget.
    """
    if "front" in document:
        return _front(document)
    parts: list[RenderableType] = []
    if document["best"]:
        parts.append(layer_table(document["best"]))
    holdout = document["holdout"]
    if holdout:
        parts.append(holdout_table(holdout))
        parts.append(Text(sentence(holdout["verdict"]), "bold"))
        if holdout["winners_curse"]:
            parts.append(Text(sentence(holdout["winners_curse"])))
    if document["best"] and "speed" in document["best"]["evidence"]:
        trial = document["best"]["provenance"]["trial"]
        parts.append(speed_table(document["best"]["evidence"]["speed"], f"trial {trial}"))
    trials = document["trials"]
    counts = ", ".join(f"{n} {state}" for state, n in trials.items() if n)
    line = f"Study {document['study']}: {counts} trials, "
    line += f"{document['image_evaluations']:,} image evaluations"
    racing = document["racing"]
    if 0 < racing["image_evaluations"] < racing["in_full"]:
        saved = racing["in_full"] / racing["image_evaluations"]
        line += f" (of the trials {racing['image_evaluations']:,}, 1/{saved:.3g} of all in full)"
    if "seconds" in document:
        line += f", {document['seconds']:.0f} s"
    parts.append(Text(f"{line}. Stored in {document['storage']}."))
    return Group(*parts)


def _front(document: Mapping[str, Any]) -> RenderableType:
    points = document["front"]
    line = f"{document['image_evaluations']:,} image evaluations"
    if "seconds" in document:
        line += f", {document['seconds']:.0f} s"
    studies = ", ".join(point["study"] for point in points)
    where = f"Stored in {document['storage']}"
    if "figure" in document:
        where += f", drawn in {document['figure']}"
    table = front_table(document["objective"], points)
    return Group(table, Text(f"{line}. {where}. Studies: {studies}."))


def front_table(objective: str, points: Sequence[Mapping[str, Any]]) -> Table:
    """The winners of several budgets, a row each, and the unpruned model."""
    baselines = [name for name in BASELINES if any(f"minus_{name}" in each for each in points)]
    baselines = baselines or [OPPONENT]
    measured = any("speedup" in each for each in points)
    table = plain_table(
        f"{objective} in % of each budget's winner; accuracy on {points[0]['images']:,} "
        f"{points[0]['image_set']} images, differences in points with 95 % intervals; *: no "
        "winner of fewer GFLOPs is as accurate",
        "", "GFLOPs", *(["times as fast"] if measured else []), "search", points[0]["image_set"],
        "− unpruned", *_against(baselines),
    )  # fmt: skip
    for point in points:
        table.add_row(
            f"trial {point['trial']}", f"{point['gflops']:.3g}",
            *([f"{point['speedup']:.2f}" if "speedup" in point else ""] if measured else []),
            percent(point["search_accuracy"]),
            percent(point["accuracy"]) + ("*" if point["on_front"] else " "),
            _difference(point, "unpruned"), *(_difference(point, name) for name in baselines),
        )  # fmt: skip
    table.add_section()
    table.add_row(
        "unpruned", f"{points[0]['unpruned_gflops']:.3g}", *[""] * measured, "",
        percent(points[0]["unpruned_accuracy"]) + " ",
    )  # fmt: skip
    return table


def layer_table(file: Mapping[str, Any], name: str = "Best configuration") -> Table:
    """The pruning layers of a configuration file; name: what it is called above them."""
    config, gflops, tokens = file["config"], file["gflops"], file["tokens"]
    method = METHODS[config.get("method", DEFAULT_METHOD)]
    trial = file.get("provenance", {}).get("trial")
    title = name + (f" (trial {trial})" if trial is not None else "")
    title += f": {gflops['total']:.4g} of {gflops['unpruned']:.4g} GFLOPs, "
    title += method.heading(config)
    table = plain_table(title, "after block", *method.columns, "tokens")
    for layer in config["layers"]:
        block = layer["after_block"]
        table.add_row(str(block), *method.cells(layer), f"{tokens[block - 1]} → {tokens[block]}")
    return table


def best_table(document: Mapping[str, Any]) -> Table:
    """The best trials, a row each."""
    objective = document["objective"]
    every = [trial["evidence"].get("holdout", {}) for trial in document["trials"]]
    baselines = [name for name in BASELINES if any(f"minus_{name}" in each for each in every)]
    baselines = baselines or [OPPONENT]
    table = plain_table(
        f"Study {document['study']}: {objective} in %, differences in points with 95 % intervals",
        "trial", "GFLOPs", "search", "s.e.", "holdout", *_against(baselines), "after blocks",
    )  # fmt: skip
    for trial in document["trials"]:
        search, holdout = trial["evidence"]["search"], trial["evidence"].get("holdout")
        table.add_row(
            str(trial["trial"]),
            f"{trial['gflops']['total']:.3g}",
            percent(search[objective]),
            f"{100 * search['standard_error']:.2f}",
            percent(holdout[objective]) if holdout else "",
            *(_difference(holdout, name) if holdout else "" for name in baselines),
            " ".join(str(layer["after_block"]) for layer in trial["config"]["layers"]),
        )
    return table


def cost_table(document: Mapping[str, Any]) -> Table:
    """GFLOPs per block, and in all beside fvcore's count."""
    table = plain_table("", "block", "tokens", "backbone GFLOPs", "overhead GFLOPs")
    for block in document["blocks"]:
        table.add_row(
            str(block["block"]), str(block["tokens"]), f"{block['backbone']:.6f}",
            f"{block['overhead']:.6f}" if block["overhead"] else "",
        )  # fmt: skip
    gflops = document["gflops"]
    rest = gflops["backbone"] - sum(block["backbone"] for block in document["blocks"])
    table.add_row("stem, head", "", f"{rest:.6f}", "")
    table.add_section()
    table.add_row("sum", "", f"{gflops['backbone']:.6f}", f"{gflops['overhead']:.6f}")
    table.add_row("total", "", f"{gflops['total']:.6f}", "")
    table.add_row("fvcore", "", f"{document['fvcore_gflops']:.6f}", "")
    table.add_row("unpruned", "", f"{gflops['unpruned']:.6f}", "")
    return table


def evaluation_table(document: Mapping[str, Any]) -> RenderableType:
    """The result of `evaluate`."""
    title = f"{document['images']:,} images ({document['image_set']})"
    table = plain_table(title, "", "pruned", "unpruned")
    gflops = document["gflops"]
    if document["top1"] is not None:
        table.add_row("top1, %", percent(document["top1"]), percent(document["unpruned_top1"]))
    table.add_row("agreement, %", percent(document["agreement"]), "")
    table.add_row("GFLOPs", f"{gflops['total']:.4g}", f"{gflops['unpruned']:.4g}")
    return Group(table, speed_table(document["speed"])) if document["speed"] else table


def visualization_table(document: Mapping[str, Any]) -> Table:
    """What was drawn: what the model says of each image, unpruned and by each configuration."""
    table = plain_table(
        "", "image", "label", "configuration", "GFLOPs", "tokens", "prediction", "%"
    )
    for image in document["images"]:
        label = _output(image["label"]) if image["label"] else ""
        name = image["image"]
        table.add_row(name, label, "unpruned", "", "", *_prediction(image["unpruned"]))
        for row in image["configs"]:
            layers = row["layers"]
            counts = [str(each["tokens_in"]) for each in layers[:1]]
            counts += [str(each["tokens_out"]) for each in layers]
            table.add_row(
                "", "", Path(row["config"]).name, f"{row['gflops']['total']:.3g}",
                " → ".join(counts), *_prediction(row["prediction"]),
            )  # fmt: skip
    return table


def holdout_table(holdout: Mapping[str, Any]) -> Table:
    """The comparison on holdout images: references first, then the finalists."""
    objective = holdout["objective"]
    baselines = {name: holdout[name] for name in BASELINES if name in holdout}
    about = "".join(
        f"; {BASELINES[name].label}: {BASELINES[name].about.format(shape=record['shape'])}"
        for name, record in baselines.items()
        if record
    )
    every = holdout["candidates"]
    varies = any("total_variation" in finalist for finalist in every)
    ranked = "; TV: mean total variation from the unpruned model's output on the search images, "
    ranked += "by which and by the accuracy on them trials are ranked"
    table = plain_table(
        f"{objective} in % on {holdout['images']:,} holdout images, which chose nothing; "
        f"differences in points with 95 % intervals{about}{ranked if varies else ''}",
        "", "GFLOPs", *(["TV"] if varies else []), "search", "holdout", "− unpruned",
        *_against(baselines),
    )  # fmt: skip
    blank = [""] * varies
    table.add_row("unpruned", "", *blank, "", percent(holdout["unpruned"][objective]))
    for name, record in baselines.items():
        if record:
            table.add_row(
                BASELINES[name].label, f"{record['gflops']['total']:.3g}", *blank, "",
                percent(record[objective]), _difference(record, "unpruned"),
            )  # fmt: skip
    table.add_section()
    for finalist in every:
        name = f"trial {finalist['trial']}"
        if "hand_set" in finalist:
            name += f", {BASELINES[finalist['hand_set'].split(' ')[0]].label}"
        elif "enqueued" in finalist:
            name += f", {Path(finalist['enqueued']).name}"
        table.add_row(
            name, f"{finalist['gflops']['total']:.3g}",
            *([f"{finalist['total_variation']:.4f}"] if varies else []),
            percent(finalist[f"search_{objective}"]), percent(finalist[objective]),
            _difference(finalist, "unpruned"),
            *(_difference(finalist, name) for name in baselines),
        )  # fmt: skip
    return table


def _against(baselines: Iterable[str]) -> list[str]:
    """Column titles of the differences from baselines."""
    return [f"− {BASELINES[name].label}" for name in baselines]


def _prediction(output: Mapping[str, Any]) -> tuple[str, str]:
    if output["class"] is None:
        return "not finite", ""
    return _output(output), percent(output["probability"])


def _output(output: Mapping[str, Any]) -> str:
    return " ".join(str(part) for part in (output["class"], output["name"]) if part is not None)


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def percent(value: float) -> str:
    """A fraction of one, in %."""
    return f"{100 * value:.2f}"


def _difference(record: Mapping[str, Any], other: str) -> str:
    if f"minus_{other}" not in record:
        return ""
    low, high = record[f"minus_{other}_ci95"]
    return f"{100 * record[f'minus_{other}']:+.2f}\n[{100 * low:+.2f}, {100 * high:+.2f}]"
