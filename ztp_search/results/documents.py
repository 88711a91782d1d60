"""What a study has found of its trials, out of the database alone, as parts of documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ztp_search.errors import StudyError
from ztp_search.pruning.config_file import ConfigFile
from ztp_search.pruning.schedules import BASELINES, OPPONENT
from ztp_search.study import StoredTrial, StudyReader

MEASURED = ("total_variation", "label_probability")
"""What the signals of racing measure, on the images that a trial has seen."""
LARGE = {"correct", "losses", "predictions"}
"""Per-image results: in the database, but in no document."""


def find_trial(study: StudyReader, number: int | None) -> StoredTrial:
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
        f"`trial` must name a complete trial of study {study.name!r}, but got {number}; "
        "`ztp-search best` lists them"
    )


def config_file(study: StudyReader, trial: StoredTrial) -> ConfigFile:
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
            **_origin(trial),
            "seed": contract["seed"],
            "sampler": contract["sampler"],
            "space": about["space"],
            **{key: contract[key] for key in ("method",) if key in contract},
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


def _evidence(study: StudyReader, trial: StoredTrial) -> dict[str, Any]:
    """Accuracies on search images, on holdout where the trial was among the best few, and speed
    where that was measured."""
    objective = study.contract["objective"]
    attributes = study.attributes()
    reference = attributes["reference"]
    search = {
        "images": trial.attrs["images"],
        objective: trial.value,
        "standard_error": trial.attrs["standard_error"],
        f"unpruned_{objective}": reference["unpruned"][objective],
        **_baseline_accuracies(reference, objective),
        "minus_unpruned": trial.attrs["minus_unpruned"],
        "minus_unpruned_ci95": trial.attrs["minus_unpruned_ci95"],
        "vhf_fallback_share": trial.attrs["fallback_share"],
        **_measured(trial),
    }
    evidence = {"search": search}
    digest, holdout = trial.config.digest(), attributes.get("holdout")
    if holdout is not None and digest in holdout["candidates"]:
        candidate = holdout["candidates"][digest]
        evidence["holdout"] = {
            "images": holdout["images"],
            **_small(candidate),
            f"unpruned_{objective}": holdout["unpruned"][objective],
            **_baseline_accuracies(holdout, objective),
            "paired_ci95": candidate.get(f"minus_{OPPONENT}_ci95"),
        }
    speed = attributes.get("speed", {})
    return evidence | ({"speed": speed[digest]} if digest in speed else {})


def holdout_table(study: StudyReader) -> dict[str, Any] | None:
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
                    "search_minus_unpruned": trial.attrs["minus_unpruned"],
                    **_origin(trial),
                    **_measured(trial),
                    **_small(record),
                }
            )
    baselines = {name: stored[name] for name in BASELINES if name in stored}
    opponent = strongest(study.attributes()["reference"], objective)
    return {
        "images": stored["images"],
        "objective": objective,
        "unpruned": _small(stored["unpruned"]),
        **{name: record and _small(record) for name, record in baselines.items()},
        "candidates": candidates,
        "verdict": verdict(candidates[0], opponent) if candidates else "",
        "winners_curse": winners_curse(candidates[0]) if candidates else "",
    }


def strongest(reference: Mapping[str, Any], objective: str) -> str | None:
    """The baseline that does best on the search images; None where none fits.

    One that racing has stopped on fewer images was shown to be worse than those that it has not.
    """
    fitting = {name: reference[name] for name in BASELINES if reference.get(name)}
    return max(
        fitting,
        key=lambda name: (fitting[name].get("images", 0), fitting[name][objective]),
        default=None,
    )


def verdict(winner: Mapping[str, Any], opponent: str | None) -> str:
    """What the holdout images say of the winner against a baseline, plainly.

    Args:
        winner: a finalist's record, with its differences from the baselines.
        opponent: the baseline's name; None where none fits.
    """
    if opponent is None:
        return "no hand-set schedule fits this model or budget: nothing to compare with"
    title = BASELINES[opponent].title
    low, high = winner[f"minus_{opponent}_ci95"]
    points = f"{100 * winner[f'minus_{opponent}']:+.2f} points, 95 % interval "
    points += f"{100 * low:+.2f} to {100 * high:+.2f}"
    name = f"trial {winner['trial']}"
    if winner.get("hand_set", "").split(" ")[0] == opponent:
        return f"{name} is {title} itself: no other trial did better on the search images"
    if low > 0:
        return f"{name} is better than {title} on holdout images ({points})"
    if high < 0:
        return f"{name} is worse than {title} on holdout images ({points})"
    return (
        f"{name} is not shown to be better than {title} on holdout images ({points}); "
        "more holdout images narrow the interval"
    )


def winners_curse(winner: Mapping[str, Any]) -> str:
    """What choosing the best of many adds on the images that chose it, plainly."""
    search, holdout = winner["search_minus_unpruned"], winner["minus_unpruned"]
    return (
        f"trial {winner['trial']} stands at {100 * search:+.2f} points to the unpruned model on "
        f"the search images, which chose it, and at {100 * holdout:+.2f} on holdout images"
    )


def _origin(trial: StoredTrial) -> dict[str, str]:
    """Where a trial comes from that was known beforehand: `hand_set`, `enqueued`."""
    return {key: trial.attrs[key] for key in ("hand_set", "enqueued") if key in trial.attrs}


def _measured(trial: StoredTrial) -> dict[str, float]:
    """`total_variation` or its like."""
    return {key: trial.attrs[key] for key in MEASURED if key in trial.attrs}


def _baseline_accuracies(record: Mapping[str, Any], objective: str) -> dict[str, float | None]:
    """`paper_schedule_top1` and its like; None where the baseline does not fit the budget."""
    return {
        f"{name}_{objective}": (record.get(name) or {}).get(objective)
        for name in BASELINES
        if name in record or name == OPPONENT
    }


def _small(record: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in LARGE}
