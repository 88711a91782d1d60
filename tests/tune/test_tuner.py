"""Ray Tune itself: its trials are those of a search with the same settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from helpers.messages import one_line
from helpers.pages import ROOT, Block, blocks
from helpers.running import stored
from ray import tune
from ray.tune.schedulers import ASHAScheduler

import ztp_search
from ztp_search import SearchSettings
from ztp_search.errors import ZtpError
from ztp_search.study import StoredTrial
from ztp_search.tune import BudgetSearch, best_result, config_of, trainable

RUNGS = (8, 16, 32, 64)
TRIALS = 4 + 16 + 6
"""Hand-set schedules, a generation, and a part of the next one, which has learnt from it."""


def settings(out: Path, **changed: Any) -> SearchSettings:
    usual: dict[str, Any] = {
        "space": "digits", "budget": "50%", "images": RUNGS[-1], "holdout": 16, "batch_size": 16,
        "precision": "fp32", "sampler": "cma-es", "out": out,
    }  # fmt: skip
    return SearchSettings(**usual | changed)


def with_ray(test: Any) -> Any:
    """A test that takes seconds, and in which Tune may warn as it likes."""
    warn = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
    return pytest.mark.slow(pytest.mark.usefixtures("ray_of_two")(warn(test)))


@pytest.fixture(scope="module")
def ray_of_two(ray_folder: None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNE_GLOBAL_CHECKPOINT_S", "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def tuner(asked: SearchSettings, folder: Path, trials: int, **options: Any) -> tune.Tuner:
    return tune.Tuner(
        trainable(asked),
        tune_config=tune.TuneConfig(
            search_alg=BudgetSearch(asked), metric="loss", mode="min", num_samples=trials,
            reuse_actors=True, **options,
        ),
        run_config=tune.RunConfig(name="run", storage_path=str(folder), verbose=0),
    )  # fmt: skip


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[StoredTrial]]:
    """The folder and the trials of a search with the same settings."""
    out = tmp_path_factory.mktemp("searched")
    ztp_search.search(settings(out, trials=TRIALS, workers=0, study="s"))
    return out, stored(out)


def assert_are(results: Any, trials: list[StoredTrial]) -> None:
    """Tune's results are these trials, which may have seen more images or fewer."""
    by_config = {trial.config: trial for trial in trials}
    assert {config_of(result.config) for result in results} == by_config.keys()
    assert not results.errors and len(results) == len(by_config) == len(trials)
    compared = 0
    for result in results:
        row, trial = result.metrics, by_config[config_of(result.config)]
        assert row["gflops"] == trial.attrs["gflops"]["total"]
        if row["images"] in trial.rungs:
            assert row["accuracy"] == trial.rungs[row["images"]]
        if row["images"] == trial.attrs["images"]:
            compared += 1
            for name in ("loss", "standard_error", "minus_unpruned"):
                assert row[name] == trial.attrs[name]
    assert compared > 1


@with_ray
def test_tunes_trials_are_those_of_a_search_with_the_same_settings(
    searched: tuple[Path, list[StoredTrial]], tmp_path: Path
) -> None:
    out, trials = searched
    scheduler = ASHAScheduler(time_attr="images", grace_period=8, max_t=64, reduction_factor=2)
    results = tuner(settings(out), tmp_path, TRIALS, scheduler=scheduler).fit()
    assert_are(results, trials)
    assert len({result.metrics["pid"] for result in results}) <= 2  # model and images loaded twice
    for result in results:
        seen = result.metrics_dataframe["images"]
        assert tuple(seen) == RUNGS[: len(seen)]
    stopped = [result for result in results if result.metrics["images"] < RUNGS[-1]]
    assert 0 < len(stopped) < TRIALS
    assert best_result(results).metrics["images"] == RUNGS[-1]


class Interrupted(Exception):
    """Stands for what ends a run before its time."""


class Interrupt(tune.Callback):  # type: ignore[misc]  # ray has no types here
    def __init__(self, results: int) -> None:
        self.left = results

    def on_trial_result(self, *_: object, **__: object) -> None:
        self.left -= 1
        if self.left < 0:
            raise Interrupted


@with_ray
def test_a_run_that_was_interrupted_goes_on_to_the_same_trials(
    searched: tuple[Path, list[StoredTrial]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # which leave files open
    out, trials = searched
    cut = tuner(settings(out), tmp_path, 6, max_concurrent_trials=1)
    cut._local_tuner._run_config.callbacks = [Interrupt(10)]
    with pytest.raises(Exception, match="Interrupted"):
        cut.fit()
    again = tune.Tuner.restore(str(tmp_path / "run"), trainable(settings(out))).fit()
    assert {result.metrics["images"] for result in again} == {RUNGS[-1]}
    assert_are(again, trials[:6])


def tuner_of(page: str) -> Block:
    (block,) = [each for each in blocks(ROOT / page) if "BudgetSearch(" in each.text]
    return block


def test_the_guide_has_the_tuner_of_the_readme() -> None:
    imported = ("import ztp_search", "from ztp_search import SearchSettings")
    guide = tuner_of("docs/guide/tune.md").text.splitlines()
    assert [line for line in guide if line not in imported] == (
        tuner_of("README.md").text.splitlines()
    )
    assert set(imported) <= set(guide)


@with_ray
def test_the_tuner_of_the_readme_runs_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = tuner_of("README.md")
    text = block.text
    here = f"run_config=tune.RunConfig(storage_path={str(tmp_path)!r})"  # not in the home folder
    for asked, instead in (
        ("images=512", "images=16"),
        ("num_samples=100", "num_samples=2, max_concurrent_trials=1"),
        ("\n).fit()", f"\n    {here},\n).fit()"),
    ):  # fmt: skip
        assert text.count(asked) == 1
        text = text.replace(asked, instead)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"ztp_search": ztp_search, "SearchSettings": SearchSettings}
    exec(compile(text, block.where, "exec"), names)
    config = ztp_search.load_config("best.json")
    assert config in {config_of(result.config) for result in names["results"]}


@pytest.mark.parametrize("first", [0, 65])
def test_the_first_report_is_of_images_that_there_are(first: int, tmp_path: Path) -> None:
    with pytest.raises(ZtpError) as refused:
        trainable(settings(tmp_path), first_images=first)
    assert f"`first_images` must be 1 to 64, the number of search images, but got {first}" in (
        one_line(refused)
    )


@pytest.mark.parametrize(
    ("changed", "says"),
    [({"trials": 4}, "`num_samples`"), ({"data": "/no/folder"}, "/no/folder"),
     ({"objective": "top5"}, "`objective`"), ({"weights": "/no/file"}, "/no/file")],
)  # fmt: skip
def test_mistakes_are_refused_before_tune_starts(
    changed: dict[str, Any], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ZtpError) as refused:
        trainable(settings(tmp_path, **changed))
    assert says in one_line(refused)
    assert os.listdir(tmp_path) == []
