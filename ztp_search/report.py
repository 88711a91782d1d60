"""What a study has found, out of the database alone, as documents for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ztp_search.config_file import ConfigFile
from ztp_search.errors import StudyError
from ztp_search.study import StoredTrial, Study

LARGE = {"correct", "predictions"}
"""Per-image results: in the database, but in no document."""


def search_document(study: Study) -> dict[str, Any]:
    """The document that `ztp-search --json` prints, but for `seconds`."""
    trials = study.trials()
    states = Counter(trial.state for trial in trials)
    attributes = study.attributes()
    evaluations = sum(trial.attrs.get("images", 0) for trial in trials)
    for part in ("reference", "holdout"):
        evaluations += attributes.get(part, {}).get("image_evaluations", 0)
    best = study.best(1)
    return {
        "study": study.name,
        "storage": study.storage,
        "trials": {state: states[state] for state in ("complete", "pruned", "failed", "running")},
        "image_evaluations": evaluations,
        "best": config_file(study, best[0]).to_dict() if best else None,
        "holdout": _holdout(study),
    }


def best_document(study: Study, n: int) -> dict[str, Any]:
    """The document of `ztp-search best --json`: the n best trials with their evidence."""
    return {
        "study": study.name,
        "storage": study.storage,
        "objective": study.contract["objective"],
        "trials": [
            {
                "trial": trial.number,
                "config": trial.config.to_dict(),
                "tokens": trial.attrs["tokens"],
                "gflops": trial.attrs["gflops"],
                "evidence": _evidence(study, trial),
            }
            for trial in study.best(n)
        ],
    }


def find_trial(study: Study, number: int | None) -> StoredTrial:
    """The best trial, or that of a number; StudyError unless it is complete."""
    if number is None:
        best = study.best(1)
        if not best:
            raise StudyError(
                f"study {study.name!r} has no complete trial yet; let the search go on"
            )
        return best[0]
    for trial in study.trials():
        if trial.number == number and trial.state == "complete":
            return trial
    raise StudyError(
        f"--trial must name a complete trial of study {study.name!r}, but got {number}; "
        "`ztp-search best` lists them"
    )


def config_file(study: Study, trial: StoredTrial) -> ConfigFile:
    """A trial as a configuration file, with its evidence and where it comes from."""
    contract, about = study.contract, study.attributes()["about"]
    return ConfigFile(
        config=trial.config,
        model={
            **about["model"],
            "weights_sha256": contract["weights_sha256"],
            "geometry": contract["geometry"],
        },
        evidence=_evidence(study, trial),
        provenance={
            "study": study.name,
            "trial": trial.number,
            "seed": contract["seed"],
            "sampler": contract["sampler"],
            "space": about["space"],
            "space_sha256": contract["space"],
            "budget": contract["budget"],
            "objective": contract["objective"],
            "data": {
                **about["data"],
                "images": contract["images"],
                "holdout": contract["holdout"],
            },
            "runtime": contract["runtime"],
            "versions": about["versions"],
        },
    )


def _evidence(study: Study, trial: StoredTrial) -> dict[str, Any]:
    """Accuracies on search images, and on holdout where the trial was among the best few."""
    objective = study.contract["objective"]
    attributes = study.attributes()
    reference = attributes["reference"]
    search = {
        "images": trial.attrs["images"],
        objective: trial.value,
        "standard_error": trial.attrs["standard_error"],
        f"unpruned_{objective}": reference["unpruned"][objective],
        f"paper_schedule_{objective}": (reference.get("paper_schedule") or {}).get(objective),
        "minus_unpruned": trial.attrs["minus_unpruned"],
        "minus_unpruned_ci95": trial.attrs["minus_unpruned_ci95"],
        "vhf_fallback_share": trial.attrs["fallback_share"],
    }
    holdout = attributes.get("holdout")
    if holdout is None or trial.config.digest() not in holdout["candidates"]:
        return {"search": search}
    candidate = holdout["candidates"][trial.config.digest()]
    paper = holdout["paper_schedule"]
    return {
        "search": search,
        "holdout": {
            "images": holdout["images"],
            **_small(candidate),
            f"unpruned_{objective}": holdout["unpruned"][objective],
            f"paper_schedule_{objective}": paper and paper[objective],
            "paired_ci95": candidate.get("minus_paper_schedule_ci95"),
        },
    }


def _holdout(study: Study) -> dict[str, Any] | None:
    """The comparison on holdout images: references, the best few, and what they show."""
    stored = study.attributes().get("holdout")
    if stored is None:
        return None
    objective = study.contract["objective"]
    candidates = []
    for trial in study.best(len(stored["candidates"])):
        record = stored["candidates"].get(trial.config.digest())
        if record is not None:
            candidates.append(
                {
                    "trial": trial.number,
                    "gflops": trial.attrs["gflops"],
                    f"search_{objective}": trial.value,
                    **_small(record),
                }
            )
    paper = stored["paper_schedule"]
    return {
        "images": stored["images"],
        "objective": objective,
        "unpruned": _small(stored["unpruned"]),
        "paper_schedule": paper and _small(paper),
        "candidates": candidates,
        "verdict": verdict(candidates[0], paper) if candidates else "",
    }


def verdict(winner: Mapping[str, Any], paper: Mapping[str, Any] | None) -> str:
    """What the holdout images say of the winner, plainly."""
    if paper is None:
        return "the paper's schedule does not fit this model or budget: nothing to compare with"
    low, high = winner["minus_paper_schedule_ci95"]
    points = f"{100 * winner['minus_paper_schedule']:+.2f} points, 95 % interval "
    points += f"{100 * low:+.2f} to {100 * high:+.2f}"
    name = f"trial {winner['trial']}"
    if low > 0:
        return f"{name} is better than the paper's schedule on holdout images ({points})"
    if high < 0:
        return f"{name} is worse than the paper's schedule on holdout images ({points})"
    return (
        f"{name} is not shown to be better than the paper's schedule on holdout images ({points}); "
        "more --holdout images narrow the interval"
    )


def _small(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in LARGE}
