"""Searches from end to end: the same study from any number of workers, through any death."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import sqlalchemy as sa
from conftest import Finished
from helpers.geometries import DIGITS
from helpers.messages import one_line
from helpers.running import (
    HAND_SET,
    SEARCH,
    TRIALS,
    argv_of,
    attributes,
    complete,
    completions,
    descendants,
    gone,
    process,
    ranked,
    ray_workers,
    results,
    space_file,
    stored,
    until,
    url_of,
)
from helpers.studies import optuna_study
from PIL import Image

import ztp_search
import ztp_search.driver.evaluator
import ztp_search.evaluation.scheduler
from ztp_search import SearchSettings
from ztp_search.driver.progress import Progress, Status
from ztp_search.errors import DataError, StudyError, WorkerError, ZtpError
from ztp_search.pruning.budget import parse_budget
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.schedules import BASELINES
from ztp_search.racing import paired_difference
from ztp_search.results.documents import strongest, verdict
from ztp_search.results.search_result import search_result
from ztp_search.space import load_space
from ztp_search.space.decoder import Decoder
from ztp_search.study import StudyReader
from ztp_search.study.packing import unpack_bits, unpack_predictions


class Heard(Progress):
    """Keeps what a search says."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []
        self.statuses: list[Status] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def trials(self, status: Status) -> None:
        self.statuses.append(status)


def search(
    out: Path, heard: Progress | None = None, workers: int = 0, **changes: Any
) -> dict[str, Any]:
    """The shared search with other settings."""
    settings = SearchSettings(**{**SEARCH, "workers": workers, "out": out, **changes})
    return ztp_search.search(settings, heard).to_dict()


def no_workers(*_: object, **__: object) -> None:
    raise AssertionError("workers were started")


def same_evidence(out: Path, finished: Finished) -> None:
    """Trial by trial, and on holdout, what the undisturbed search found."""
    assert results(stored(out)) == results(stored(finished.out))
    mine, theirs = attributes(out), attributes(finished.out)
    assert mine["reference"] == theirs["reference"]
    assert mine["holdout"] == theirs["holdout"]


def test_a_study_has_what_was_asked_for(finished: Finished) -> None:
    trials = stored(finished.out)
    assert [trial.number for trial in trials] == list(range(TRIALS))
    assert {trial.state for trial in trials} == {"complete"}
    assert len({trial.config for trial in trials}) == TRIALS
    unpruned = finished.document["best"]["gflops"]["unpruned"]
    for trial in trials:
        assert 0.99 * 0.68 * unpruned <= trial.attrs["gflops"]["total"] <= 0.68 * unpruned
        assert trial.attrs["images"] == 96
        correct = unpack_bits(trial.attrs["correct"], 96)
        assert trial.value == correct.sum() / 96
    assert finished.document["best"]["provenance"]["trial"] == ranked(finished.out)[0].number
    assert finished.document["trials"] == {
        "complete": TRIALS, "pruned": 0, "failed": 0, "running": 0
    }  # fmt: skip
    # Search images: the trials, hand-set schedules among them, and unpruned.
    assert attributes(finished.out)["reference"]["image_evaluations"] == 96
    # Holdout images: 3 finalists, unpruned, and each baseline's shape that is no finalist.
    holdout = attributes(finished.out)["holdout"]
    shapes = {PruningConfig.from_dict(holdout[name]["config"]).digest() for name in BASELINES}
    once = 1 + len(holdout["candidates"].keys() | shapes)
    assert finished.document["image_evaluations"] == (TRIALS + 1) * 96 + once * 64


def test_the_hand_set_schedules_are_the_first_trials(finished: Finished) -> None:
    decoder = Decoder(load_space("digits"), DIGITS, parse_budget("68%", DIGITS))
    trials = stored(finished.out)
    first, others = trials[: len(HAND_SET)], trials[len(HAND_SET) :]
    assert {trial.attrs["hand_set"]: trial.config for trial in first} == decoder.hand_set()
    assert tuple(trial.attrs["hand_set"] for trial in first) == HAND_SET
    assert all(trial.attrs["point"] == [] for trial in first)
    for trial in others:
        assert "hand_set" not in trial.attrs
        assert decoder.decode(trial.attrs["point"]) == trial.config
    assert [
        (each["sampler"], each["start"], each["stop"])
        for each in attributes(finished.out)["cohorts"]
    ] == [("known", 0, 4), ("monte-carlo", 4, TRIALS)]


def test_the_winner_is_as_good_on_the_search_images_as_every_hand_set_schedule(
    finished: Finished,
) -> None:
    values = {trial.attrs.get("hand_set"): trial.value or 0.0 for trial in stored(finished.out)}
    evidence = finished.document["best"]["evidence"]["search"]
    reference = attributes(finished.out)["reference"]
    for name in BASELINES:
        shapes = {shape: values[f"{name} {shape}"] for shape in ("declining", "constant")}
        assert evidence[f"{name}_top1"] == reference[name]["top1"] == max(shapes.values())
        assert shapes[reference[name]["shape"]] == max(shapes.values())
    scores = attributes(finished.out)["scores"]
    known = [scores[str(t.number)] for t in stored(finished.out) if "hand_set" in t.attrs]
    assert scores[str(ranked(finished.out)[0].number)] >= max(known)


@pytest.mark.parametrize(
    ("method", "trials", "others"),
    [("zero-tprune", HAND_SET[:2], HAND_SET[2:]), ("merge", HAND_SET[2:], HAND_SET[:2])],
)
def test_a_part_of_the_space_has_its_own_schedules_as_trials_and_the_others_beside_it(
    tmp_path: Path, method: str, trials: tuple[str, ...], others: tuple[str, ...]
) -> None:
    found = search(tmp_path, method=method, trials=3, images=32, holdout=8)
    assert [t.attrs.get("hand_set") for t in stored(tmp_path)] == [*trials, None]
    reference = attributes(tmp_path)["reference"]
    assert reference["image_evaluations"] == (1 + len(others)) * 32  # and unpruned
    winner = found["holdout"]["candidates"][0]
    for name in BASELINES:
        assert reference[name]["top1"] is not None and f"minus_{name}_ci95" in winner
    merges = [trial.config.merges for trial in stored(tmp_path)]
    assert merges == [method == "merge"] * 3
    assert found["best"]["version"] == (2 if method == "merge" else 1)


def test_fewer_trials_than_hand_set_schedules_leave_some_out(
    finished: Finished, tmp_path: Path
) -> None:
    search(tmp_path, trials=3)
    assert results(stored(tmp_path)) == results(stored(finished.out))[:3]
    reference, theirs = attributes(tmp_path)["reference"], attributes(finished.out)["reference"]
    assert reference["image_evaluations"] == 2 * 96  # unpruned, and the one that was no trial
    for name in ("unpruned", *BASELINES):
        assert reference[name] == theirs[name]


def test_hand_set_schedules_that_were_left_out_are_trials_as_soon_as_more_are_asked_for(
    tmp_path: Path,
) -> None:
    search(tmp_path, trials=2, refine=1, images=32, holdout=0)
    search(tmp_path, trials=6, refine=1, images=32, holdout=0)
    named = [trial.attrs.get("hand_set") for trial in stored(tmp_path)]
    assert named == [*HAND_SET[:2], None, *HAND_SET[2:], None, None]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(
    finished: Finished, tmp_path: Path, workers: int
) -> None:
    document = search(tmp_path, workers=workers)
    same_evidence(tmp_path, finished)
    assert document["best"] == finished.document["best"]
    assert document["holdout"] == finished.document["holdout"]
    assert not ray_workers(os.getpid())


@pytest.mark.slow
def test_a_killed_search_goes_on_and_ends_as_if_undisturbed(
    finished: Finished, tmp_path: Path
) -> None:
    with process(*argv_of({**SEARCH, "out": tmp_path, "workers": 0})) as child:
        until(lambda: complete(tmp_path) >= 2, child)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    goes_on(tmp_path, finished)


@pytest.fixture(scope="module")
def longer(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """An undisturbed search that goes on for some seconds after its first trial."""
    out = tmp_path_factory.mktemp("longer")
    return Finished(out, {**SEARCH, "trials": 40}, search(out, trials=40))


@pytest.mark.slow
def test_a_killed_ray_is_started_again_and_does_not_show(longer: Finished, tmp_path: Path) -> None:
    part = "raylet"  # benchmarks/kills.py kills more
    with process(*argv_of({**longer.settings, "out": tmp_path, "workers": 2}), "--json") as child:
        until(lambda: complete(tmp_path) >= 1, child)
        (pid,) = (p.pid for p in psutil.Process(child.pid).children() if p.name() == part)
        os.kill(pid, signal.SIGKILL)
        out, err = child.communicate()
    assert child.returncode == 0, err
    assert f"Ray was started again (its {part} died); nothing is lost" in err
    assert json.loads(out)["best"] == longer.document["best"]  # and nothing of Ray's beside it
    same_evidence(tmp_path, longer)


@pytest.mark.slow
def test_killed_workers_and_then_a_killed_driver_do_not_show(
    finished: Finished, tmp_path: Path
) -> None:
    with process(*argv_of({**SEARCH, "out": tmp_path, "workers": 2}), "--json") as child:
        until(lambda: complete(tmp_path) >= 1, child)
        for pid in ray_workers(child.pid):
            os.kill(pid, signal.SIGKILL)
        seen = complete(tmp_path)
        until(lambda: complete(tmp_path) > seen + 1, child)
        below = descendants(child.pid)
        os.kill(child.pid, signal.SIGKILL)
        stdout, _ = child.communicate()
    assert stdout == ""  # Ray reports a worker's death there by itself
    assert gone(below)
    goes_on(tmp_path, finished)


def goes_on(out: Path, finished: Finished) -> None:
    before = completions(out)
    assert 2 <= len(before) < TRIALS
    search(out)
    same_evidence(out, finished)
    after = completions(out)
    assert {number: after[number] for number in before} == before


def test_the_size_of_a_task_changes_nothing(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # three blocks a trial, not one
    monkeypatch.setattr(ztp_search.evaluation.scheduler, "RANGE_IMAGES", 32)
    search(tmp_path, trials=6)
    assert results(stored(tmp_path)) == results(stored(finished.out))[:6]


def test_a_finished_search_evaluates_nothing_and_starts_no_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = search(tmp_path, trials=5)
    before = completions(tmp_path)
    monkeypatch.setattr(ztp_search.driver.evaluator, "open_pool", no_workers)
    second = search(tmp_path, trials=5)
    assert completions(tmp_path) == before
    assert second | {"seconds": 0} == first | {"seconds": 0}
    search(tmp_path, trials=1)  # nor does one that asks for less
    assert completions(tmp_path) == before


@pytest.mark.parametrize("fewer", [3, 6])
def test_more_trials_only_add(finished: Finished, tmp_path: Path, fewer: int) -> None:
    # behind three of the four hand-set schedules, and behind two sampled configurations
    search(tmp_path, trials=fewer)
    before = completions(tmp_path)
    heard = Heard()
    search(tmp_path, heard)
    after = completions(tmp_path)
    assert {number: after[number] for number in before} == before
    assert results(stored(tmp_path)) == results(stored(finished.out))
    holdout, theirs = attributes(tmp_path)["holdout"], attributes(finished.out)["holdout"]
    for digest, record in theirs["candidates"].items():
        assert holdout["candidates"][digest] == record
    assert [status.done for status in heard.statuses] == list(range(fewer + 1, TRIALS + 1))
    assert heard.statuses[-1].best is not None and heard.statuses[-1].total == TRIALS


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed 0 (now 1)"),
        ({"budget": "70%"}, "budget.macs"),
        ({"images": 64}, "images.count 96 (now 64)"),
        ({"holdout": 32}, "holdout.count 64 (now 32)"),
        ({"batch_size": 16}, "runtime.batch_size 32 (now 16)"),
        ({"precision": "bf16"}, "runtime.precision fp32 (now bf16)"),
        ({"objective": "agreement"}, "objective top1 (now agreement)"),
        ({"method": "merge"}, "method any (now merge), space "),
    ],
)
def test_other_settings_are_refused_by_name_and_nothing_is_lost(
    finished: Finished, change: dict[str, Any], named: str
) -> None:
    before = completions(finished.out)
    with pytest.raises(StudyError, match="made with other settings") as caught:
        search(finished.out, **change)
    assert named in str(caught.value)
    assert completions(finished.out) == before


@pytest.mark.parametrize("decoder", [None, 1])
def test_a_study_of_before_is_read_but_not_resumed(
    finished: Finished, tmp_path: Path, decoder: int | None
) -> None:
    shutil.copy(finished.out / "studies.db", tmp_path)
    made_before(url_of(tmp_path), decoder)
    before = (tmp_path / "studies.db").read_bytes()
    with pytest.raises(StudyError) as refused:
        search(tmp_path)
    assert str(refused.value) == (
        "study 's' was made by another version of ztp-search, which drew other configurations; "
        "it can be read and exported, but to search on, use another `study` name"
    )
    assert (tmp_path / "studies.db").read_bytes() == before

    found, theirs = ztp_search.best(out=tmp_path), ztp_search.best(out=finished.out)
    assert [each.number for each in found.trials] == [each.number for each in theirs.trials]
    assert [each.value for each in found.trials] == [each.value for each in theirs.trials]
    file = ztp_search.export(tmp_path / "best.json", out=tmp_path)
    assert file.config == theirs.trials[0].file.config
    holdout = theirs.trials[0].file.evidence["holdout"]
    assert file.evidence["holdout"]["paired_ci95"] == holdout["paired_ci95"]
    assert not any("tome" in name for name in file.evidence["holdout"])
    with StudyReader.open(url_of(tmp_path), "s") as study:
        table = search_result(study).holdout
    assert table is not None and "the paper's schedule" in table["verdict"]


def made_before(url: str, decoder: int | None) -> None:
    """Make a study one of another decoder, and of a time without ToMe's schedule."""
    with optuna_study(url) as study:
        study.set_user_attr("contract.decoder", decoder)
        reference, holdout = study.user_attrs["reference"], study.user_attrs["holdout"]
        for record in (reference, holdout):
            del record["tome"]
        for record in holdout["candidates"].values():
            del record["minus_tome"], record["minus_tome_ci95"]
        study.set_user_attr("reference", reference)
        study.set_user_attr("holdout", holdout)
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        if decoder is None:
            of_decoder = "DELETE FROM study_user_attributes WHERE key = 'contract.decoder'"
            assert connection.execute(sa.text(of_decoder)).rowcount == 1
        hand_set = "DELETE FROM trial_user_attributes WHERE key = 'hand_set'"
        assert connection.execute(sa.text(hand_set)).rowcount == len(HAND_SET)
    engine.dispose()


def test_a_timeout_ends_the_search_with_whole_trials(tmp_path: Path) -> None:
    search(tmp_path / "none", timeout=0, trials=1000, images=32)
    first = stored(tmp_path / "none")  # as nothing is no result
    assert tuple(trial.attrs["hand_set"] for trial in first) == HAND_SET
    assert {trial.state for trial in first} == {"complete"}
    space = space_file(tmp_path, after_block=[2, 3, 4, 5, 6])
    search(tmp_path / "sampled", timeout=0, trials=1000, images=32, space=space)
    assert len(stored(tmp_path / "sampled")) == 32  # no schedule lies in there: a first chunk
    search(tmp_path, timeout=0.2, trials=1000)
    trials = stored(tmp_path)
    assert 1 <= len(trials) < 1000 and {trial.state for trial in trials} == {"complete"}
    assert attributes(tmp_path)["holdout"]["candidates"]


def test_no_holdout_means_no_confirmation(tmp_path: Path) -> None:
    document = search(tmp_path, trials=1, holdout=0)
    assert document["holdout"] is None and "holdout" not in document["best"]["evidence"]


def test_unlabelled_images_need_the_agreement_objective(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 40), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i:02d}.png")
    changes = {"data": folder, "images": 16, "holdout": 8, "trials": 5}
    with pytest.raises(DataError, match="top1 needs labels.*use `objective` agreement"):
        search(tmp_path, **changes)
    document = search(tmp_path, **changes, objective="agreement")
    assert document["holdout"]["unpruned"]["agreement"] == 1.0
    evidence = document["best"]["evidence"]
    assert "top1" not in evidence["search"] and 0.0 <= evidence["search"]["agreement"] <= 1.0
    assert evidence["holdout"]["images"] == 8


@pytest.mark.parametrize("number", [1, 5])
def test_a_trial_that_cannot_be_evaluated_fails_alone(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    from ztp_search.evaluation.model_runner import ModelRunner

    bad = stored(finished.out)[number].config
    run_sound = ModelRunner.run

    def run_or_refuse(self: ModelRunner, configs: tuple[PruningConfig | None], *rest: Any) -> Any:
        if bad in configs:
            raise ZtpError("this one does not fit")
        return run_sound(self, configs, *rest)

    monkeypatch.setattr(ModelRunner, "run", run_or_refuse)
    heard = Heard()
    document = search(tmp_path, heard, trials=7)
    assert document["trials"] == {"complete": 6, "pruned": 0, "failed": 1, "running": 0}
    assert heard.notes == [f"trial {number} failed: this one does not fit"]
    mine, theirs = results(stored(tmp_path)), results(stored(finished.out))[:7]
    assert mine[:number] + mine[number + 1 :] == theirs[:number] + theirs[number + 1 :]
    monkeypatch.undo()
    search(tmp_path, trials=7)  # what failed stays so: it is not tried again
    assert results(stored(tmp_path)) == mine


def test_outputs_that_are_no_numbers_fail_their_trial_alone(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ztp_search.evaluation.model_runner import ModelRunner

    bad = stored(finished.out)[5].config
    run_sound = ModelRunner.run

    def run_and_break(
        self: ModelRunner, configs: tuple[PruningConfig | None], images: Any
    ) -> list[Any]:
        found: list[Any] = run_sound(self, configs, images)
        for config, result in zip(configs, found, strict=True):
            if config == bad and images.start == 0 and images.image_set == "search":
                result.predictions[[3, 7]] = -1
        return found

    monkeypatch.setattr(ModelRunner, "run", run_and_break)
    heard = Heard()
    document = search(tmp_path, heard, trials=7)
    assert document["trials"] == {"complete": 6, "pruned": 0, "failed": 1, "running": 0}
    assert heard.notes == ["trial 5 failed: outputs that are no finite numbers, on 2 images"]


@pytest.mark.parametrize(
    ("most", "failed", "says"),
    [(None, 16, "16 trials failed (all that were evaluated); trial 0: none fits"),
     (2, 3, "3 trials failed (`max_failures` is 2); trial 0: none fits"),
     (0, 1, "1 trials failed (`max_failures` is 0); trial 0: none fits")],
)  # fmt: skip
def test_a_fault_of_all_trials_ends_the_search_soon(
    most: int | None, failed: int, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ztp_search.evaluation.model_runner import ModelRunner

    run_sound = ModelRunner.run

    def refuse(self: ModelRunner, configs: tuple[PruningConfig | None], *rest: Any) -> Any:
        if configs != (None,):
            raise ZtpError("none fits")
        return run_sound(self, configs, *rest)

    monkeypatch.setattr(ModelRunner, "run", refuse)
    with pytest.raises(WorkerError) as ended:
        search(tmp_path, trials=200, max_failures=most)
    assert says.partition(" trials")[2] in one_line(ended)
    states = [trial.state for trial in stored(tmp_path)]
    assert failed <= states.count("failed") <= failed + 16 and len(states) < 200


def test_the_holdout_record_is_what_its_bits_say(finished: Finished) -> None:
    holdout = attributes(finished.out)["holdout"]
    document = finished.document["holdout"]
    others = {
        name: unpack_bits(holdout[name]["correct"], 64) for name in ("unpruned", *BASELINES)
    }
    assert len(others) == 3
    for name, other in others.items():
        assert document[name]["top1"] == other.mean()
    ranks = ranked(finished.out)
    assert [c["trial"] for c in document["candidates"]] == [t.number for t in ranks[:3]]
    for candidate, trial in zip(document["candidates"], ranks, strict=False):
        correct = unpack_bits(holdout["candidates"][trial.config.digest()]["correct"], 64)
        assert candidate["top1"] == correct.mean()
        for name, other in others.items():
            difference = correct.mean() - other.mean()
            low, high = candidate[f"minus_{name}_ci95"]
            assert candidate[f"minus_{name}"] == pytest.approx(difference, abs=1e-12)
            assert low <= difference <= high
            assert (low, high) == paired_difference(correct, other).interval
    assert not {"correct", "predictions"} & document["candidates"][0].keys()
    evidence = finished.document["best"]["evidence"]["holdout"]
    assert evidence["top1"] == document["candidates"][0]["top1"]
    assert evidence["paired_ci95"] == document["candidates"][0]["minus_paper_schedule_ci95"]
    assert evidence["minus_tome_ci95"] == document["candidates"][0]["minus_tome_ci95"]
    opponent = strongest(attributes(finished.out)["reference"], "top1")
    assert document["verdict"] == verdict(document["candidates"][0], opponent)


def test_search_and_holdout_images_are_not_the_same(finished: Finished) -> None:
    reference = attributes(finished.out)["reference"]
    assert len(unpack_predictions(reference["unpruned"]["predictions"])) == 96
    data = finished.document["best"]["provenance"]["data"]
    assert data["images"]["sha256"] != data["holdout"]["sha256"]


@pytest.mark.parametrize(
    ("opponent", "title"),
    [("paper_schedule", "the paper's schedule"), ("tome", "ToMe's schedule")],
)
@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (0.001, 0.02, "trial 7 is better than {} on holdout images (+1.00"),
        (-0.02, -0.001, "trial 7 is worse than {} on holdout images (+1.00"),
        (-0.01, 0.02, "trial 7 is not shown to be better than {} on holdout images (+1.00"),
        (0.0, 0.02, "trial 7 is not shown to be better than {} on holdout images (+1.00"),
        (-0.02, 0.0, "trial 7 is not shown to be better than {} on holdout images (+1.00"),
    ],
)
def test_the_verdict_is_plain(
    low: float, high: float, says: str, opponent: str, title: str
) -> None:
    of_others = {f"minus_{name}": 0.5 for name in BASELINES}
    of_others |= {f"minus_{name}_ci95": [0.4, 0.6] for name in BASELINES}
    winner = {
        "trial": 7, **of_others, f"minus_{opponent}": 0.01, f"minus_{opponent}_ci95": [low, high]
    }  # fmt: skip
    assert verdict(winner, opponent).startswith(says.format(title))
    assert f"{100 * low:+.2f} to {100 * high:+.2f}" in verdict(winner, opponent)
    for other in BASELINES:
        named = verdict({**winner, "hand_set": f"{other} constant"}, opponent)
        if other == opponent:
            assert named == (
                f"trial 7 is {title} itself: no other trial did better on the search images"
            )
        else:
            assert named == verdict(winner, opponent)
    assert "nothing to compare with" in verdict(winner, None)


@pytest.mark.parametrize(
    ("paper", "tome", "opponent"),
    [(0.8, 0.7, "paper_schedule"), (0.7, 0.8, "tome"), (0.7, None, "paper_schedule"),
     (None, 0.1, "tome"), (None, None, None)],
)  # fmt: skip
def test_the_opponent_is_the_baseline_that_does_best_on_the_search_images(
    paper: float | None, tome: float | None, opponent: str | None
) -> None:
    values = {"paper_schedule": paper, "tome": tome}
    reference = {name: value and {"top1": value} for name, value in values.items()}
    assert strongest({"unpruned": {"top1": 0.9}, **reference}, "top1") == opponent


@pytest.mark.slow
def test_a_ray_session_of_the_user_s_own_is_used_and_goes_on(tmp_path: Path) -> None:
    code = f"""
import ray
from ztp_search import SearchSettings, search

ray.init(address="local", include_dashboard=False, num_cpus=1, log_to_driver=False)
for trials in (2, 4):  # the second search finds the place of the first one's worker free
    search(SearchSettings(
        space="digits", budget="68%", trials=trials, images=32, holdout=0, batch_size=32,
        workers=1, speed="off", out={str(tmp_path)!r},
    ))
    assert ray.is_initialized()
print("still there")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("still there"), done.stderr[-2000:]


@pytest.mark.slow
def test_a_finished_search_is_told_from_a_folder_that_cannot_be_written_to(
    finished: Finished, tmp_path: Path
) -> None:
    out = tmp_path / "ro"
    shutil.copytree(finished.out, out)
    for path in [*out.rglob("*"), out]:
        path.chmod(path.stat().st_mode & ~0o222)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    root = os.geteuid() == 0  # who may write everywhere, unless that is taken from them
    command = [*(["setpriv", "--bounding-set", "-dac_override"] if root else [])]
    command += [sys.executable, "-m", "ztp_search", "--json"]
    asked = {**finished.settings, "out": out}
    try:
        done = subprocess.run([*command, *argv_of(asked)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        for key in ("best", "holdout", "trials"):
            assert document[key] == finished.document[key]
        assert "is read-only: this is what it holds" in done.stderr
        more = argv_of({**asked, "trials": TRIALS + 1})
        refused = subprocess.run([*command, *more], capture_output=True, text=True)
        assert (refused.returncode, refused.stdout) == (2, "")
        last = refused.stderr.splitlines()[-1]
        assert f"has {TRIALS} of {TRIALS + 1} trials" in last and "is read-only" in last
        assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    finally:
        for path in [out, *out.rglob("*")]:
            path.chmod(0o755)
