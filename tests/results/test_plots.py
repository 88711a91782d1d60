"""What single plots show of a study, by hand and by slow references."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.running import attributes, ranked, stored, url_of

from ztp_search.cli.main import main
from ztp_search.results.plots import PLOTS, Found
from ztp_search.results.plots.importances import importances
from ztp_search.results.plots.race import leaders
from ztp_search.study import StoredTrial, StudyReader
from ztp_search.study.packing import unpack_losses

pytest.importorskip("plotly")
STUDY, OTHER = "digits-50%-seed0", "digits-65%-seed0"


@pytest.fixture(scope="module")
def out(made_up: Path) -> Path:
    return made_up


@pytest.fixture(scope="module")
def found(out: Path) -> Found:
    with StudyReader.open(url_of(out), STUDY) as study:
        return Found.read(study)


def traces(name: str, found: Found) -> dict[str, Any]:
    figure = PLOTS[name].figure(found)
    assert figure is not None
    return {trace["name"]: trace for trace in json.loads(figure.to_json())["data"]}


def points(trace: dict[str, Any]) -> list[tuple[float, float]]:
    return sorted(zip(trace["x"], trace["y"], strict=True))


def by_hand(trials: list[StoredTrial]) -> list[tuple[float, float]]:
    return sorted((t.attrs["gflops"]["total"], round(100 * (t.value or 0), 3)) for t in trials)


def test_every_trial_stands_at_its_accuracy_and_its_gflops(out: Path, found: Found) -> None:
    shown = traces("accuracy", found)
    trials = stored(out, STUDY)
    reference = attributes(out, STUDY)["reference"]
    named = [reference[name]["config"] for name in ("paper_schedule", "tome")]
    hand_set = [t for t in trials if t.config.to_dict() in named]
    drawn = [t for t in trials if t.state == "complete" and t not in hand_set]
    assert points(shown["stopped or running"]) == by_hand(
        [t for t in trials if t.state == "pruned"]
    )
    assert sorted(points(shown["complete"]) + points(shown["best"])) == by_hand(drawn)
    schedules = points(shown["paper's schedule"]) + points(shown["ToMe's schedule"])
    assert sorted(schedules) == by_hand(hand_set)
    (best,) = ranked(out, STUDY)[:1]
    assert points(shown["best"]) == by_hand([best])
    low, high = best.attrs["minus_unpruned_ci95"]
    bars = shown["best"]["error_y"]
    assert bars["array"] == [pytest.approx(100 * (high - best.attrs["minus_unpruned"]), abs=2e-3)]
    assert bars["arrayminus"] == [
        pytest.approx(100 * (best.attrs["minus_unpruned"] - low), abs=2e-3)
    ]


def test_budgets_are_those_of_the_same_search_and_no_others(out: Path, found: Found) -> None:
    assert {point["study"] for point in found.budgets} == {STUDY, OTHER}
    shown = traces("budgets", found)
    by_budget = {}
    for study in (STUDY, OTHER):
        (winner,) = ranked(out, study)[:1]
        record = attributes(out, study)["holdout"]["candidates"][winner.config.digest()]
        by_budget[winner.attrs["gflops"]["total"]] = round(100 * record["top1"], 3)
    assert points(shown["winner"]) == sorted(by_budget.items())
    (mine,) = points(shown["this study"])
    assert mine == min(by_budget.items())


def test_budgets_are_those_that_the_search_itself_prints(
    out: Path, found: Found, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--space", "digits", "--budget", "50%,65%", "--trials", "90", "--images", "128",
            "--holdout", "64", "--batch-size", "64", "--precision", "fp32", "--candidates", "4",
            "--workers", "0", "--out", str(out), "--json", "--speed", "off"]  # fmt: skip
    assert main(argv) == 0  # finished: nothing is evaluated again
    assert json.loads(capsys.readouterr().out)["front"] == found.budgets


def test_tokens_are_those_that_the_blocks_compute_on(out: Path, found: Found) -> None:
    best = ranked(out, STUDY)[:1][0]
    shown = traces("tokens", found)
    assert shown[f"best, trial {best.number}"]["y"] == best.attrs["tokens"][:-1]
    hand_set = {t.attrs["hand_set"]: t.attrs["tokens"][:-1] for t in stored(out, STUDY)[:4]}
    reference = attributes(out, STUDY)["reference"]
    for name, title in (("paper_schedule", "paper's schedule"), ("tome", "ToMe's schedule")):
        assert shown[title]["y"] == hand_set[f"{name} {reference[name]['shape']}"]


def test_finalists_stand_where_search_and_holdout_images_put_them(
    out: Path, found: Found
) -> None:
    shown = traces("holdout", found)
    candidates = attributes(out, STUDY)["holdout"]["candidates"]
    expected = sorted(
        (round(100 * (trial.value or 0), 3),
         round(100 * candidates[trial.config.digest()]["top1"], 3))
        for trial in ranked(out, STUDY)[:4]
    )  # fmt: skip
    assert sorted(points(shown["finalists"]) + points(shown["winner"])) == expected


def test_survival_counts_those_that_saw_so_many_images(out: Path, found: Found) -> None:
    figure = PLOTS["survival"].figure(found)
    assert figure is not None
    trials = stored(out, STUDY)
    rungs = found.contract["racing"]["rungs"]
    assert list(figure.data[0].y) == [sum(rung in t.rungs for t in trials) for rung in rungs]
    assert figure.data[0].y[0] == len(trials)


def test_who_leads_after_a_rung_loses_least_on_its_images(out: Path, found: Found) -> None:
    trials = {t.number: t for t in stored(out, STUDY)}
    losses = {n: unpack_losses(t.attrs["losses"]) for n, t in trials.items()}
    expected, spent, leader = [], 0, 0
    for cohort in (range(0, 4), range(4, 90)):
        before = 0
        for rung in found.contract["racing"]["rungs"]:
            climbed = [n for n in cohort if len(losses[n]) >= rung]
            spent += len(climbed) * (rung - before)
            before = rung
            contenders = [n for n in [leader, *climbed] if len(losses[n]) >= rung]
            if climbed:
                leader = min(contenders, key=lambda n: losses[n][:rung].mean())
                expected.append((spent, leader))
    assert [(each.evaluations, each.trial.number) for each in leaders(found)] == expected
    assert expected[-1][0] == sum(t.attrs["images"] for t in trials.values())


def test_layers_are_counted_and_measured_where_they_stand(out: Path, found: Found) -> None:
    figure = PLOTS["layers"].figure(found)
    assert figure is not None
    trials = stored(out, STUDY)
    there = [[x for x in t.config.layers if x.after_block == 3] for t in trials]
    bar = next(each for each in figure.data if each.type == "bar" and each.name == "all trials")
    assert bar.y[2] == round(100 * sum(map(len, there)) / len(trials), 1)
    kept = next(each for each in figure.data if each.type == "box" and each.name == "all trials")
    shares = [
        100 * (t.attrs["tokens"][3] - 1) / (t.attrs["tokens"][2] - 1)  # but for the class token
        for t, layers in zip(trials, there, strict=True) if layers
    ]  # fmt: skip
    middle = float(np.median(shares))
    assert kept.median[list(kept.x).index(3)] == pytest.approx(middle, abs=1e-4)
    values = PLOTS["layer_values"].figure(found)
    assert values is not None
    steps = next(each for each in values.data if each.yaxis == "y2" and each.name == "all trials")
    iterations = [float(x.wpr_iterations) for each in there for x in each]
    assert steps.q3[list(steps.x).index(3)] == pytest.approx(float(np.percentile(iterations, 75)))


def test_choices_add_up_to_all_trials(found: Found) -> None:
    for trace in traces("choices", found).values():
        names, options = trace["y"]
        assert len(set(zip(names, options, strict=True))) == len(names)
        for name in set(names):
            share = sum(x for x, n in zip(trace["x"], names, strict=True) if n == name)
            assert share == pytest.approx(100, abs=0.3), name


def test_the_top_tenth_is_what_the_race_left_over(found: Found) -> None:
    order = {trial.number: place for place, trial in enumerate(found.standing)}
    assert len(found.standing) == len(found.trials) and len(found.top) == 10
    for trial in found.trials:
        for other in found.trials:
            if trial.state == "complete" and other.state == "pruned":
                assert order[trial.number] < order[other.number]
            if (trial.state, other.state) == ("pruned", "pruned"):
                more = len(trial.rungs) > len(other.rungs)
                same = len(trial.rungs) == len(other.rungs)
                if more or (same and trial.attrs["loss"] < other.attrs["loss"]):
                    assert order[trial.number] < order[other.number]


def test_importances_find_what_the_made_up_harm_follows_from(found: Found) -> None:
    shares, explained = importances(found)
    assert explained > 30
    first, second = sorted(shares, key=lambda name: -shares[name])[:2]
    assert {first, second} == {"block 1", "partition"}
    assert all(shares[name] < shares[second] / 3 for name in shares.keys() - {first, second})
