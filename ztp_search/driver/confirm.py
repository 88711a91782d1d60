"""What trials are compared with: the unpruned model and the paper's schedule.

On the search images they are references; on the holdout images the best few are measured beside
them. What chose the winner never reports it: holdout images have no part in any choice. Each
result is stored as soon as it is there, so nothing is measured twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ztp_search.driver.measuring import Measuring
from ztp_search.driver.objective import pack, unpack_bits, unpack_predictions
from ztp_search.evaluation.scheduler import Outcome
from ztp_search.pruning.budget import Budget
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.cost import flops
from ztp_search.pruning.schedules import SHAPES, paper_schedule
from ztp_search.racing import Correct, accuracy, paired_difference, standard_error
from ztp_search.study import StoredTrial, Study


def store_unpruned(measuring: Measuring, study: Study) -> None:
    """The unpruned model on the search images, as the study's reference."""
    reference = study.attributes().get("reference")
    if reference is not None:
        measuring.know("search", unpack_predictions(reference["unpruned"]["predictions"]))
        return
    before = measuring.image_evaluations
    unpruned = measuring.unpruned("search")
    value = accuracy(measuring.judge("search", unpruned))
    reference = {
        "images": len(unpruned),
        "image_evaluations": measuring.image_evaluations - before,
        "unpruned": {measuring.objective: value, "predictions": pack(unpruned)},
    }
    study.set_attribute("reference", reference)


def measure_paper_schedule(measuring: Measuring, study: Study, budget: Budget) -> None:
    """The paper's schedule on the search images.

    Of its shapes the one that does better on these images stands for the paper, which makes it
    the stronger opponent.
    """
    reference = study.attributes()["reference"]
    if "paper_schedule" in reference:
        return
    objective, geometry = measuring.objective, measuring.session.geometry
    schedules = {shape: paper_schedule(geometry, budget, shape) for shape in SHAPES}
    configs = {shape: config for shape, config in schedules.items() if config is not None}
    reference["paper_schedule"] = None
    if configs:
        outcomes = measuring.outcomes("search", configs, "measuring the paper's schedule")
        values = {
            shape: accuracy(measuring.judge("search", outcome.predictions))
            for shape, outcome in outcomes.items()
        }
        best = max(configs, key=lambda shape: values[shape])
        reference["image_evaluations"] += measuring.images("search") * len(configs)
        reference["paper_schedule"] = {
            "shape": best,
            "config": configs[best].to_dict(),
            "gflops": flops(geometry, configs[best]).gflops(),
            objective: values[best],
        }
    study.set_attribute("reference", reference)


def confirm(measuring: Measuring, study: Study, best: Sequence[StoredTrial]) -> None:
    """Measure the best few on holdout beside both references, and store it with the study.

    The attribute "holdout" holds `unpruned`, `paper_schedule` and `candidates` by digest of
    their configuration, each with paired 95 % intervals against both references.
    """
    objective = measuring.objective
    attributes = study.attributes()
    paper = attributes["reference"]["paper_schedule"]
    holdout: dict[str, Any] = attributes.get("holdout") or {
        "images": measuring.images("holdout"), "image_evaluations": 0, "candidates": {},
    }  # fmt: skip
    if "unpruned" in holdout:
        measuring.know("holdout", unpack_predictions(holdout["unpruned"]["predictions"]))
    else:
        before = measuring.image_evaluations
        unpruned = measuring.unpruned("holdout")
        record = _record(objective, measuring.judge("holdout", unpruned), {})
        holdout["unpruned"] = record | {"predictions": pack(unpruned)}
        holdout["image_evaluations"] += measuring.image_evaluations - before
        study.set_attribute("holdout", holdout)
    unpruned = measuring.unpruned("holdout")
    against = {"unpruned": measuring.judge("holdout", unpruned)}

    def take(name: str, outcome: Outcome) -> None:
        correct = measuring.judge("holdout", outcome.predictions)
        record = _record(objective, correct, against)
        if name == "paper_schedule":
            holdout["paper_schedule"] = paper | record
        else:
            agreement = accuracy(outcome.predictions == unpruned)
            holdout["candidates"][name] = record | {"agreement": agreement}
        holdout["image_evaluations"] += len(correct)
        study.set_attribute("holdout", holdout)

    if "paper_schedule" not in holdout:
        if paper is None:
            holdout["paper_schedule"] = None
        else:
            config = PruningConfig.from_dict(paper["config"])
            measuring.outcomes("holdout", {"paper_schedule": config}, STAGE, take)
    if holdout["paper_schedule"] is not None:
        correct = unpack_bits(holdout["paper_schedule"]["correct"], holdout["images"])
        against["paper_schedule"] = correct
    missing = {t.config.digest(): t.config for t in best}
    missing = {n: config for n, config in missing.items() if n not in holdout["candidates"]}
    if missing:
        measuring.outcomes("holdout", missing, STAGE, take)


STAGE = "confirming on holdout"


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
