"""What trials are compared with: the unpruned model and baselines such as the paper's schedule.

On the search images they are references; on the holdout images the finalists are evaluated beside
them. What chose the winner never reports it: holdout images have no part in any choice. Each
result is stored as soon as it is there, so nothing is evaluated twice.

The study's attribute "reference" holds `unpruned` and each baseline by its name on the search
images; "holdout" holds these on holdout, and `candidates`: the finalists, by digest of their
configuration. A baseline that does not fit the model or budget is None.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ztp_search.driver.evaluator import Evaluator
from ztp_search.evaluation.origin import origins_to_json
from ztp_search.evaluation.scheduler import Outcome
from ztp_search.events import Confirmed, Unpruned
from ztp_search.pruning.budget import Budget
from ztp_search.pruning.cost import flops
from ztp_search.pruning.methods import parse_config
from ztp_search.pruning.schedules import BASELINES
from ztp_search.racing import Correct, accuracy, paired_difference, standard_error
from ztp_search.study import StoredTrial, StudyDriver
from ztp_search.study.packing import pack, unpack_bits, unpack_predictions

STAGE = "confirming on holdout"


def evaluate_unpruned(evaluator: Evaluator, study: StudyDriver) -> None:
    """Evaluate the unpruned model on the search images, as the study's reference."""
    reference = study.attributes().get("reference")
    if reference is not None:
        stored = unpack_predictions(reference["unpruned"]["predictions"])
        evaluator.use_unpruned("search", stored)
        return
    before = evaluator.image_evaluations
    unpruned = evaluator.unpruned("search")
    value = accuracy(evaluator.score("search", unpruned))
    reference = {
        "images": len(unpruned),
        "image_evaluations": evaluator.image_evaluations - before,
        "unpruned": {evaluator.objective.name: value, "predictions": pack(unpruned)},
    }
    study.set_attribute("reference", reference)
    evaluator.watch.tell(Unpruned(len(unpruned), value))


def evaluate_baselines(evaluator: Evaluator, study: StudyDriver, budget: Budget) -> None:
    """Evaluate the baselines on the search images.

    Of a baseline's shapes the one that does best on these images stands for it, which makes it
    the strongest opponent. Those that were trials have been evaluated, on fewer images where they
    were shown to be worse: then the other shape does better.
    """
    reference = study.attributes()["reference"]
    stored = study.trials()
    trials = {trial.config: trial for trial in stored if trial.state in ("complete", "pruned")}
    failed = {trial.config for trial in stored if trial.state == "failed"}
    objective, geometry = evaluator.objective.name, evaluator.geometry
    for name, baseline in BASELINES.items():
        if name in reference:
            continue
        schedules = baseline.schedules(geometry, budget)
        configs = {shape: config for shape, config in schedules.items() if config not in failed}
        record: dict[str, Any] | None = None
        if configs:
            stage = f"evaluating {baseline.title}"
            found = {
                shape: (int(trials[config].attrs["images"]), trials[config].value or 0.0)
                for shape, config in configs.items()
                if config in trials
            }
            missing = {shape: configs[shape] for shape in configs if shape not in found}
            images = evaluator.image_count("search")
            for shape, outcome in evaluator.outcomes("search", missing, stage) if missing else ():
                value = accuracy(evaluator.score("search", outcome.predictions))
                found[shape] = images, value
            reference["image_evaluations"] += images * len(missing)
            best = max(configs, key=lambda shape: found[shape])
            record = {
                "shape": best,
                "config": configs[best].to_dict(),
                "gflops": flops(geometry, configs[best]).gflops(),
                "images": found[best][0],
                objective: found[best][1],
            }
        reference[name] = record
        study.set_attribute("reference", reference)


def confirm_finalists(
    evaluator: Evaluator, study: StudyDriver, finalists: Sequence[StoredTrial]
) -> None:
    """Evaluate the finalists on holdout beside the unpruned model and the baselines.

    Each gets paired 95 % intervals against all of these.
    """
    attributes = study.attributes()
    holdout: dict[str, Any] = attributes.get("holdout") or {
        "images": evaluator.image_count("holdout"), "image_evaluations": 0, "candidates": {},
    }  # fmt: skip
    _evaluate_unpruned_on_holdout(evaluator, study, holdout)
    against = {"unpruned": evaluator.score("holdout", evaluator.unpruned("holdout"))}
    for name in BASELINES:
        if name not in holdout:
            stored = attributes["reference"][name]
            holdout[name] = None
            if stored is not None:
                config = parse_config(stored["config"])
                ((_, outcome),) = evaluator.outcomes("holdout", {name: config}, STAGE)
                holdout[name] = stored | _finalist(evaluator, outcome, against)
                holdout["image_evaluations"] += holdout["images"]
            study.set_attribute("holdout", holdout)
            _tell(evaluator, name, None, holdout["images"], holdout[name])
    for name in BASELINES:
        if holdout[name] is not None:
            against[name] = unpack_bits(holdout[name]["correct"], holdout["images"])

    numbers = {trial.config.digest(): trial.number for trial in finalists}
    missing = {trial.config.digest(): trial.config for trial in finalists}
    missing = {n: config for n, config in missing.items() if n not in holdout["candidates"]}
    for name in BASELINES:
        record = holdout[name]
        digest = record and parse_config(record["config"]).digest()
        if digest in missing and "agreement" in record:
            correct = unpack_bits(record["correct"], holdout["images"])
            holdout["candidates"][digest] = _record(
                evaluator.objective.name, correct, against
            ) | {name: record[name] for name in ("agreement", "origins") if name in record}
            study.set_attribute("holdout", holdout)
            candidate = holdout["candidates"][digest]
            _tell(evaluator, "finalist", numbers[digest], holdout["images"], candidate)
            del missing[digest]
    if not missing:
        return
    for digest, outcome in evaluator.outcomes("holdout", missing, STAGE):
        holdout["candidates"][digest] = _finalist(evaluator, outcome, against)
        holdout["image_evaluations"] += holdout["images"]
        study.set_attribute("holdout", holdout)
        candidate = holdout["candidates"][digest]
        _tell(evaluator, "finalist", numbers[digest], holdout["images"], candidate)


def _evaluate_unpruned_on_holdout(
    evaluator: Evaluator, study: StudyDriver, holdout: dict[str, Any]
) -> None:
    if "unpruned" in holdout:
        stored = unpack_predictions(holdout["unpruned"]["predictions"])
        evaluator.use_unpruned("holdout", stored)
        return
    before = evaluator.image_evaluations
    unpruned = evaluator.unpruned("holdout")
    record = _record(evaluator.objective.name, evaluator.score("holdout", unpruned), {})
    holdout["unpruned"] = record | {"predictions": pack(unpruned)}
    holdout["image_evaluations"] += evaluator.image_evaluations - before
    study.set_attribute("holdout", holdout)
    _tell(evaluator, "unpruned", None, holdout["images"], record)


def _finalist(
    evaluator: Evaluator, outcome: Outcome, against: Mapping[str, Correct]
) -> dict[str, Any]:
    correct = evaluator.score("holdout", outcome.predictions)
    record = _record(evaluator.objective.name, correct, against)
    unpruned = evaluator.unpruned("holdout")
    return record | {
        "agreement": accuracy(outcome.predictions == unpruned),
        "origins": origins_to_json(outcome.origins),
    }


def _record(objective: str, correct: Correct, against: Mapping[str, Correct]) -> dict[str, Any]:
    record: dict[str, Any] = {
        objective: accuracy(correct),
        "standard_error": standard_error(correct),
        "correct": pack(correct),
    }
    for name, other in against.items():
        difference = paired_difference(correct, other)
        record[f"minus_{name}"] = difference.difference
        record[f"minus_{name}_ci95"] = list(difference.interval)
    return record


def _tell(
    evaluator: Evaluator,
    what: str,
    trial: int | None,
    images: int,
    record: Mapping[str, Any] | None,
) -> None:
    """Tell of a record that is stored; None is that of a schedule that does not fit."""
    if record is not None:
        evaluator.watch.tell(
            Confirmed(
                trial, what, images, record[evaluator.objective.name], record["standard_error"],
                record.get("minus_unpruned"), record.get("minus_unpruned_ci95"),
            )
        )  # fmt: skip
