"""A driver that dies: what it has committed outlives it, and nothing else does."""

import signal
from pathlib import Path

import pytest
from helpers.driving import RUNGS, TRIALS, die_at_commit, reported_until_killed, value_of
from helpers.studies import PROCESSES, config_of, open_study, start, url_of

from ztp_search.study import StoredTrial


def test_kill_9_at_any_moment_loses_no_committed_update(tmp_path: Path) -> None:
    reported: set[tuple[int, int]] = set()
    for messages in (1, 2, 3, 4, 5, 99):
        reported |= reported_until_killed(url_of(tmp_path), messages)
        with open_study(url_of(tmp_path)) as study:
            trials = study.trials()
        assert [trial.number for trial in trials] == list(range(len(trials)))
        stored = {(trial.number, images) for trial in trials for images in trial.rungs}
        assert reported <= stored and len(stored - reported) <= 4
        reported = stored  # a batch may be stored that it died before telling
        for trial in trials:
            seen = max(trial.rungs, default=0)
            done = seen == RUNGS[-1]
            assert trial == StoredTrial(
                trial.number, "complete" if done else "running",
                value_of(trial.number, seen) if done else None, config_of(trial.number),
                {"images": seen},
                {images: value_of(trial.number, images) for images in RUNGS if images <= seen},
            )  # fmt: skip
    assert reported == {(number, images) for number in range(TRIALS) for images in RUNGS}


@pytest.mark.parametrize("last_words", ["start", "update"])
def test_a_transaction_that_was_not_committed_leaves_no_trace(
    tmp_path: Path, last_words: str
) -> None:
    driver = PROCESSES.Process(target=die_at_commit, args=(url_of(tmp_path), last_words))
    driver.start()
    driver.join()
    assert driver.exitcode == -signal.SIGKILL
    with open_study(url_of(tmp_path)) as study:
        assert study.trials() == [
            StoredTrial(0, "running", None, config_of(0), {"images": 0}, {}),
            StoredTrial(1, "running", None, config_of(1), {"images": 100}, {100: 0.25}),
        ]
        start(study, 2, 3)
