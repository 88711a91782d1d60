"""The command that resumes a study, made of what the study has stored of its settings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from ztp_search.errors import ZtpError
from ztp_search.pruning.budget import parse_budget
from ztp_search.pruning.geometry import Geometry, unpruned_macs
from ztp_search.settings import SearchSettings
from ztp_search.settings.resolve_search import DEFAULTS
from ztp_search.space import SearchSpace, load_space


def resume_command(
    study: str, storage: str, contract: Mapping[str, Any], attributes: Mapping[str, Any]
) -> str:
    """`ztp-search …`: the settings that are not what the space or nobody else says.

    A password in the storage's URL reads ***, as studies know none.

    Args:
        study: its name.
        storage: URL of its database.
        contract, attributes: of the study.
    """
    stated = _stated(contract, attributes)
    words = [word for name, value in stated.items() for word in _words(name, value)]
    return shlex.join(["ztp-search", *words, *where_words(storage), "--study", study])


def where_words(storage: str) -> list[str]:
    """The options that name a database; by its folder if that has its usual name, as decoded
    images lie there too."""
    folder = re.fullmatch("sqlite:///(.+)/studies.db", storage)
    return ["--out", folder[1]] if folder else ["--storage", storage]


def _stated(contract: Mapping[str, Any], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by their Python names."""
    about = attributes.get("about", {})
    asked = about.get("asked", {})
    space = _space(about.get("space"))
    stated: dict[str, Any] = {}
    if "space" in about:
        stated["space"] = about["space"]
    if "budget" in contract and "geometry" in contract:
        stated["budget"] = budget_text(contract)
        stated |= {"tolerance": contract["budget"]["tolerance"],
                   "budget_counts": contract["budget"]["counts"]}  # fmt: skip
    stated |= {name: contract[name] for name in ("method", "objective", "seed", "sampler")
               if name in contract}  # fmt: skip
    if "racing" in contract:
        stated |= {"racing": contract["racing"]["rule"],
                   "racing_signal": contract["racing"].get("signal")}  # fmt: skip
    stated |= _trials(attributes.get("cohorts", []))
    stated |= {name: asked[name] for name in ("candidates", "enqueue") if name in asked}
    if "model" in about:
        stated |= dict(_model(about["model"], space))
    if "data" in about:
        stated |= dict(_data(about["data"], space))
    standard = space.model.get("preprocessing", {}) if space and "model" not in stated else {}
    stated |= {name: value for name, value in asked.get("preprocessing", {}).items()
               if standard.get(name) != value}  # fmt: skip
    stated |= {name: contract[name]["count"] for name in ("images", "holdout") if name in contract}
    runtime = contract.get("runtime", {})
    stated |= {name: runtime[name] for name in ("batch_size", "threads") if name in runtime}
    defaults = {each.name: each.default for each in fields(SearchSettings)}
    defaults |= {"batch_size": DEFAULTS["batch_size"], **(dict(space.defaults) if space else {})}
    needed = ("budget", "space", "trials")
    return {name: value for name, value in stated.items()
            if name in needed or (value is not None and value != defaults.get(name))}  # fmt: skip


def budget_text(contract: Mapping[str, Any]) -> str:
    """The shortest text of a study's budget: a share of the unpruned model, or GFLOPs."""
    macs, geometry = contract["budget"]["macs"], Geometry(**contract["geometry"])
    share = 100 * macs / unpruned_macs(geometry)
    texts = [f"{share:.{digits}g}%" for digits in range(2, 7)]
    texts += [f"{macs / 1e9:.{digits}g}" for digits in range(2, 16)]
    exact = f"{(macs + 0.5) / 1e9:.12f}"
    fitting = [text for text in texts if parse_budget(text, geometry).macs == macs]
    return min(fitting, key=len, default=exact)


def _space(name: str | None) -> SearchSpace | None:
    """The space, where it is still there."""
    try:
        return None if name is None else load_space(name)
    except ZtpError:
        return None


def _trials(cohorts: list[Mapping[str, Any]]) -> dict[str, int]:
    """How many were begun, of the sampler and around the best."""
    refined = sum(each["stop"] - each["start"] for each in cohorts if each["sampler"] == "refine")
    begun = cohorts[-1]["stop"] if cohorts else 0
    return {"trials": begun - refined, "refine": refined} if begun else {}


def _model(model: Mapping[str, Any], space: SearchSpace | None) -> Iterator[tuple[str, Any]]:
    """What differs from the space's model."""
    own = space.model if space else {}
    if model["name"] != own.get("name"):
        yield "model", model["name"]
        own = {}
    kwargs, standard = model["kwargs"], own.get("kwargs", {})
    yield "model_kwargs", {key: v for key, v in kwargs.items() if standard.get(key) != v}
    for name in ("weights", "num_classes"):
        if model[name] != own.get(name):
            yield name, model[name]


def _data(data: Mapping[str, Any], space: SearchSpace | None) -> Iterator[tuple[str, Any]]:
    """What differs from the space's images."""
    own = space.data if space else {}
    if data["source"] != own.get("source"):
        yield "data", data["source"]
        own = {}
    for name in ("split", "holdout_split", "class_map"):
        if data[name] != own.get(name):
            yield name, data[name]
    yield "skip_unreadable", data["skip_unreadable"]


def _words(name: str, value: Any) -> list[str]:
    """An option of the command line."""
    option = f"--{name.replace('_', '-')}"
    if value is True:
        return [option]
    if isinstance(value, Mapping):
        return [option, *(f"{key}={each}" for key, each in value.items())] if value else []
    if isinstance(value, list | tuple):
        return [option, *map(str, value)] if value else []
    return [option, str(value)]
