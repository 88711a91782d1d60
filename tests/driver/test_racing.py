"""Searches that race: the same decisions from any number of workers, through any interruption."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Finished
from helpers.geometries import DIGITS
from helpers.racing_by_hand import slow_equal, slow_survivors
from helpers.running import (
    HAND_SET,
    RACE,
    argv_of,
    attributes,
    document,
    process,
    results,
    space_file,
    stored,
    until,
    url_of,
)

import ztp_search
import ztp_search.driver.evaluator
import ztp_search.samplers.base
from ztp_search import SearchSettings
from ztp_search.backbones.loading import load_model
from ztp_search.cli.main import main
from ztp_search.driver.evaluator import decode_images
from ztp_search.driver.progress import Progress, Status
from ztp_search.errors import StudyError
from ztp_search.evaluation.image_range import ImageRange
from ztp_search.evaluation.model_runner import ModelRunner
from ztp_search.pruning.budget import parse_budget
from ztp_search.pruning.schedules import BASELINES
from ztp_search.racing import RACING
from ztp_search.samplers import SAMPLERS, Refine
from ztp_search.settings import resolve_search
from ztp_search.space import load_space
from ztp_search.space.decoder import Decoder
from ztp_search.study import StoredTrial, StudyReader
from ztp_search.study.packing import unpack_bits, unpack_losses, unpack_predictions

RUNGS = (8, 16, 32, 64, 128, 256)


class Interrupted(Exception):
    """Stands for a death of the driver in the tests that need many of them."""


class Interrupting(Progress):
    """Dies when it is told of trials for the n-th time."""

    def __init__(self, after: int) -> None:
        self.left = after

    def trials(self, status: Status) -> None:
        self.left -= 1
        if self.left < 0:
            raise Interrupted


def race(
    out: Path, heard: Progress | None = None, workers: int = 0, **changes: Any
) -> dict[str, Any]:
    """The shared race with other settings."""
    settings = SearchSettings(**{**RACE, "workers": workers, "out": out, **changes})
    several = len(settings.budgets) > 1
    search = ztp_search.search_front if several else ztp_search.search
    return search(settings, heard).to_dict()


def same_evidence(out: Path, finished: Finished) -> None:
    assert results(stored(out)) == results(stored(finished.out))
    mine, theirs = attributes(out), attributes(finished.out)
    for name in ("reference", "holdout", "cohorts", "scores"):
        assert mine[name] == theirs[name], name


def bits(trial: StoredTrial) -> list[bool]:
    seen: list[bool] = unpack_bits(trial.attrs["correct"], trial.attrs["images"]).tolist()
    return seen


def losses(trial: StoredTrial) -> list[int]:
    seen: list[int] = unpack_losses(trial.attrs["losses"]).tolist()
    assert len(seen) == trial.attrs["images"]
    return seen


def correct_of_unpruned(out: Path) -> list[bool]:
    """Per search image, from what the study has stored and the images themselves."""
    reference = attributes(out)["reference"]
    sources = resolve_search(SearchSettings(**RACE, out=out)).sources
    loaded = load_model(sources.model, data_overrides=sources.data_overrides)
    labels = decode_images(sources, loaded, Progress()).search.labels
    predictions = unpack_predictions(reference["unpruned"]["predictions"])
    right: list[bool] = (predictions == labels).tolist()
    return right


def check_race(out: Path, finalists: int = 5, rule: str = "both") -> None:
    """Every cohort ended as the rules say, beside the trials that were complete before it."""
    trials = stored(out)
    for plan in attributes(out)["cohorts"]:
        start, stop = plan["start"], plan["stop"]
        check_cohort(trials[start:stop], trials[:start], finalists, rule)


def check_cohort(
    trials: list[StoredTrial], before: list[StoredTrial], finalists: int, rule: str = "both"
) -> None:
    """Trials of one cohort ended where the rules, written apart and slowly, let them end."""
    complete = {t.number: losses(t) for t in before if t.state == "complete"}
    alive = {trial.number: trial for trial in trials}
    seen = RUNGS[-1]
    for rung in RUNGS[:-1]:
        quota = -(-len(trials) // 3 ** (1 + RUNGS.index(rung)))  # a third, and again, rounded up
        cohort = {number: losses(trial)[:rung] for number, trial in alive.items()}
        going = slow_survivors(
            RACING[rule], cohort, complete, quota, finalists, trials[-1].number
        )
        for number in alive.keys() - going:
            assert alive[number].state == "pruned" and alive[number].attrs["images"] == rung
        alive = {number: alive[number] for number in going}
        few = rule != "evidence" and 1 < len(alive) <= finalists
        if few and slow_equal([bits(t)[:rung] for t in alive.values()], len(RUNGS) - 1):
            seen = rung  # more images would not tell them apart
            break
    assert {(trial.state, trial.attrs["images"]) for trial in alive.values()} <= {
        ("complete", seen)
    }  # fmt: skip


def test_a_race_ends_as_the_rules_say(raced: Finished) -> None:
    trials = stored(raced.out)
    assert [trial.number for trial in trials] == list(range(12))
    assert attributes(raced.out)["cohorts"] == [
        {"sampler": "known", "start": 0, "stop": 4, "finalists": 5, "exhausted": False},
        {"sampler": "monte-carlo", "start": 4, "stop": 12, "finalists": 5, "exhausted": False},
    ]
    check_race(raced.out)
    # There must be five finalists, though three were asked for: of the hand-set schedules all go
    # on that are not shown to be worse; of eight others a third, or those among the five best.
    states = [trial.state for trial in trials]
    assert 1 <= states[:4].count("complete") and 1 <= states[4:].count("complete") <= 5
    assert raced.document["trials"]["pruned"] == states.count("pruned")
    assert [trial.attrs["images"] for trial in trials].count(8) >= 3
    images = sum(trial.attrs["images"] for trial in trials)
    assert raced.document["racing"] == {
        "rule": "both", "signal": "total-variation", "rungs": list(RUNGS),
        "image_evaluations": images, "in_full": 12 * 256,
    }  # fmt: skip


def test_every_trial_has_its_estimate_and_error(raced: Finished) -> None:
    unpruned = np.array(correct_of_unpruned(raced.out))
    for trial in stored(raced.out):
        correct = np.array(bits(trial))
        n = len(correct)
        paired = unpruned.mean() + (correct.astype(int) - unpruned[:n]).mean()
        assert trial.value == pytest.approx(min(1.0, max(0.0, paired)), abs=1e-12)
        assert trial.rungs[n] == trial.value
        assert sorted(trial.rungs) == [rung for rung in RUNGS if rung <= n]
        assert trial.attrs["rung"] == RUNGS.index(n)
        assert 0 < trial.attrs["standard_error"] < 0.3
        # a hand-set schedule comes from no point of the unit cube
        assert (len(trial.attrs["point"]) > 10) != ("hand_set" in trial.attrs)
        if n == RUNGS[-1]:
            assert trial.value == correct.mean()


def test_hand_set_schedules_race_like_all_others_and_stand_for_their_baseline(
    raced: Finished,
) -> None:
    trials = {t.attrs["hand_set"]: t for t in stored(raced.out) if "hand_set" in t.attrs}
    assert tuple(trials) == HAND_SET
    assert {trial.state for trial in trials.values()} == {"complete", "pruned"}
    scores = attributes(raced.out)["scores"]
    winner = scores[str(raced.document["best"]["provenance"]["trial"])]
    assert winner >= max(
        scores[str(t.number)] for t in trials.values() if t.state == "complete"
    )
    reference = attributes(raced.out)["reference"]
    assert reference["image_evaluations"] == 256  # of the unpruned model alone
    for name in BASELINES:
        shapes = {shape: trials[f"{name} {shape}"] for shape in ("declining", "constant")}
        # that which went farther in the race; of equals the more accurate
        best = max(shapes, key=lambda shape: (shapes[shape].attrs["images"], shapes[shape].value))
        assert reference[name]["shape"] == best
        assert reference[name]["top1"] == shapes[best].value
        assert reference[name]["images"] == shapes[best].attrs["images"]


def test_the_winner_saw_all_images_and_stands_beside_its_holdout_estimate(raced: Finished) -> None:
    holdout = raced.document["holdout"]
    assert len(holdout["candidates"]) == 3
    assert raced.document["best"]["evidence"]["search"]["images"] == 256
    winner = holdout["candidates"][0]
    assert f"{100 * winner['search_minus_unpruned']:+.2f}" in holdout["winners_curse"]
    assert f"{100 * winner['minus_unpruned']:+.2f}" in holdout["winners_curse"]


@pytest.mark.slow
def test_the_number_of_workers_changes_no_decision(raced: Finished, tmp_path: Path) -> None:
    found = race(tmp_path, workers=2)
    same_evidence(tmp_path, raced)
    assert found["best"] == raced.document["best"]


@pytest.mark.slow
def test_a_killed_race_goes_on_as_if_undisturbed(raced: Finished, tmp_path: Path) -> None:
    def reached(images: int) -> bool:
        try:
            return any(trial.attrs.get("images") == images for trial in stored(tmp_path))
        except StudyError:
            return False

    for rung in (32, 128):
        with process(*argv_of({**RACE, "out": tmp_path, "workers": 0})) as child:
            until(lambda rung=rung: reached(rung), child)  # type: ignore[misc]
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
        assert "running" in {trial.state for trial in stored(tmp_path)}
    race(tmp_path)
    same_evidence(tmp_path, raced)


@pytest.mark.parametrize("after", [0, 6, 16, 24, 27, 33])
def test_wherever_the_driver_dies_the_race_ends_the_same(
    raced: Finished, tmp_path: Path, after: int
) -> None:
    with pytest.raises(Interrupted):
        race(tmp_path, Interrupting(after))
    # among the hand-set schedules on three of their rungs, and among those that were sampled
    assert (len(stored(tmp_path)) == len(HAND_SET)) == (after < 22)
    race(tmp_path)
    same_evidence(tmp_path, raced)


def test_nothing_is_evaluated_twice_on_a_resume(
    raced: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[Any, ImageRange]] = []
    plain = ModelRunner.run

    def counted(self: ModelRunner, configs: Any, images: ImageRange) -> Any:
        found = plain(self, configs, images)
        done.extend((config, images) for config in configs)
        return found

    monkeypatch.setattr(ModelRunner, "run", counted)
    with pytest.raises(Interrupted):
        race(tmp_path, Interrupting(4))
    race(tmp_path)
    assert len(done) == len(set(done))
    assert sum(len(images) for _, images in done) == raced.document["image_evaluations"]


def test_memory_for_the_cache_changes_nothing(raced: Finished, tmp_path: Path) -> None:
    race(tmp_path, cache_memory=0)
    same_evidence(tmp_path, raced)


def test_more_trials_race_as_a_cohort_of_their_own(raced: Finished, tmp_path: Path) -> None:
    first = race(tmp_path, trials=7)
    before = stored(tmp_path)
    check_race(tmp_path)
    race(tmp_path)
    trials = stored(tmp_path)
    assert results(trials[:7]) == results(before)
    assert [trial.config for trial in trials] == [trial.config for trial in stored(raced.out)]
    plan = attributes(tmp_path)["cohorts"]
    assert [(each["start"], each["stop"]) for each in plan] == [(0, 4), (4, 7), (7, 12)]
    check_race(tmp_path)
    assert first["trials"]["complete"] >= 3


@pytest.mark.parametrize("rule", ["halving", "evidence", "off"])
def test_every_rule_can_be_asked_for(tmp_path: Path, rule: str) -> None:
    found = race(tmp_path, racing=rule, trials=8)
    trials = stored(tmp_path)
    if rule == "off":
        assert found["trials"]["complete"] == 8
        assert {trial.attrs["images"] for trial in trials} == {256}
    else:
        check_race(tmp_path, rule=rule)


def test_another_rule_is_refused_on_a_resume(raced: Finished) -> None:
    with pytest.raises(StudyError, match=r"racing.rule both \(now halving\)"):
        race(raced.out, racing="halving")


LEARNING = ("tpe", "cma-es", "surrogate")


@pytest.mark.parametrize("sampler", [*LEARNING, "qmc"])
def test_a_learning_search_resumes_in_the_middle_of_a_generation(
    tmp_path: Path, sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if SAMPLERS[sampler].generation:
        monkeypatch.setattr(SAMPLERS[sampler], "generation", 8)
    monkeypatch.setattr(Refine, "generation", 4)
    changes = {"sampler": sampler, "trials": 16, "refine": 6, "images": 32, "racing": "off"}
    race(tmp_path / "whole", **changes)
    # among the hand-set schedules, in the first and the second generation, and in refinement
    for after in (2, 5, 5, 3):
        with pytest.raises(Interrupted):
            race(tmp_path / "parts", Interrupting(after), **changes)
    race(tmp_path / "parts", **changes)
    assert results(stored(tmp_path / "parts")) == results(stored(tmp_path / "whole"))
    plan = attributes(tmp_path / "whole")["cohorts"]
    assert plan == attributes(tmp_path / "parts")["cohorts"]
    assert [(each["sampler"], each["stop"]) for each in plan] == [
        ("known", 4), (sampler, 16), ("refine", 20), ("refine", 22)
    ]  # fmt: skip


@pytest.mark.parametrize("sampler", LEARNING)
def test_the_first_generation_of_a_learning_sampler_starts_behind_the_hand_set_schedules(
    tmp_path: Path, sampler: str
) -> None:
    race(tmp_path, sampler=sampler, trials=10, images=32, holdout=0, racing="off")
    alone = SAMPLERS[sampler](
        Decoder(load_space("digits"), DIGITS, parse_budget("50%", DIGITS)), seed=0
    )
    alone.tell(len(HAND_SET), [], [])  # which is all that it is told of them
    for trial in stored(tmp_path)[len(HAND_SET) :]:
        proposal = alone.propose(trial.number)
        assert proposal is not None
        assert (proposal.config, list(proposal.point)) == (trial.config, trial.attrs["point"])


def test_refined_trials_lie_close_to_the_best(tmp_path: Path) -> None:
    race(tmp_path, trials=20, refine=8)
    points = [np.array(t.attrs["point"]) for t in stored(tmp_path) if "hand_set" not in t.attrs]
    assert len(points) == 16 + 8
    moved = [
        min(int((np.abs(point - other) > 0.02).sum()) for other in points[:16])
        for point in points[16:]
    ]
    assert np.median(moved) <= 3 < np.median([(points[0] != other).sum() for other in points[1:16]])


def test_several_budgets_share_what_they_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpruned: list[str] = []
    plain = ModelRunner.run

    def counted(self: ModelRunner, configs: Any, images: ImageRange) -> Any:
        unpruned.extend(f"{images.image_set}{images.start}" for config in configs if config is None)
        return plain(self, configs, images)

    monkeypatch.setattr(ModelRunner, "run", counted)
    opened = []
    open_pool = ztp_search.driver.evaluator.open_pool
    monkeypatch.setattr(
        ztp_search.driver.evaluator,
        "open_pool",
        lambda *a, **k: opened.append(0) or open_pool(*a, **k),
    )
    found = race(tmp_path, budget="45%:75%:3", trials=6, images=64)
    assert unpruned == ["search0", "holdout0"] and len(opened) == 1
    assert [point["study"] for point in found["front"]] == ["s-45%", "s-60%", "s-75%"]
    for share, point in zip((0.45, 0.6, 0.75), found["front"], strict=True):
        assert 0.99 * share <= point["gflops"] / point["unpruned_gflops"] <= share
        assert point["images"] == 32
        assert point["minus_unpruned"] == pytest.approx(
            point["accuracy"] - point["unpruned_accuracy"]
        )
    front = [point["accuracy"] for point in found["front"] if point["on_front"]]
    assert front == sorted(set(front)) and found["front"][0]["on_front"]
    with StudyReader.open(url_of(tmp_path), "s-60%") as study:
        assert len(study.trials()) == 6
    one = race(tmp_path, budget="60%", study="s-60%", trials=6, images=64)
    assert one | {"seconds": 0} == found["budgets"][1] | {"seconds": 0}


def test_several_budgets_print_one_table_and_draw_the_front(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"trials": 6, "images": 64, "budget": "50%,70%"}
    argv = argv_of({**RACE, "workers": 0, "out": tmp_path, **changes})
    assert main(argv) == 0
    table = capsys.readouterr().out
    assert sum(line.startswith(" trial ") for line in table.splitlines()) == 2
    assert "− paper's" in table and "− ToMe's" in table
    assert (tmp_path / "front-s.svg").read_text().startswith("<?xml")
    assert main([*argv, "--json"]) == 0
    found = document(capsys.readouterr().out)
    assert found["figure"].endswith("front-s.svg") and len(found["budgets"]) == 2
    json.dumps(found, allow_nan=False)


def test_a_timeout_leaves_a_cohort_that_is_raced_to_its_end(tmp_path: Path) -> None:
    space = space_file(tmp_path, after_block=[2, 3, 4, 5, 6])  # no hand-set schedule is in there
    race(tmp_path, timeout=0.5, trials=2000, images=128, space=space)
    trials = stored(tmp_path)
    assert 32 <= len(trials) < 2000
    assert {trial.state for trial in trials} == {"complete", "pruned"}
    plan = attributes(tmp_path)["cohorts"]
    assert [(each["start"], each["stop"]) for each in plan] == [(0, len(trials))]


def small_space(folder: Path) -> Path:
    """A few configurations at 80 %: one pruning layer, two of its parameters free."""
    return space_file(
        folder, after_block=[3], layers=1, s_tokens=[0, 2], wpr_iterations=[1, 3], v_min=0.01,
        v_max=10.0, similar="drop", merge_share=0.0, sizes="ignore", partition="sequential-u",
        features="key",
    )  # fmt: skip


def test_a_space_that_is_exhausted_stays_so_on_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ztp_search.samplers.base, "MAX_ATTEMPTS", 3)  # gives up, though not empty
    small: dict[str, Any] = {
        "space": small_space(tmp_path), "budget": "80%", "images": 64, "trials": 40, "refine": 2,
        "racing": "off",
    }  # fmt: skip
    race(tmp_path, **small)
    trials, plan = stored(tmp_path), attributes(tmp_path)["cohorts"]
    assert 2 < len(trials) < 42
    assert [(each["sampler"], each["exhausted"]) for each in plan][0] == ("monte-carlo", True)
    monkeypatch.setattr(ztp_search.samplers.base, "MAX_ATTEMPTS", 1000)  # now it would find more
    race(tmp_path, **small)
    assert (stored(tmp_path), attributes(tmp_path)["cohorts"][0]) == (trials, plan[0])


def test_every_budget_gets_its_first_trials_however_short_the_time(tmp_path: Path) -> None:
    short = {"budget": "50%,60%,70%", "timeout": 0, "trials": 2000, "images": 64}
    found = race(tmp_path / "known", **short)
    assert [sum(each["trials"].values()) for each in found["budgets"]] == [len(HAND_SET)] * 3
    assert len(found["front"]) == 3
    space = space_file(tmp_path, after_block=[2, 3, 4, 5, 6])  # no hand-set schedule is in there
    found = race(tmp_path, space=space, **(short | {"images": 32}))
    assert [sum(each["trials"].values()) for each in found["budgets"]] == [32, 32, 32]
    assert len(found["front"]) == 3


def test_a_resume_keeps_the_finalists_of_cohorts_that_have_begun(
    raced: Finished, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        race(tmp_path, Interrupting(24))
    assert {trial.state for trial in stored(tmp_path)[len(HAND_SET) :]} == {"running"}
    race(tmp_path, candidates=8)
    assert results(stored(tmp_path)) == results(stored(raced.out))


def test_best_takes_the_budget_that_was_worked_on_when_the_search_was_interrupted(
    tmp_path: Path,
) -> None:
    with pytest.raises(Interrupted):
        race(tmp_path, Interrupting(1), budget="50%,60%")
    with StudyReader.open(url_of(tmp_path), None) as study:
        assert study.name == "s-50%" and study.trials()
