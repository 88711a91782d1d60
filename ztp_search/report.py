"""What a study has found, out of the database alone: documents for machines, tables for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ztp_search.config_file import ConfigFile
from ztp_search.errors import StudyError
from ztp_search.study import StoredTrial, Study

LARGE = {"correct", "predictions"}
"""Per-image results: in the database, but in no document."""


def search_document(study: Study) -> dict[str, Any]:
    """The document that `ztp-search --json` prints, but for `seconds`."""
    trials = study.trials()
    states = Counter(trial.state for trial in trials)
    attributes = study.attributes()
    evaluations = sum(trial.attrs.get("images", 0) for trial in trials)
    for part in ("reference", "holdout"):
        evaluations += attributes.get(part, {}).get("image_evaluations", 0)
    best = study.best(1)
    return {
        "study": study.name,
        "storage": study.storage,
        "trials": {state: states[state] for state in ("complete", "pruned", "failed", "running")},
        "image_evaluations": evaluations,
        "best": config_file(study, best[0]).to_dict() if best else None,
        "holdout": _holdout(study),
    }


def best_document(study: Study, n: int) -> dict[str, Any]:
    """The document of `ztp-search best --json`: the n best trials with their evidence."""
    return {
        "study": study.name,
        "storage": study.storage,
        "objective": study.contract["objective"],
        "trials": [
            {
                "trial": trial.number,
                "config": trial.config.to_dict(),
                "tokens": trial.attrs["tokens"],
                "gflops": trial.attrs["gflops"],
                "evidence": _evidence(study, trial),
            }
            for trial in study.best(n)
        ],
    }


def find_trial(study: Study, number: int | None) -> StoredTrial:
    """The best trial, or that of a number; StudyError unless it is complete."""
    if number is None:
        best = study.best(1)
        if not best:
            raise StudyError(f"study {study.name!r} has no complete trial yet; let the search go on")
        return best[0]
    for trial in study.trials():
        if trial.number == number and trial.state == "complete":
            return trial
    raise StudyError(
        f"--trial must name a complete trial of study {study.name!r}, but got {number}; "
        "`ztp-search best` lists them"
    )


def config_file(study: Study, trial: StoredTrial) -> ConfigFile:
    """A trial as a configuration file, with its evidence and where it comes from."""
    contract, about = study.contract, study.attributes()["about"]
    return ConfigFile(
        config=trial.config,
        model={
            **about["model"],
            "weights_sha256": contract["weights_sha256"],
            "geometry": contract["geometry"],
        },
        evidence=_evidence(study, trial),
        provenance={
            "study": study.name,
            "trial": trial.number,
            "seed": contract["seed"],
            "sampler": contract["sampler"],
            "space": about["space"],
            "space_sha256": contract["space"],
            "budget": contract["budget"],
            "objective": contract["objective"],
            "data": {
                **about["data"],
                "images": contract["images"],
                "holdout": contract["holdout"],
            },
            "runtime": contract["runtime"],
            "versions": about["versions"],
        },
    )


def _evidence(study: Study, trial: StoredTrial) -> dict[str, Any]:
    """Accuracies on search images, and on holdout where the trial was among the best few."""
    objective = study.contract["objective"]
    attributes = study.attributes()
    reference = attributes["reference"]
    search = {
        "images": trial.attrs["images"],
        objective: trial.value,
        "standard_error": trial.attrs["standard_error"],
        f"unpruned_{objective}": reference["unpruned"][objective],
        f"paper_schedule_{objective}": (reference["paper_schedule"] or {}).get(objective),
        "minus_unpruned": trial.attrs["minus_unpruned"],
        "minus_unpruned_ci95": trial.attrs["minus_unpruned_ci95"],
        "vhf_fallback_share": trial.attrs["fallback_share"],
    }
    holdout = attributes.get("holdout")
    candidate = holdout and holdout["candidates"].get(trial.config.digest())
    if not candidate:
        return {"search": search}
    paper = holdout["paper_schedule"]
    return {
        "search": search,
        "holdout": {
            "images": holdout["images"],
            **_small(candidate),
            f"unpruned_{objective}": holdout["unpruned"][objective],
            f"paper_schedule_{objective}": paper and paper[objective],
            "paired_ci95": candidate.get("minus_paper_schedule_ci95"),
        },
    }


def _holdout(study: Study) -> dict[str, Any] | None:
    """The comparison on holdout images: references, the best few, and what they show."""
    stored = study.attributes().get("holdout")
    if stored is None:
        return None
    objective = study.contract["objective"]
    candidates = []
    for trial in study.best(len(stored["candidates"])):
        record = stored["candidates"].get(trial.config.digest())
        if record is not None:
            candidates.append(
                {
                    "trial": trial.number,
                    "gflops": trial.attrs["gflops"],
                    f"search_{objective}": trial.value,
                    **_small(record),
                }
            )
    paper = stored["paper_schedule"]
    return {
        "images": stored["images"],
        "objective": objective,
        "unpruned": _small(stored["unpruned"]),
        "paper_schedule": paper and _small(paper),
        "candidates": candidates,
        "verdict": verdict(candidates[0], paper) if candidates else "",
    }


def verdict(winner: Mapping[str, Any], paper: Mapping[str, Any] | None) -> str:
    """What the holdout images say of the winner, plainly."""
    if paper is None:
        return "the paper's schedule does not fit this model or budget: nothing to compare with"
    low, high = winner["minus_paper_schedule_ci95"]
    points = f"{100 * winner['minus_paper_schedule']:+.2f} points, 95 % interval "
    points += f"{100 * low:+.2f} to {100 * high:+.2f}"
    name = f"trial {winner['trial']}"
    if low > 0:
        return f"{name} is better than the paper's schedule on holdout images ({points})"
    if high < 0:
        return f"{name} is worse than the paper's schedule on holdout images ({points})"
    return (
        f"{name} is not shown to be better than the paper's schedule on holdout images ({points}); "
        "more --holdout images narrow the interval"
    )


def search_tables(document: Mapping[str, Any]) -> RenderableType:
    """The end of a search: the best configuration, and the comparison on holdout."""
    parts: list[RenderableType] = []
    if document["best"]:
        parts.append(layer_table(document["best"]))
    holdout = document["holdout"]
    if holdout:
        parts.append(_holdout_table(holdout))
        parts.append(Text(f"{holdout['verdict'][:1].upper()}{holdout['verdict'][1:]}.", "bold"))
    trials = document["trials"]
    counts = ", ".join(f"{n} {state}" for state, n in trials.items() if n)
    line = f"Study {document['study']}: {counts} trials, "
    line += f"{document['image_evaluations']:,} image evaluations"
    if "seconds" in document:
        line += f", {document['seconds']:.0f} s"
    parts.append(Text(f"{line}. Stored in {document['storage']}."))
    return Group(*parts)


def layer_table(file: Mapping[str, Any]) -> Table:
    """The pruning layers of a configuration file."""
    config, gflops, tokens = file["config"], file["gflops"], file["tokens"]
    trial = file.get("provenance", {}).get("trial")
    title = "Best configuration" + (f" (trial {trial})" if trial is not None else "")
    title += f": {gflops['total']:.4g} of {gflops['unpruned']:.4g} GFLOPs, "
    title += f"v_min {config['v_min']:.3g}, v_max {config['v_max']:.3g}"
    table = _table(title, "after block", "retention", "s_tokens", "wpr_iterations", "tokens")
    for layer in config["layers"]:
        block = layer["after_block"]
        table.add_row(
            str(block), f"{layer['retention']:.4f}", str(layer["s_tokens"]),
            str(layer["wpr_iterations"]), f"{tokens[block - 1]} → {tokens[block]}",
        )  # fmt: skip
    return table


def best_table(document: Mapping[str, Any]) -> Table:
    """The best trials, a row each."""
    objective = document["objective"]
    table = _table(
        f"Study {document['study']}", "trial", "GFLOPs", f"{objective} search", "± s.e.",
        "− unpruned", f"{objective} holdout", "− paper, 95 % interval", "layers after blocks",
    )  # fmt: skip
    for trial in document["trials"]:
        search, holdout = trial["evidence"]["search"], trial["evidence"].get("holdout")
        table.add_row(
            str(trial["trial"]),
            f"{trial['gflops']['total']:.4g}",
            _percent(search[objective]),
            f"{100 * search['standard_error']:.2f}",
            f"{100 * search['minus_unpruned']:+.2f}",
            _percent(holdout[objective]) if holdout else "",
            _difference(holdout, "paper_schedule") if holdout else "",
            " ".join(str(layer["after_block"]) for layer in trial["config"]["layers"]),
        )
    return table


def cost_table(document: Mapping[str, Any]) -> Table:
    """GFLOPs per block, and in all beside fvcore's count."""
    table = _table("", "block", "tokens", "backbone GFLOPs", "overhead GFLOPs")
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


def _holdout_table(holdout: Mapping[str, Any]) -> Table:
    objective = holdout["objective"]
    table = _table(
        f"On {holdout['images']:,} holdout images, which chose nothing", "", "GFLOPs",
        f"{objective} holdout", f"{objective} search", "− unpruned, 95 % interval",
        "− paper's schedule, 95 % interval",
    )  # fmt: skip
    table.add_row("unpruned", "", _percent(holdout["unpruned"][objective]), "", "", "")
    paper = holdout["paper_schedule"]
    if paper:
        table.add_row(
            f"paper's schedule ({paper['shape']})", f"{paper['gflops']['total']:.4g}",
            _percent(paper[objective]), "", _difference(paper, "unpruned"), "",
        )  # fmt: skip
    table.add_section()
    for candidate in holdout["candidates"]:
        table.add_row(
            f"trial {candidate['trial']}", f"{candidate['gflops']['total']:.4g}",
            _percent(candidate[objective]), _percent(candidate[f"search_{objective}"]),
            _difference(candidate, "unpruned"), _difference(candidate, "paper_schedule"),
        )  # fmt: skip
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _difference(record: Mapping[str, Any], other: str) -> str:
    if f"minus_{other}" not in record:
        return ""
    low, high = record[f"minus_{other}_ci95"]
    return f"{100 * record[f'minus_{other}']:+.2f}  [{100 * low:+.2f}, {100 * high:+.2f}]"


def _small(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in LARGE}

