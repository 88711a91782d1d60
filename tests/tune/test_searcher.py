"""The searcher for Ray Tune: what it suggests, whoever asks, in whatever order results come."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import ray.cloudpickle
from conftest import Finished
from helpers.geometries import DIGITS, macs_by_hand
from helpers.messages import one_line
from helpers.running import space_file, stored
from ray.tune.search import ConcurrencyLimiter, Searcher

import ztp_search.tune.searcher
from ztp_search import PruningConfig, PruningLayer, SearchSettings
from ztp_search.errors import ZtpError
from ztp_search.pruning.config_file import ConfigFile
from ztp_search.samplers import SAMPLERS
from ztp_search.tune import BudgetSearch, best_result, config_of

LEARN = [name for name, cls in SAMPLERS.items() if cls.generation]
KNOWN = 4
"""Hand-set schedules that come first."""
every_sampler = pytest.mark.parametrize("name", SAMPLERS)


@pytest.fixture(autouse=True)
def small_generations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four trials, so that few make many."""
    small = {
        name: type(cls.__name__, (cls,), {"generation": cls.generation and 4, "explored": 1})
        for name, cls in SAMPLERS.items()
    }
    monkeypatch.setattr(ztp_search.tune.searcher, "SAMPLERS", small)


def searcher(sampler: str = "monte-carlo", **settings: Any) -> BudgetSearch:
    usual: dict[str, Any] = {"space": "digits", "budget": "50%", "sampler": sampler}
    return BudgetSearch(SearchSettings(**usual | settings))


def loss_of(config: PruningConfig) -> float:
    """Some loss that has a best, in dyadic numbers, so that one minus it is exact."""
    total = sum((layer.retention - 0.8) ** 2 + layer.s_tokens / 64 for layer in config.layers)
    return round(1024 * total / 8) / 1024


def suggested(
    search: Searcher, count: int, shuffled: random.Random | None = None, start: int = 0
) -> list[dict[str, Any]]:
    """So many suggestions; trials report whenever none is to be had, one by one."""
    out: list[dict[str, Any]] = []
    waiting: list[tuple[str, dict[str, Any]]] = []
    while len(out) < count:
        name = f"trial-{start + len(out)}"
        suggestion = search.suggest(name)
        if suggestion is not None:
            assert isinstance(suggestion, dict)
            out.append(suggestion)
            waiting.append((name, suggestion))
            continue
        chosen = shuffled.randrange(len(waiting)) if shuffled else 0
        report(search, *waiting.pop(chosen))
    for each in waiting:
        report(search, *each)
    return out


def report(search: Searcher, name: str, suggestion: Mapping[str, Any]) -> None:
    """Two reports and the end; some trials fail."""
    config = config_of(suggestion)
    if sum(layer.s_tokens for layer in config.layers) % 7 == 3:
        search.on_trial_complete(name, error=True)
        return
    search.on_trial_result(name, {"loss": loss_of(config), "training_iteration": 1})
    search.on_trial_result(name, {"loss": 0.5, "training_iteration": 2})
    search.on_trial_complete(name, {"loss": 0.25, "training_iteration": 2})


# ---- what is suggested ---------------------------------------------------------------------


@every_sampler
def test_every_suggestion_meets_the_budget_and_none_comes_twice(name: str) -> None:
    search = searcher(name)
    configs = [config_of(each) for each in suggested(search, KNOWN + 14)]
    budget = search.decoder.budget
    for config in configs:
        assert 0.99 * budget.macs <= sum(macs_by_hand(DIGITS, config)) <= budget.macs
    assert len({config.digest() for config in configs}) == len(configs)


def test_a_suggestion_states_the_parameters_of_its_configuration() -> None:
    for each in suggested(searcher(), 12):
        config = config_of(json.loads(json.dumps(each)))  # as other processes get it
        layers = {layer.after_block: layer for layer in config.layers}
        for block in range(1, 8):
            layer = layers.get(block, PruningLayer(block))
            assert each[f"block{block:02d}.retention"] == layer.retention
            assert each[f"block{block:02d}.s_tokens"] == layer.s_tokens
            assert each[f"block{block:02d}.merge_share"] == layer.merge_share
        for field in ("v_min", "v_max", "similar", "sizes", "features"):
            assert each[field] == getattr(config, field)


def test_suggestion_i_is_trial_i_of_a_search_with_the_same_settings(finished: Finished) -> None:
    trials = stored(finished.out)
    mine = suggested(searcher(budget="68%"), len(trials))
    assert [config_of(each) for each in mine] == [trial.config for trial in trials]


def test_enqueued_files_are_suggested_first(tmp_path: Path) -> None:
    without = suggested(searcher(), 20)
    path = tmp_path / "mine.json"
    path.write_text(ConfigFile(config_of(without[19])).dumps())
    mine = suggested(searcher(enqueue=[path]), 20)
    assert mine[0] == without[19] and mine[1 : KNOWN + 1] == without[:KNOWN]
    assert mine[KNOWN + 1 : 19] == without[KNOWN + 1 : 19]  # of the same numbers
    assert mine[19] not in without  # none comes twice


# ---- the order of events -------------------------------------------------------------------


@every_sampler
def test_suggestions_do_not_depend_on_the_order_of_reports(name: str) -> None:
    expected = suggested(searcher(name), KNOWN + 14)
    for seed in range(3):
        assert suggested(searcher(name), KNOWN + 14, random.Random(seed)) == expected


@pytest.mark.parametrize("name", LEARN)
def test_a_sampler_that_learns_goes_by_first_reports(name: str) -> None:
    expected = suggested(searcher(name), KNOWN + 9)
    search = searcher(name)
    others = [search.suggest(f"trial-{i}") for i in range(KNOWN + 4)]
    assert others == expected[: KNOWN + 4]  # nothing is awaited before the first generation
    for i in range(KNOWN + 4):
        search.on_trial_result(f"trial-{i}", {"loss": (i % 3) / 4})
    assert suggested(search, 5, start=KNOWN + 4) != expected[KNOWN + 4 :]


@pytest.mark.parametrize("name", LEARN)
def test_a_generation_waits_for_each_trial_of_the_one_before(name: str) -> None:
    search = searcher(name)
    for i in range(KNOWN + 4):
        assert search.suggest(f"trial-{i}") is not None
    for i in range(KNOWN, KNOWN + 4):  # the known ones teach nothing, so that none waits for them
        assert search.suggest("trial-x") is None
        if i % 2:
            search.on_trial_result(f"trial-{i}", {"loss": 0.5})
        else:
            search.on_trial_complete(f"trial-{i}", error=True)
    assert search.suggest(f"trial-{KNOWN + 4}") is not None


@pytest.mark.parametrize("name", LEARN)
def test_a_maximised_fraction_teaches_what_its_complement_teaches(name: str) -> None:
    settings = SearchSettings(space="digits", budget="50%", sampler=name)
    by_accuracy = BudgetSearch(settings, metric="accuracy", mode="max")
    through_tune = BudgetSearch(settings)
    assert not through_tune.set_search_properties("accuracy", "max", {})
    by_loss = suggested(searcher(name), KNOWN + 10)
    for search in (by_accuracy, through_tune):
        mine = []
        for i in range(KNOWN + 10):
            each = search.suggest(f"trial-{i}")
            assert isinstance(each, dict)
            mine.append(each)
            config = config_of(each)
            failed = sum(layer.s_tokens for layer in config.layers) % 7 == 3
            accuracy = float("nan") if failed else 1 - loss_of(config)
            search.on_trial_complete(f"trial-{i}", {"accuracy": accuracy})
        assert mine == by_loss


def test_metric_and_mode_that_were_stated_are_not_replaced() -> None:
    settings = SearchSettings(space="digits", budget="50%", sampler="tpe")
    search = BudgetSearch(settings, metric="accuracy", mode="max")
    search.set_search_properties("loss", "min", {})
    assert (search.metric, search.mode) == ("accuracy", "max")
    assert (searcher("tpe").metric, searcher("tpe").mode) == ("loss", "min")
    assert searcher().metric is None  # whoever learns nothing asks for no metric


def test_a_limit_of_trials_at_a_time_holds_and_changes_no_suggestion() -> None:
    limited = ConcurrencyLimiter(searcher("cma-es"), max_concurrent=2)
    assert limited.suggest("a") is not None and limited.suggest("b") is not None
    assert limited.suggest("c") is None
    limited = ConcurrencyLimiter(searcher("cma-es"), max_concurrent=3)
    assert suggested(limited, KNOWN + 9) == suggested(searcher("cma-es"), KNOWN + 9)


def test_a_space_that_is_exhausted_ends_the_search(tmp_path: Path) -> None:
    space = space_file(
        tmp_path, after_block=[4], layers=1, kept=0.5, s_tokens=10, wpr_iterations=2,
        merge_share=0, v_min=0.1, v_max=5, similar="drop", sizes="ignore", partition="alternate",
        features="key",
    )  # fmt: skip
    search = searcher(space=space, budget="73.8%", tolerance=0.02)
    assert isinstance(search.suggest("a"), dict)
    for name in "bc":
        assert search.suggest(name) == Searcher.FINISHED


# ---- saved and restored --------------------------------------------------------------------


@every_sampler
@pytest.mark.parametrize("done", [0, 3, KNOWN + 3, KNOWN + 9])
def test_a_restored_searcher_goes_on_as_if_nothing_had_been(
    name: str, done: int, tmp_path: Path
) -> None:
    expected = suggested(searcher(name), KNOWN + 14)
    first = searcher(name)
    assert suggested(first, done) == expected[:done]
    first.save(str(tmp_path / "state"))
    json.loads((tmp_path / "state").read_text())
    used = searcher(name)
    suggested(used, 6)
    for second in (searcher(name), used):
        second.restore(str(tmp_path / "state"))
        assert suggested(second, KNOWN + 14 - done, start=done) == expected[done:]


@pytest.mark.parametrize("name", LEARN)
def test_reports_that_are_missing_when_it_is_saved_are_awaited_when_it_is_restored(
    name: str, tmp_path: Path
) -> None:
    search = searcher(name)
    early = [search.suggest(f"trial-{i}") for i in range(KNOWN + 4)]
    search.on_trial_result(f"trial-{KNOWN}", {"loss": 0.25})
    search.save_to_dir(str(tmp_path), "session")  # as Tune does
    restored = searcher(name)
    restored.restore_from_dir(str(tmp_path))
    for each in (search, restored):
        assert each.suggest("next") is None
        for i in range(KNOWN + 1, KNOWN + 4):
            each.on_trial_result(f"trial-{i}", {"loss": 0.5})
    following = restored.suggest("next")
    assert following == search.suggest("next") and following not in early


@every_sampler
def test_tune_can_pickle_it(name: str) -> None:
    search = searcher(name)
    suggested(search, KNOWN + 6)
    copy = ray.cloudpickle.loads(ray.cloudpickle.dumps(search))
    assert suggested(copy, 4, start=KNOWN + 6) == suggested(search, 4, start=KNOWN + 6)


@pytest.mark.parametrize(
    ("changed", "named"),
    [({"seed": 1}, "seed 0 (now 1)"), ({"sampler": "qmc"}, "sampler monte-carlo (now qmc)"),
     ({"tolerance": 0.02}, "budget.tolerance 0.01 (now 0.02)")],
)  # fmt: skip
def test_a_state_of_other_settings_is_refused_by_name(
    changed: dict[str, Any], named: str, tmp_path: Path
) -> None:
    path = tmp_path / "state"
    searcher().save(str(path))
    with pytest.raises(ZtpError) as refused:
        searcher(**changed).restore(str(path))
    assert f"was made with other settings: {named}; use the old" in one_line(refused)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "ztp-search/tune-searcher"}', b"\xff"])
def test_what_is_no_state_is_refused(text: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ZtpError) as refused:
        searcher().restore(str(path))
    assert str(path) in one_line(refused)
    with pytest.raises(ZtpError, match="cannot be read"):
        searcher().restore(str(tmp_path / "nowhere"))


# ---- the user's mistakes -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "says"),
    [({"trials": 9}, "`trials` is not for Ray Tune, but got 9; give `num_samples` to TuneConfig"),
     ({"timeout": 9}, "give `time_budget_s` to TuneConfig"),
     ({"racing": "off"}, "give a `scheduler` to TuneConfig"),
     ({"workers": 0}, "`max_concurrent_trials`"), ({"study": "s"}, "`name` to RunConfig"),
     ({"storage": "sqlite:///s.db"}, "`storage_path`"), ({"candidates": 3}, "leave it out"),
     ({"address": "auto"}, "ray.init"), ({"refine": 8}, "leave it out"),
     ({"budget": "50%,60%"}, "`budget` must be one budget"),
     ({"budget": "1%"}, "budget"), ({"sampler": "grid"}, "`sampler` must be one of"),
     ({"space": "nothing"}, "nothing"), ({"model": "no_such_vit"}, "no_such_vit"),
     ({"enqueue": ["/no/file"]}, "/no/file")],
)  # fmt: skip
def test_a_mistake_is_one_line(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ZtpError) as refused:
        searcher(**changed)
    assert says in one_line(refused)


@pytest.mark.parametrize(
    ("metric", "mode", "says"),
    [("loss", None, "go together"), (None, "min", "go together"), ("loss", "least", "min or max")],
)
def test_metric_and_mode_are_checked(metric: Any, mode: Any, says: str) -> None:
    with pytest.raises(ZtpError) as refused:
        BudgetSearch(SearchSettings(space="digits", budget="50%"), metric=metric, mode=mode)
    assert says in one_line(refused)


@pytest.mark.parametrize(
    ("config", "says"),
    [({}, "must hold `pruning_config`, but has nothing"), ({"lr": 1}, "but has lr"),
     ({"pruning_config": {"layers": [{"after_block": 0}]}}, "after_block"),
     ({"pruning_config": {"layers": [], "v": 1}}, "pruning_config: unknown key 'v'")],
)  # fmt: skip
def test_a_trial_without_a_configuration_is_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(ZtpError) as refused:
        config_of(config)
    assert says in one_line(refused)


class Result:
    """As Tune has it."""

    def __init__(self, **metrics: float) -> None:
        self.metrics = metrics or None


def test_the_best_result_is_of_those_that_have_seen_most_images() -> None:
    few, worse, better, failed, lost = (
        Result(images=8, loss=0.0, accuracy=1.0), Result(images=64, loss=0.5, accuracy=0.75),
        Result(images=64, loss=0.25, accuracy=0.5), Result(), Result(images=64, loss=float("nan")),
    )  # fmt: skip
    results: Sequence[Any] = [few, worse, better, failed, lost]
    assert best_result(results) is better
    assert best_result(results, "accuracy", "max") is worse
    with pytest.raises(ZtpError, match="`mode` must be min or max"):
        best_result(results, mode="least")
    with pytest.raises(ZtpError, match="no result has seen images and has 'loss'"):
        best_result([failed, lost])
