"""What is said of a study and of a trial beside their figures, as Markdown.

The texts around what is filled in are in `dashboards/`.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

from ztp_search.pruning.methods import method_of
from ztp_search.pruning.schedules import BASELINES
from ztp_search.results.documents import MEASURED
from ztp_search.results.markdown import code, table, tidy
from ztp_search.results.plots import PLOTS, Found
from ztp_search.results.plots.base import estimate_of, images_of
from ztp_search.results.resume import budget_text, resume_command, where_words
from ztp_search.results.shipped import shipped
from ztp_search.study import StoredTrial
from ztp_search.study.dashboard_storage import DRAWN, LINES

OUTCOMES = {
    "complete": "complete", "pruned": "stopped by racing", "failed": "failed",
    "running": "running",
}  # fmt: skip


def study_note(found: Found) -> str:
    """What the study is of, what came of it, and how to go on; whatever of it is known yet."""
    return _filled(
        "study.md",
        title=f"Study {found.study}",
        verdict=_verdict(found),
        settings=table(("", ""), _settings(found), numbers=False),
        result=_counts(found),
        holdout=_holdout(found),
        layers=_winner(found),
        budgets=_budgets(found),
        command=resume_command(found.study, found.storage, found.contract, found.attributes),
        study=shlex.quote(found.study),
        where=shlex.join(where_words(found.storage)),
        plots=_plots(found),
        units=_units(found),
    )


def trial_note(found: Found, trial: StoredTrial) -> str:
    """What a trial is, what it is worth and why it ended."""
    command = ""
    if trial.state == "complete":
        words = ["ztp-search", "export", *where_words(found.storage), "--study", found.study,
                 "--trial", str(trial.number), "-o", f"trial-{trial.number}.json"]  # fmt: skip
        command = f"```sh\n{shlex.join(words)}\n```"
    return _filled(
        "trial.md",
        number=trial.number,
        outcome=OUTCOMES[trial.state],
        facts=table(("", ""), _facts(found, trial), numbers=False),
        layers=layers_table(trial),
        command=command,
    )


def layers_table(trial: StoredTrial) -> str:
    """The pruning layers of a trial, a row each, and the tokens that they leave."""
    method, tokens = method_of(trial.config), trial.attrs["tokens"]
    stated = trial.config.to_dict()
    rows = [
        (layer["after_block"], *method.cells(layer),
         f"{tokens[layer['after_block'] - 1]} → {tokens[layer['after_block']]}")
        for layer in stated["layers"]
    ]  # fmt: skip
    columns = [name.replace("_", " ") for name in method.columns]
    return f"{table(('after block', *columns, 'tokens'), rows)}\n\n{method.heading(stated)}"


def _filled(template: str, **parts: object) -> str:
    return tidy(Template(shipped(template)).substitute(parts))


def _verdict(found: Found) -> str:
    if found.holdout is None:
        if not found.complete:
            return "No trial is complete yet."
        best = found.complete[0]
        return f"Best so far: trial {best.number}, {_accuracy(found, best)}."
    said = [found.holdout[name] for name in ("verdict", "winners_curse")]
    sentences = [f"{each[:1].upper()}{each[1:]}." for each in said if each]
    return " ".join([f"**{sentences[0]}**", *sentences[1:]]) if sentences else ""


def _settings(found: Found) -> list[tuple[str, str]]:
    contract, about = found.contract, found.attributes.get("about", {})
    rows = []
    if "model" in about:
        model, geometry = about["model"], contract["geometry"]
        kwargs = "".join(f", {code(f'{name}={value}')}" for name, value in model["kwargs"].items())
        weights = model["weights"] or "timm's pretrained"
        rows.append(("model", f"{code(model['name'])}{kwargs}, weights {code(weights)}: "
                              f"{geometry['depth']} blocks, {geometry['patch_tokens']} patch "
                              "tokens"))  # fmt: skip
    if "budget" in contract:
        budget = contract["budget"]
        counted = "" if budget["counts"] == "total" else ", without what pruning adds"
        rows.append(("budget", f"{budget['macs'] / 1e9:.4g} GFLOPs per image "
                               f"({budget_text(contract)}){counted}; every configuration lies "
                               f"within {100 * budget['tolerance']:.3g} % below it"))  # fmt: skip
    if "data" in about:
        data = about["data"]
        split = f", split {code(data['split'])}" if data["split"] else ""
        rows.append(("data", f"{code(data['source'])}{split}: {contract['images']['count']:,} "
                             f"images to search on, {contract['holdout']['count']:,} other ones "
                             "to report on"))  # fmt: skip
    if "seed" in contract:
        rows.append(("seed", str(contract["seed"])))
    if "space" in about:
        method = {"any": "all of it"}.get(contract.get("method", "any"), contract.get("method"))
        rows.append(("search space", f"{code(about['space'])}, {method}; sampler "
                                     f"{code(contract['sampler'])}"))  # fmt: skip
    if "racing" in contract:
        racing = contract["racing"]
        rungs = ", ".join(f"{rung:,}" for rung in racing["rungs"])
        rows.append(("racing", f"{code(racing['rule'])} by {code(racing.get('signal'))}, on "
                               f"{rungs} images"))  # fmt: skip
    if "runtime" in contract:
        runtime = contract["runtime"]
        rows.append(("runtime", f"{runtime['device']}, {runtime['precision']}, batches of "
                                f"{runtime['batch_size']}"))  # fmt: skip
    if "versions" in about:
        versions = ", ".join(f"{name} {each}" for name, each in about["versions"].items())
        rows.append(("versions", versions))
    return rows


def _counts(found: Found) -> str:
    states = Counter(trial.state for trial in found.trials)
    counts = [f"{n:,} {OUTCOMES[state]}" for state, n in sorted(states.items())]
    evaluations = sum(images_of(trial) for trial in found.trials)
    line = f"{len(found.trials):,} trials: {', '.join(counts) or 'none yet'}. "
    line += f"They took {evaluations:,} image evaluations"
    in_full = len(found.trials) * found.contract.get("images", {}).get("count", 0)
    if 0 < evaluations < in_full:
        line += f", 1/{in_full / evaluations:.3g} of evaluating each on all images"
    return f"{line}."


def _holdout(found: Found) -> str:
    """The comparison on holdout images."""
    if found.holdout is None:
        return ""
    holdout, objective = found.holdout, found.objective
    names = [name for name in BASELINES if holdout.get(name)]
    rows = [["unpruned", "", "", _percent(holdout["unpruned"][objective]), ""]]
    for name in names:
        record = holdout[name]
        rows.append([BASELINES[name].title, f"{record['gflops']['total']:.4g}", "",
                     _percent(record[objective]), _difference(record, "unpruned")])  # fmt: skip
    rows = [[*row, *[""] * len(names)] for row in rows]
    for each in holdout["candidates"]:
        rows.append([f"trial {each['trial']}", f"{each['gflops']['total']:.4g}",
                     _percent(each[f"search_{objective}"]), _percent(each[objective]),
                     _difference(each, "unpruned"),
                     *(_difference(each, name) for name in names)])  # fmt: skip
    against = [f"− {BASELINES[name].label}" for name in names]
    header = ("", "GFLOPs", "search", "holdout", "− unpruned", *against)
    return (
        f"{objective} in % on {holdout['images']:,} holdout images, which chose nothing; "
        f"differences in points with 95 % intervals:\n\n{table(header, rows)}"
    )


def _winner(found: Found) -> str:
    if not found.complete:
        return ""
    best = found.complete[0]
    gflops = best.attrs["gflops"]
    heading = f"### Best configuration: trial {best.number}, {gflops['total']:.4g} of "
    heading += f"{gflops['unpruned']:.4g} GFLOPs"
    return f"{heading}\n\n{layers_table(best)}"


def _budgets(found: Found) -> str:
    """The winners of all budgets of the search."""
    if len(found.budgets) < 2:
        return ""
    first = found.budgets[0]
    rows = [
        (_link(found, each["study"]), f"{each['gflops']:.4g}", f"trial {each['trial']}",
         _percent(each["accuracy"]) + ("*" if each["on_front"] else ""),
         _difference(each, "unpruned"))
        for each in found.budgets
    ]  # fmt: skip
    ids = ",".join(str(found.ids[each["study"]]) for each in found.budgets)
    header = ("study", "GFLOPs", "winner", f"{found.objective}, %", "− unpruned")
    return (
        f"### Other budgets of this search\n\n{table(header, rows)}\n\nOn {first['images']:,} "
        f"{first['image_set']} images; *: no winner of fewer GFLOPs is as accurate. "
        f"[Compare their trials](/dashboard/compare-studies?ids={ids})."
    )


def _link(found: Found, study: str) -> str:
    if study == found.study:
        return f"{code(study)} (this one)"
    return f"[{code(study)}](/dashboard/studies/{found.ids[study]}/note)"


def _plots(found: Found) -> str:
    """How to read the plots that there are; and what those that are the dashboard's leave out."""
    there = [plot for plot in PLOTS.values() if plot.lacks(found) is None]
    lines = [f"- **{plot.title}**: {plot.caption}" for plot in there]
    if len(found.trials) > LINES:
        drawn = f"Intermediate values are those of the {LINES} trials that came furthest."
        if len(found.trials) > DRAWN:
            drawn += f" History and its like show the first {DRAWN:,} and all complete ones."
        lines.append(f"- {drawn}")
    return "\n".join(lines)


def _units(found: Found) -> str:
    rows = [
        ("the objective, values, rungs", f"{found.objective} on search images as a fraction of "
         "one, estimated from those seen"),
        (code("images"), "how many search images the trial was evaluated on"),
        (code("standard_error"), "of the estimate, a fraction of one"),
        (code("minus_unpruned"), "difference of accuracy from the unpruned model, a fraction of "
         f"one, with its 95 % interval in {code('minus_unpruned_ci95')}"),
        (code("gflops"), "per image: total, backbone, what pruning adds (overhead), unpruned"),
        (code("tokens"), "that each block computes on, and that leave the last"),
        (", ".join(map(code, MEASURED)), "mean over the images seen, 0 to 1: what trials race "
         "by, the less the better"),
        (code("evaluation_seconds"), "of forward passes, in seconds"),
    ]  # fmt: skip
    return table(("", ""), rows, numbers=False)


def _facts(found: Found, trial: StoredTrial) -> list[tuple[str, str]]:
    rows = []
    if estimate_of(trial) is not None:
        rows.append((f"{found.objective}, search images", _accuracy(found, trial)))
        low, high = trial.attrs["minus_unpruned_ci95"]
        rows.append(("against the unpruned model",
                     f"{100 * trial.attrs['minus_unpruned']:+.2f} points "
                     f"[{100 * low:+.2f}, {100 * high:+.2f}]"))  # fmt: skip
        rows += [(name.replace("_", " "), f"{trial.attrs[name]:.4f}")
                 for name in MEASURED if name in trial.attrs]  # fmt: skip
        place = found.places[trial.number]
        rows.append(("standing", f"{place + 1:,} of {len(found.standing):,}"))
    if "failure" in trial.attrs:
        rows.append(("failure", code(trial.attrs["failure"])))
    rows += _on_holdout(found, trial)
    gflops = trial.attrs["gflops"]
    rows.append(("GFLOPs per image", f"{gflops['total']:.5g}, of which pruning itself "
                                     f"{gflops['overhead']:.3g}; unpruned "
                                     f"{gflops['unpruned']:.4g}"))  # fmt: skip
    rows.append(("tokens per block", " ".join(str(n) for n in trial.attrs["tokens"])))
    for name, what in (("hand_set", "hand-set schedule"), ("enqueued", "taken from")):
        if name in trial.attrs:
            rows.append((what, code(trial.attrs[name])))
    return rows


def _on_holdout(found: Found, trial: StoredTrial) -> list[tuple[str, str]]:
    candidates: Sequence[Mapping[str, Any]] = (found.holdout or {}).get("candidates", ())
    record = next((each for each in candidates if each["trial"] == trial.number), None)
    if record is None or found.holdout is None:
        return []
    return [
        (f"{found.objective}, {found.holdout['images']:,} holdout images",
         f"{_percent(record[found.objective])} %, against the unpruned model "
         f"{_difference(record, 'unpruned')} points")
    ]  # fmt: skip


def _accuracy(found: Found, trial: StoredTrial) -> str:
    value = estimate_of(trial) or 0.0
    return (f"{_percent(value)} % on {images_of(trial):,} images (standard error "
            f"{100 * trial.attrs['standard_error']:.2f})")  # fmt: skip


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _difference(record: Mapping[str, Any], other: str) -> str:
    if f"minus_{other}" not in record:
        return ""
    low, high = record[f"minus_{other}_ci95"]
    return f"{100 * record[f'minus_{other}']:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"
