"""What Optuna and its tools read of a study."""

from pathlib import Path

import optuna
from helpers.studies import (
    RANGES,
    complete,
    config_of,
    open_study,
    optuna_study,
    start,
    url_of,
)
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.study import NewTrial, Update


def test_optuna_reads_the_study_as_its_own(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        start(study, 0, 1, 2, 3, images=0)
        study.update([
            Update(1, "running", 0.25, {}, 100),
            Update(2, "running", 0.125, {}, 100),
            Update(3, "running", 0.75, {"images": 100}, 100),
        ])  # fmt: skip
        study.update([
            Update(0, "complete", 0.75, {"images": 500, "stderr": 0.01}),
            Update(1, "pruned", 0.5, {}, 200),
            Update(2, "failed", None, {"failure": "no"}),
            Update(3, "running", 0.625, {"images": 200}, 200),
        ])  # fmt: skip
    with optuna_study(url_of(tmp_path)) as stored:
        check_what_optuna_reads(stored)


def check_what_optuna_reads(stored: optuna.Study) -> None:
    assert stored.direction == optuna.study.StudyDirection.MAXIMIZE
    assert stored.metric_names == ["accuracy, fraction of one"]
    assert stored.user_attrs["contract.seed"] == 0
    trials = stored.get_trials()
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    assert [trial.state for trial in trials] == [
        TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING,
    ]  # fmt: skip
    assert [trial.value for trial in trials] == [0.75, 0.5, None, None]
    assert stored.best_trial.number == 0
    assert trials[0].user_attrs == {
        "images": 500, "stderr": 0.01, "config": config_of(0).to_dict(),
    }  # fmt: skip
    assert [trial.intermediate_values for trial in trials] == [
        {}, {100: 0.25, 200: 0.5}, {100: 0.125}, {100: 0.75, 200: 0.625},
    ]  # fmt: skip
    assert trials[3].user_attrs["images"] == 200
    assert trials[3].params == {
        "block03.retention": 0.303, "block03.s_tokens": 10, "block03.wpr_iterations": 30,
        "block03.merge_share": 0.25, "block07.retention": 1.0, "block07.s_tokens": 0,
        "block07.wpr_iterations": 1, "block07.merge_share": 0.0, "sizes": "track",
        "v_min": 0.25, "v_max": 2.5,
    }  # fmt: skip
    for trial in trials:  # ranges stretched to what a block without a layer has
        assert trial.distributions == {
            "block03.retention": FloatDistribution(0.3, 1.0),
            "block03.s_tokens": IntDistribution(0, 50),
            "block03.wpr_iterations": IntDistribution(1, 50),
            "block07.retention": FloatDistribution(0.3, 1.0),
            "block07.s_tokens": IntDistribution(0, 20),
            "block07.wpr_iterations": IntDistribution(1, 10),
            "block03.merge_share": FloatDistribution(0.0, 1.0),
            "block07.merge_share": FloatDistribution(0.0, 0.5),
            "sizes": CategoricalDistribution(("ignore", "track")),
            "v_min": FloatDistribution(0.0, 0.5),
            "v_max": FloatDistribution(1.0, 20.0),
        }
        assert trial.datetime_start is not None
        assert (trial.datetime_complete is not None) == trial.state.is_finished()
        if trial.datetime_complete is not None:  # both in the same time zone
            assert 0 <= (trial.datetime_complete - trial.datetime_start).total_seconds() < 1800


def test_importances_name_the_parameter_that_decides(tmp_path: Path) -> None:
    with open_study(url_of(tmp_path)) as study:
        for number in range(30):
            layer = PruningLayer(3, retention=0.3 + number / 50)
            v_max = 1.0 + number * 7 % 30 / 2
            study.start([NewTrial(number, PruningConfig((layer,), v_max=v_max), {})])
            complete(study, number, number / 30)
    with optuna_study(url_of(tmp_path)) as stored:
        importances = optuna.importance.get_param_importances(stored)
    assert importances.keys() <= RANGES.keys()
    assert max(importances, key=lambda name: importances[name]) == "block03.retention"
