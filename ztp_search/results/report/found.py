"""What was found, and how sure that is: tables, plots and pictures."""

from __future__ import annotations

from ztp_search.racing import RACING
from ztp_search.results.plots import PLOTS
from ztp_search.results.report.blocks import (
    Block,
    Comparison,
    Drawing,
    Points,
    Section,
    Words,
)
from ztp_search.results.report.material import Material, differences, states
from ztp_search.results.report.plot_tables import plot_tables
from ztp_search.results.report.tables import (
    blocks_of,
    budget_table,
    failure_table,
    finalist_table,
    winner_table,
)
from ztp_search.results.speed_table import speed_table
from ztp_search.results.tables import sentence

PLACED = {"tokens": "found", "budgets": "budgets", "holdout": "sure"}
"""Where plots belong to; the others are in a section of their own."""
Z95 = 1.96


def found(of: Material) -> Section:
    blocks: list[Block] = []
    if of.winner is not None:
        blocks.append(winner_table(of.winner))
    if of.confirmed is not None:
        name = of.trial[:1].upper() + of.trial[1:]
        blocks.append(
            Comparison(
                f"{name} on holdout images, differences in points with 95 % intervals",
                differences(of),
                note="An interval that lies to the right of 0 shows that the winner is better, one "
                "to the left that it is worse; one that holds 0 shows neither.",
            )
        )
    if of.found.holdout is not None:
        blocks.append(finalist_table(of.found.holdout))
    speed = of.winner and of.winner["evidence"].get("speed")
    if speed:
        blocks += blocks_of(speed_table(speed, of.trial))
    blocks += _drawings(of, "found")
    if len(of.found.budgets) > 1:
        blocks += _drawings(of, "budgets")
        blocks.append(budget_table(of.found.budgets, of.found.objective, of.found.study))
    failures = failure_table(of.found.trials)
    if failures is not None:
        blocks.append(failures)
    return Section("found", "Found", "What was found", blocks)


def sure(of: Material) -> Section:
    points = [states(of)] if of.found.trials else []
    points += _racing(of)
    if of.confirmed is not None and of.found.holdout is not None:
        holdout = of.found.holdout
        points += [
            f"The winner was chosen on {of.found.contract['images']['count']:,} search images. "
            f"What is said of it above was measured on {holdout['images']:,} holdout images, "
            "which had no part in any choice.",
            f"{sentence(holdout['winners_curse'])} The best of many trials looks better than it "
            "is on the images that chose it.",
            *_precision(of),
            *_other_finalists(of),
        ]
    elif of.winner is not None:
        points.append("The winner has not been measured on holdout images.")
    if of.winner is not None:
        points.append(
            "All of this holds for images like these, for this model and these weights. Nothing "
            "was trained; on images of another kind measure again: `ztp-search evaluate`."
        )
    blocks: list[Block] = [Points(points)] if points else []
    return Section("sure", "How sure", "How sure this is", blocks + _drawings(of, "sure"))


def _racing(of: Material) -> list[str]:
    racing = of.result.racing
    taken, in_full = racing["image_evaluations"], racing["in_full"]
    if not taken:
        return []
    rule = RACING.get(racing["rule"])
    if rule is None or not (rule.halving or rule.evidence):
        return [f"Every trial was evaluated in full: {taken:,} image evaluations."]
    why = [
        *["were not among the best third of those that had come as far"] * rule.halving,
        *["were shown to be worse than the best"] * rule.evidence,
    ]
    return [
        f"Trials raced: those that {' or '.join(why)} were stopped on fewer images. They took "
        f"{taken:,} image evaluations, 1/{in_full / taken:.3g} of evaluating each in full."
    ]


def _precision(of: Material) -> list[str]:
    """How fine the holdout images measure."""
    assert of.confirmed is not None
    error = of.confirmed.get("standard_error")
    if error is None:
        return []
    width = 100 * Z95 * error
    text = f"The accuracy itself is known to about ±{width:.2f} points."
    least = min((each.high - each.low) / 2 for each in differences(of))
    if least < width:
        text += f" Differences are known better, to ±{least:.2f} points at best, as all "
        text += "configurations see the same images."
    return [f"{text} More holdout images narrow this: four times as many halve it."]


def _other_finalists(of: Material) -> list[str]:
    assert of.found.holdout is not None
    finalists, objective = of.found.holdout["candidates"], of.found.objective
    if len(finalists) < 2:
        return []
    text = f"{len(finalists)} finalists were measured on holdout. The winner was the first of them "
    text += "before that, so its intervals are as they say."
    if max(each[objective] for each in finalists[1:]) > finalists[0][objective]:
        text += " That another one looks better on holdout is no reason to take it: picked by "
        text += "these images, it would owe some of its lead to them."
    return [text]


def plots(of: Material) -> Section:
    if not of.plots:
        return Section("plots", "Plots", "The trials in plots", [])
    blocks = _drawings(of, "plots")
    missing = [
        f"{plot.title}: {lack}"
        for plot in PLOTS.values()
        if (lack := plot.lacks(of.found)) is not None
    ]
    if missing:
        blocks.append(Words(f"Not drawn: {'; '.join(missing)}."))
    return Section("plots", "Plots", "The trials in plots", blocks)


def _drawings(of: Material, section: str) -> list[Block]:
    """The plots of a section that the study has something for."""
    out: list[Block] = []
    for name, plot in PLOTS.items() if of.plots else ():
        if PLACED.get(name, "plots") != section or plot.lacks(of.found) is not None:
            continue
        figure = plot.draw(of.found)
        height = int(figure["layout"].get("height", plot.height))
        out.append(
            Drawing(
                name, plot.title, plot.caption, figure, height, plot_tables(plot.title, figure)
            )
        )  # fmt: skip
    return out


def pictures(of: Material) -> Section:
    title = "Images before and after pruning"
    if isinstance(of.pictures, str):
        return Section("pictures", "Images", title, [Words(of.pictures)] if of.pictures else [])
    return Section("pictures", "Images", title, [of.pictures])
