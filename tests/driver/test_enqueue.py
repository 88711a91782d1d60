"""Configuration files that are enqueued: the first trials, and like any other from then on."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Finished
from helpers.running import HAND_SET, SEARCH, TRIALS, argv_of, attributes, one_line, results, stored

import ztp_search
from ztp_search import SearchSettings, load_config
from ztp_search.cli.main import main
from ztp_search.errors import ConfigError
from ztp_search.pruning.config_file import ConfigFile
from ztp_search.study import StoredTrial


def search(out: Path, *files: Path, **changes: Any) -> dict[str, Any]:
    settings = {**SEARCH, "workers": 0, "out": out, "enqueue": files, **changes}
    return ztp_search.search(SearchSettings(**settings)).to_dict()


def file_of(trial: StoredTrial, folder: Path, name: str = "known.json") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(ConfigFile(trial.config).dumps())
    return path


def test_an_enqueued_file_is_the_first_trial_and_the_schedules_follow(
    finished: Finished, tmp_path: Path
) -> None:
    theirs = stored(finished.out)
    path = file_of(theirs[6], tmp_path)
    found = search(tmp_path, path)
    mine = stored(tmp_path)
    assert len(mine) == TRIALS and found["trials"]["complete"] == TRIALS
    assert mine[0].config == theirs[6].config == load_config(path)
    assert mine[0].attrs["enqueued"] == str(path) and mine[0].attrs["point"] == []
    assert mine[0].value == theirs[6].value
    assert tuple(trial.attrs["hand_set"] for trial in mine[1:5]) == HAND_SET
    # trial i is what the sampler proposes for i, but what is there is not proposed again
    assert [trial.config == theirs[i].config for i, trial in enumerate(mine)][5:] == [
        True, False, True
    ]  # fmt: skip
    assert len({trial.config for trial in mine}) == TRIALS


def test_a_winner_that_was_enqueued_says_so(finished: Finished, tmp_path: Path) -> None:
    best = finished.document["best"]["provenance"]["trial"]
    path = file_of(stored(finished.out)[best], tmp_path)
    found = search(tmp_path, path, trials=1)
    assert found["trials"]["complete"] == 1
    assert found["best"]["provenance"]["enqueued"] == str(path)
    assert found["holdout"]["candidates"][0]["enqueued"] == str(path)


def test_a_file_may_be_enqueued_to_a_study_that_is_finished(
    finished: Finished, tmp_path: Path
) -> None:
    search(tmp_path / "run")
    search(tmp_path / "other", seed=1, trials=5)
    path = file_of(stored(tmp_path / "other")[4], tmp_path)
    for _ in range(2):  # the second time it is there
        search(tmp_path / "run", path)
        mine = stored(tmp_path / "run")
        assert results(mine[:TRIALS]) == results(stored(finished.out))
        assert [trial.attrs.get("enqueued") for trial in mine[TRIALS:]] == [str(path)]
    plans = attributes(tmp_path / "run")["cohorts"]
    assert [(plan["sampler"], plan["stop"]) for plan in plans] == [
        ("known", 4), ("monte-carlo", TRIALS), ("known", TRIALS + 1)
    ]  # fmt: skip
    search(tmp_path / "run", path, trials=TRIALS + 2)
    assert len(stored(tmp_path / "run")) == TRIALS + 2


def test_all_files_are_tried_however_few_trials_are_asked_for(
    finished: Finished, tmp_path: Path
) -> None:
    theirs = stored(finished.out)
    files = [file_of(theirs[i], tmp_path, f"{i}.json") for i in (7, 5, 6)]
    search(tmp_path, *files, trials=2)
    assert [trial.attrs.get("enqueued") for trial in stored(tmp_path)] == [str(p) for p in files]


def test_under_several_budgets_a_file_is_a_trial_where_it_meets_the_budget(
    finished: Finished, tmp_path: Path
) -> None:
    path = file_of(stored(finished.out)[5], tmp_path)
    settings = {**SEARCH, "workers": 0, "out": tmp_path, "budget": "50%,68%", "trials": 5}
    ztp_search.search_front(SearchSettings(**settings, enqueue=[path]))
    first = {name: stored(tmp_path, f"s-{name}")[0].attrs for name in ("50%", "68%")}
    assert first["68%"]["enqueued"] == str(path)
    assert "enqueued" not in first["50%"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"retention": 0.5}, r"it costs 0\.0\d+ GFLOPs, but the budget takes 0\.0713\d+ to 0\.072"),
        ({"after_block": 9}, "does not fit the model: .*after_block=9"),
        ({"wpr_iterations": 99}, r"its block\d\d.wpr_iterations is 99, but the space's is \d+ to"),
    ],
)
def test_what_can_be_no_trial_is_refused_in_one_line_before_anything_is_evaluated(
    finished: Finished, tmp_path: Path, capfd: pytest.CaptureFixture[str],
    change: dict[str, float], message: str,
) -> None:  # fmt: skip
    config = json.loads(ConfigFile(stored(finished.out)[5].config).dumps())["config"]
    config["layers"][-1].update(change)
    path = tmp_path / "known.json"
    path.write_text(json.dumps({"format": "ztp-search/pruning-config", "version": 2,
                                "config": config}))  # fmt: skip
    with pytest.raises(ConfigError, match=message):
        search(tmp_path / "run", path)
    assert not (tmp_path / "run" / "studies.db").exists()
    argv = argv_of({**SEARCH, "out": tmp_path / "run", "workers": 0, "enqueue": path})
    assert main(argv) == 2
    assert "--enqueue" in one_line(capfd.readouterr().err.splitlines()[-1])


def test_a_file_that_is_none_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.json cannot be read"):
        search(tmp_path, tmp_path / "nowhere.json")
