"""What trials are compared with: the unpruned model and the paper's schedule.

On the search images they are references; on the holdout images the best few are measured beside
them. What chose the winner never reports it: holdout images have no part in any choice. All
results are stored in the study, so nothing is measured twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ztp_search.budget import Budget
from ztp_search.config import PruningConfig
from ztp_search.cost import flops
from ztp_search.evaluate import Runtime
from ztp_search.progress import Progress
from ztp_search.racing import Correct, accuracy, paired_difference, standard_error
from ztp_search.schedule import SHAPES, paper_schedule
from ztp_search.session import (
    Gather,
    Outcome,
    Predictions,
    Session,
    Workers,
    judge,
    measure,
    pack,
    unpack_bits,
    unpack_predictions,
)
from ztp_search.study import StoredTrial, Study


def measure_unpruned(
    workers: Workers,
    study: Study,
    session: Session,
    objective: str,
    runtime: Runtime,
    progress: Progress,
) -> Predictions:
    """The unpruned model's predictions on the search images, measured once."""
    reference = study.attributes().get("reference")
    if reference is None:
        stage = "measuring the unpruned model"
        outcomes = _measured(
            workers, session, "search", {"unpruned": None}, runtime, progress, stage
        )
        unpruned = outcomes["unpruned"].predictions
        labels = session.labels("search")
        value = accuracy(judge(objective, unpruned, labels, unpruned))
        reference = {
            "images": len(labels),
            "image_evaluations": len(labels),
            "unpruned": {objective: value, "predictions": pack(unpruned)},
        }
        study.set_attribute("reference", reference)
    return unpack_predictions(reference["unpruned"]["predictions"])


def measure_paper_schedule(
    workers: Workers,
    study: Study,
    session: Session,
    objective: str,
    budget: Budget,
    runtime: Runtime,
    progress: Progress,
) -> None:
    """The paper's schedule on the search images, measured once.

    Of its shapes the one that does better on these images stands for the paper, which makes it
    the stronger opponent.
    """
    reference = study.attributes()["reference"]
    if "paper_schedule" in reference:
        return
    schedules = {shape: paper_schedule(session.geometry, budget, shape) for shape in SHAPES}
    configs = {shape: config for shape, config in schedules.items() if config is not None}
    reference["paper_schedule"] = None
    if configs:
        stage = "measuring the paper's schedule"
        outcomes = _measured(workers, session, "search", configs, runtime, progress, stage)
        labels = session.labels("search")
        unpruned = unpack_predictions(reference["unpruned"]["predictions"])
        values = {
            shape: accuracy(judge(objective, outcome.predictions, labels, unpruned))
            for shape, outcome in outcomes.items()
        }
        best = max(configs, key=lambda shape: values[shape])
        reference["image_evaluations"] += len(labels) * len(configs)
        reference["paper_schedule"] = {
            "shape": best,
            "config": configs[best].to_dict(),
            "gflops": flops(session.geometry, configs[best]).gflops(),
            objective: values[best],
        }
    study.set_attribute("reference", reference)


def confirm(
    workers: Workers,
    study: Study,
    session: Session,
    objective: str,
    best: Sequence[StoredTrial],
    runtime: Runtime,
    progress: Progress,
) -> None:
    """Measure the best few on holdout beside both references, and store it with the study.

    The attribute "holdout" holds `unpruned`, `paper_schedule` and `candidates` by digest of
    their configuration, each with paired 95 % intervals against both references.
    """
    attributes = study.attributes()
    reference = attributes["reference"]["paper_schedule"]
    holdout: dict[str, Any] = attributes.get("holdout") or {"candidates": {}}
    configs: dict[str, PruningConfig | None] = {}
    if "unpruned" not in holdout:
        configs["unpruned"] = None
        if reference is not None:
            configs["paper_schedule"] = PruningConfig.from_dict(reference["config"])
    for trial in best:
        if trial.config.digest() not in holdout["candidates"]:
            configs[trial.config.digest()] = trial.config
    if not configs:
        return
    outcomes = _measured(
        workers, session, "holdout", configs, runtime, progress, "confirming on holdout"
    )
    labels = session.labels("holdout")
    if "unpruned" in outcomes:
        unpruned = outcomes["unpruned"].predictions
        holdout["images"] = len(labels)
        holdout["unpruned"] = _record(objective, judge(objective, unpruned, labels, unpruned), {})
        holdout["unpruned"]["predictions"] = pack(unpruned)
        holdout["paper_schedule"] = None
    unpruned = unpack_predictions(holdout["unpruned"]["predictions"])
    against = {"unpruned": judge(objective, unpruned, labels, unpruned)}
    if "paper_schedule" in outcomes:
        assert reference is not None
        correct = judge(objective, outcomes["paper_schedule"].predictions, labels, unpruned)
        holdout["paper_schedule"] = reference | _record(objective, correct, against)
    if holdout["paper_schedule"] is not None:
        against["paper_schedule"] = unpack_bits(holdout["paper_schedule"]["correct"], len(labels))
    for name in [name for name in outcomes if name not in ("unpruned", "paper_schedule")]:
        correct = judge(objective, outcomes[name].predictions, labels, unpruned)
        holdout["candidates"][name] = _record(objective, correct, against) | {
            "agreement": accuracy(outcomes[name].predictions == unpruned)
        }
    evaluations = len(labels) * len(outcomes)
    holdout["image_evaluations"] = holdout.get("image_evaluations", 0) + evaluations
    study.set_attribute("holdout", holdout)


def _measured(
    workers: Workers,
    session: Session,
    image_set: str,
    configs: Mapping[str, PruningConfig | None],
    runtime: Runtime,
    progress: Progress,
    stage: str,
) -> dict[str, Outcome]:
    images = len(session.labels(image_set))
    done = 0

    def block(count: int) -> None:
        nonlocal done
        done += count
        progress.images(done, images * len(configs))

    progress.stage("starting workers")
    pool = workers.pool()
    progress.stage(stage)
    return measure(pool, configs, Gather(image_set, images, runtime.batch_size), block)


def _record(objective: str, correct: Correct, against: Mapping[str, Correct]) -> dict[str, Any]:
    record: dict[str, Any] = {
        objective: accuracy(correct),
        "standard_error": standard_error(correct),
        "correct": pack(correct),
    }
    for name, other in against.items():
        difference = paired_difference(correct, other)
        record[f"minus_{name}"] = difference.difference
        record[f"minus_{name}_ci95"] = list(difference.ci95)
    return record
