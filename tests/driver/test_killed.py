"""A driver that is killed between one commit and the next: the same command ends as undisturbed."""

import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import Finished, run_to_its_end
from helpers.driving import die_in_search
from helpers.running import RACE, attributes, results, stored
from helpers.studies import PROCESSES

from ztp_search.pruning.schedules import BASELINES

PROCESSES.set_forkserver_preload(["ztp_search.driver.run"])  # torch too, once for all

SETTINGS = {**RACE, "images": 32, "batch_size": 16, "workers": 0, "speed": "eager",
            "speed_repeats": 1}  # fmt: skip
"""Of a race of 12 trials on three rungs: first the four hand-set ones, then eight."""

# where it dies: the method and attribute, at which call, before (+) or after (-) it;
# what is stored then: trials, how many of them are running, schedules and finalists on holdout
UNPRUNED = "with the unpruned model evaluated"
MOMENTS = {
    UNPRUNED: ("set_attribute", "reference", 1, 0, 0, 0),
    "with trials sampled": ("start", None, 2, 4, 0, 0),
    "with trials stored as running": ("start", None, -2, 12, 8, 0),
    "with the first result there": ("update", None, 1, 4, 4, 0),
    "with the first result stored": ("update", None, -1, 4, 4, 0),
    "with a trial complete": ("update", None, 9, 4, 4, 0),
    "with that trial stored": ("update", None, -9, 4, 3, 0),
    "with all trials ended": ("set_attribute", "scores", 1, 12, 0, 0),
    "with a finalist on holdout": ("set_attribute", "holdout", 5, 12, 0, 3),
    "with that finalist stored": ("set_attribute", "holdout", -5, 12, 0, 4),
    "with speed measured": ("set_attribute", "speed", 1, 12, 0, 5),
}  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return run_to_its_end(SETTINGS, tmp_path_factory.mktemp("undisturbed"))


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_search_killed_between_two_commits_ends_as_if_undisturbed(
    undisturbed: Finished, tmp_path: Path, moment: str
) -> None:
    method, key, nth, trials, running, confirmed = MOMENTS[moment]
    settings = {**SETTINGS, "out": tmp_path}
    driver = PROCESSES.Process(target=die_in_search, args=(settings, method, key, nth))
    driver.start()
    driver.join()
    assert driver.exitcode == -signal.SIGKILL
    there = stored(tmp_path)
    holdout = attributes(tmp_path).get("holdout", {"candidates": {}})
    assert len(there) == trials
    assert Counter(trial.state for trial in there)["running"] == running
    assert len(holdout["candidates"]) + len(holdout.keys() & BASELINES.keys()) == confirmed
    assert "speed" not in attributes(tmp_path)

    document = run_to_its_end(SETTINGS, tmp_path).document
    assert results(stored(tmp_path)) == results(stored(undisturbed.out))
    assert evidence(tmp_path) == evidence(undisturbed.out)
    for name in ("holdout", "trials"):
        assert document[name] == undisturbed.document[name]
    saved = undisturbed.document["image_evaluations"] - document["image_evaluations"]
    assert saved == (32 if moment == UNPRUNED else 0)  # which lies on disk beside the images
    winner, other = document["best"], undisturbed.document["best"]
    assert winner["provenance"] == other["provenance"] and winner["config"] == other["config"]


def evidence(out: Path) -> dict[str, Any]:
    """What the study has stored beside its trials, but for what took how long."""
    every = attributes(out)
    del every["reference"]["image_evaluations"]
    measured = {digest: each["measured"] for digest, each in every.pop("speed").items()}
    return every | {"speed": {digest: [(row["engine"], row["batch_size"]) for row in rows]
                              for digest, rows in measured.items()}}  # fmt: skip
