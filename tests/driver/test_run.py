"""Searches from end to end: the same study from any number of workers, through any death."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Finished
from helpers.running import (
    SEARCH,
    TRIALS,
    attributes,
    complete,
    completions,
    descendants,
    gone,
    process,
    ray_workers,
    results,
    search_settings,
    stored,
    until,
)
from PIL import Image

import ztp_search
import ztp_search.driver.evaluator
import ztp_search.evaluation.scheduler
from ztp_search.driver.packing import unpack_bits, unpack_predictions
from ztp_search.driver.progress import Progress, Status
from ztp_search.errors import DataError, StudyError, ZtpError
from ztp_search.pruning.config import PruningConfig
from ztp_search.racing import paired_difference
from ztp_search.results.documents import verdict


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
    out: Path, *changes: str, workers: int = 0, heard: Progress | None = None
) -> dict[str, Any]:
    """The shared search with other flags; the last of a flag counts."""
    argv = [*SEARCH, "--workers", str(workers), "--out", str(out), *changes]
    return ztp_search.search(search_settings(*argv), heard).to_dict()


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
    best = min(trials, key=lambda t: (-(t.value or 0), t.attrs["gflops"]["total"], t.number))
    assert finished.document["best"]["provenance"]["trial"] == best.number
    assert finished.document["trials"] == {
        "complete": TRIALS, "pruned": 0, "failed": 0, "running": 0
    }  # fmt: skip
    # Search images: the trials, unpruned and two shapes; holdout: 3, unpruned and one shape.
    assert finished.document["image_evaluations"] == (TRIALS + 3) * 96 + (3 + 2) * 64


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
    with process(*SEARCH, "--out", str(tmp_path), "--workers", "0") as child:
        until(lambda: complete(tmp_path) >= 2, child)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    goes_on(tmp_path, finished)


@pytest.mark.slow
def test_killed_workers_and_then_a_killed_driver_do_not_show(
    finished: Finished, tmp_path: Path
) -> None:
    with process(*SEARCH, "--out", str(tmp_path), "--workers", "2", "--json") as child:
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
    search(tmp_path, "--trials", "2")
    assert results(stored(tmp_path)) == results(stored(finished.out))[:2]


def test_a_finished_search_evaluates_nothing_and_starts_no_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = search(tmp_path, "--trials", "2")
    before = completions(tmp_path)
    monkeypatch.setattr(ztp_search.driver.evaluator, "open_pool", no_workers)
    second = search(tmp_path, "--trials", "2")
    assert completions(tmp_path) == before
    assert second | {"seconds": 0} == first | {"seconds": 0}
    search(tmp_path, "--trials", "1")  # nor does one that asks for less
    assert completions(tmp_path) == before


def test_more_trials_only_add(finished: Finished, tmp_path: Path) -> None:
    search(tmp_path, "--trials", "3")
    before = completions(tmp_path)
    heard = Heard()
    search(tmp_path, "--trials", str(TRIALS), heard=heard)
    after = completions(tmp_path)
    assert {number: after[number] for number in before} == before
    assert results(stored(tmp_path)) == results(stored(finished.out))
    holdout, theirs = attributes(tmp_path)["holdout"], attributes(finished.out)["holdout"]
    for digest, record in theirs["candidates"].items():
        assert holdout["candidates"][digest] == record
    assert [status.done for status in heard.statuses] == list(range(4, TRIALS + 1))
    assert heard.statuses[-1].best is not None and heard.statuses[-1].total == TRIALS


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("--seed", "1"), "seed 0 (now 1)"),
        (("--budget", "70%"), "budget.macs"),
        (("--images", "64"), "images.count 96 (now 64)"),
        (("--holdout", "32"), "holdout.count 64 (now 32)"),
        (("--batch-size", "16"), "runtime.batch_size 32 (now 16)"),
        (("--precision", "bf16"), "runtime.precision fp32 (now bf16)"),
        (("--objective", "agreement"), "objective top1 (now agreement)"),
    ],
)
def test_other_settings_are_refused_by_name_and_nothing_is_lost(
    finished: Finished, change: tuple[str, str], named: str
) -> None:
    before = completions(finished.out)
    with pytest.raises(StudyError, match="made with other settings") as caught:
        search(finished.out, *change)
    assert named in str(caught.value)
    assert completions(finished.out) == before


def test_a_timeout_ends_the_search_with_whole_trials(tmp_path: Path) -> None:
    search(tmp_path / "none", "--timeout", "0s", "--trials", "1000", "--images", "32")
    assert len(stored(tmp_path / "none")) == 32  # a first chunk, as nothing is no result
    heard = Heard()
    search(tmp_path, "--timeout", "0.2s", "--trials", "1000", heard=heard)
    trials = stored(tmp_path)
    assert 1 <= len(trials) < 1000 and {trial.state for trial in trials} == {"complete"}
    assert attributes(tmp_path)["holdout"]["candidates"]


def test_no_holdout_means_no_confirmation(tmp_path: Path) -> None:
    document = search(tmp_path, "--trials", "1", "--holdout", "0")
    assert document["holdout"] is None and "holdout" not in document["best"]["evidence"]


def test_unlabelled_images_need_the_agreement_objective(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 40), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{i:02d}.png")
    flags = ["--data", str(folder), "--images", "16", "--holdout", "8", "--trials", "2"]
    with pytest.raises(DataError, match="top1 needs labels.*use `objective` agreement"):
        search(tmp_path, *flags)
    document = search(tmp_path, *flags, "--objective", "agreement")
    assert document["holdout"]["unpruned"]["agreement"] == 1.0
    evidence = document["best"]["evidence"]
    assert "top1" not in evidence["search"] and 0.0 <= evidence["search"]["agreement"] <= 1.0
    assert evidence["holdout"]["images"] == 8


def test_a_trial_that_cannot_be_evaluated_fails_alone(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ztp_search.evaluation.model_runner import ModelRunner

    bad = stored(finished.out)[1].config
    run_sound = ModelRunner.run

    def run_or_refuse(self: ModelRunner, configs: tuple[PruningConfig | None], *rest: Any) -> Any:
        if bad in configs:
            raise ZtpError("this one does not fit")
        return run_sound(self, configs, *rest)

    monkeypatch.setattr(ModelRunner, "run", run_or_refuse)
    heard = Heard()
    document = search(tmp_path, "--trials", "3", heard=heard)
    assert document["trials"] == {"complete": 2, "pruned": 0, "failed": 1, "running": 0}
    assert heard.notes == ["trial 1 failed: this one does not fit"]
    mine, theirs = results(stored(tmp_path)), results(stored(finished.out))
    assert (mine[0], mine[2]) == (theirs[0], theirs[2])
    monkeypatch.undo()
    search(tmp_path, "--trials", "3")  # what failed stays so: it is not tried again
    assert results(stored(tmp_path)) == mine


def test_the_holdout_record_is_what_its_bits_say(finished: Finished) -> None:
    holdout = attributes(finished.out)["holdout"]
    document = finished.document["holdout"]
    paper = unpack_bits(holdout["paper_schedule"]["correct"], 64)
    unpruned = unpack_bits(holdout["unpruned"]["correct"], 64)
    assert document["unpruned"]["top1"] == unpruned.mean()
    assert document["paper_schedule"]["top1"] == paper.mean()
    ranks = sorted(
        stored(finished.out), key=lambda t: (-(t.value or 0), t.attrs["gflops"]["total"])
    )
    assert [c["trial"] for c in document["candidates"]] == [t.number for t in ranks[:3]]
    for candidate, trial in zip(document["candidates"], ranks, strict=False):
        correct = unpack_bits(holdout["candidates"][trial.config.digest()]["correct"], 64)
        assert candidate["top1"] == correct.mean()
        for name, other in (("unpruned", unpruned), ("paper_schedule", paper)):
            difference = correct.mean() - other.mean()
            low, high = candidate[f"minus_{name}_ci95"]
            assert candidate[f"minus_{name}"] == pytest.approx(difference, abs=1e-12)
            assert low <= difference <= high
            assert (low, high) == paired_difference(correct, other).ci95
    assert not {"correct", "predictions"} & document["candidates"][0].keys()
    evidence = finished.document["best"]["evidence"]["holdout"]
    assert evidence["top1"] == document["candidates"][0]["top1"]
    assert evidence["paired_ci95"] == document["candidates"][0]["minus_paper_schedule_ci95"]


def test_search_and_holdout_images_are_not_the_same(finished: Finished) -> None:
    reference = attributes(finished.out)["reference"]
    assert len(unpack_predictions(reference["unpruned"]["predictions"])) == 96
    data = finished.document["best"]["provenance"]["data"]
    assert data["images"]["sha256"] != data["holdout"]["sha256"]


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (0.001, 0.02, "trial 7 is better than the paper's schedule on holdout images (+1.00"),
        (-0.02, -0.001, "trial 7 is worse than the paper's schedule on holdout images (+1.00"),
        (-0.01, 0.02, "trial 7 is not shown to be better than the paper's schedule"),
        (0.0, 0.02, "trial 7 is not shown to be better than the paper's schedule"),
        (-0.02, 0.0, "trial 7 is not shown to be better than the paper's schedule"),
    ],
)
def test_the_verdict_is_plain(low: float, high: float, says: str) -> None:
    winner = {
        "trial": 7, "minus_paper_schedule": 0.01, "minus_paper_schedule_ci95": [low, high]
    }  # fmt: skip
    assert verdict(winner, {"top1": 0.8}).startswith(says)
    assert f"{100 * low:+.2f} to {100 * high:+.2f}" in verdict(winner, {"top1": 0.8})
    assert "nothing to compare with" in verdict(winner, None)


@pytest.mark.slow
def test_a_ray_session_of_the_user_s_own_is_used_and_goes_on(tmp_path: Path) -> None:
    code = f"""
import ray
from ztp_search import SearchSettings, search

ray.init(address="local", include_dashboard=False, num_cpus=1, log_to_driver=False)
for trials in (2, 4):  # the second search finds the place of the first one's worker free
    search(SearchSettings(
        space="digits", budget="68%", trials=trials, images=32, holdout=0, batch_size=32,
        workers=1, out={str(tmp_path)!r},
    ))
    assert ray.is_initialized()
print("still there")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("still there"), done.stderr[-2000:]
