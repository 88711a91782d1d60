"""What the settings of a search mean: space, model, images, names of studies, defaults."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ztp_search.errors import DataError, ZtpError
from ztp_search.files import exists
from ztp_search.pruning.budget import check_budgets
from ztp_search.pruning.config_file import load_config
from ztp_search.settings.options import (
    DataSettings,
    FileName,
    ModelSettings,
    RunSettings,
    SearchSettings,
)
from ztp_search.settings.resolved import (
    DataSpec,
    ModelSpec,
    ResolvedSearch,
    Sources,
    SpeedOptions,
    WorkerOptions,
)
from ztp_search.space import SearchSpace, load_space, shipped_spaces

DEFAULTS = {"trials": 1000, "images": 5000, "holdout": 3000, "batch_size": 64}
"""Where neither the user nor the space says otherwise; `images` is a bound."""
DEFAULT_SPACE, ANY_SPACE = "deit_small", "any"


def resolve_search(settings: SearchSettings) -> ResolvedSearch:
    """What a search with these settings does.

    Raises:
        ZtpError: what the settings alone show to be wrong: a budget that is none, a space or
            file that is not there, a model or images that nobody names.
    """
    budgets = settings.budgets
    for budget in budgets:
        check_budgets(budget)
    check_files(settings)
    if settings.metrics and settings.workers == 0:
        raise ZtpError(
            "`metrics` must be served by Ray, but `workers` 0 works without it; leave out one of "
            "them"
        )
    space = _space(settings).restricted(settings.method)
    defaults = DEFAULTS | dict(space.defaults)
    return ResolvedSearch(
        space=space,
        sources=_sources(settings, space, defaults),
        workers=replace(worker_options(settings), metrics=settings.metrics),
        studies={budget: _study_name(settings, space, budget, len(budgets)) for budget in budgets},
        storage=storage_url(settings.storage, settings.out),
        out=Path(settings.out),
        trials=settings.trials or defaults["trials"],
        batch_size=settings.batch_size or defaults["batch_size"],
        tolerance=settings.tolerance,
        budget_counts=settings.budget_counts,
        objective=settings.objective,
        method=settings.method,
        sampler=settings.sampler,
        refine=settings.refine,
        racing=settings.racing,
        racing_signal=settings.racing_signal,
        precision=settings.precision,
        device=settings.device,
        threads=settings.threads,
        timeout=settings.timeout,
        max_failures=settings.max_failures,
        candidates=settings.candidates,
        enqueued={str(path): load_config(path) for path in settings.enqueue},
        speed=speed_options(settings),
    )


def storage_url(storage: str | None, out: FileName) -> str:
    """The database; by default SQLite in the output folder."""
    return storage or f"sqlite:///{Path(out) / 'studies.db'}"


def worker_options(settings: RunSettings) -> WorkerOptions:
    return WorkerOptions(
        settings.workers, settings.gpus_per_worker, settings.address, settings.cache_memory
    )


def speed_options(settings: RunSettings) -> SpeedOptions:
    sizes = tuple(dict.fromkeys(settings.speed_batch_sizes))
    return SpeedOptions(settings.engines, sizes, settings.speed_repeats)


def check_files(settings: DataSettings) -> None:
    """ZtpError unless what the user names as a file or folder is there."""
    stated = {"weights": settings.weights, "class_map": settings.class_map}
    data = settings.data
    if isinstance(data, Path) or (data is not None and data.startswith(("/", "./", "../"))):
        stated["data"] = data
    for name, path in stated.items():
        if path is not None and path != "digits" and not exists(path):
            raise ZtpError(f"`{name}` {path} does not exist; give its path")


def model_spec(settings: ModelSettings, stated: Mapping[str, Any]) -> ModelSpec:
    """The model that a space or file states, with what the user says in its place."""
    return ModelSpec(
        name=stated["name"],
        kwargs={**stated.get("kwargs", {}), **settings.model_kwargs},
        weights=text(settings.weights) or stated.get("weights"),
        num_classes=settings.num_classes or stated.get("num_classes"),
    )


def data_spec(settings: DataSettings, stated: Mapping[str, Any]) -> DataSpec:
    """The images that a space or file states, with what the user says in their place."""
    return DataSpec(
        stated["source"] if settings.data is None else str(settings.data),
        settings.split or stated.get("split"),
        settings.holdout_split or stated.get("holdout_split"),
        text(settings.class_map) or stated.get("class_map"),
    )


def text(path: FileName | None) -> str | None:
    """A path as studies and files state it."""
    return None if path is None else str(path)


def _space(settings: SearchSettings) -> SearchSpace:
    """The space that is named, else the shipped space of that model, else the one for any."""
    if settings.space is not None:
        return load_space(str(settings.space))
    if settings.model is None:
        return load_space(DEFAULT_SPACE)
    base = settings.model.split(".")[0]
    for name in shipped_spaces():
        space = load_space(name)
        own = space.model.get("kwargs") or space.model.get("weights")  # not timm's model as such
        if space.model and not own and not settings.model_kwargs:
            if space.model["name"].split(".")[0] == base:
                return space
    return load_space(ANY_SPACE)


def _sources(settings: SearchSettings, space: SearchSpace, defaults: dict[str, int]) -> Sources:
    """Model and images: the space's, replaced by what the user states."""
    if settings.model is None and not space.model:
        raise ZtpError(f"space {space.name} is for any model, so `model` is needed")
    stated = space.model
    if settings.model is not None:
        stated = {"name": settings.model}
    if settings.data is None and not space.data:
        raise DataError(
            "`data` is needed: a folder of images, or what timm opens (hfds/…, wds/…, torch/…)"
        )
    return Sources(
        model=model_spec(settings, stated),
        data=data_spec(settings, space.data if settings.data is None else {}),
        data_overrides={**stated.get("preprocessing", {}), **settings.preprocessing},
        images=settings.images or defaults["images"],
        holdout=defaults["holdout"] if settings.holdout is None else settings.holdout,
        seed=settings.seed,
        cache_dir=Path(settings.out) / "images",
        skip_unreadable=settings.skip_unreadable,
        images_at_most=settings.images is None,
    )


def _study_name(settings: SearchSettings, space: SearchSpace, budget: str, budgets: int) -> str:
    """The same settings, the same study: space, model where one is stated, budget and seed.

    What else a study cannot change is in its name where it is not the default.
    """
    if settings.study is not None:
        return settings.study if budgets == 1 else f"{settings.study}-{_plain(budget)}"
    parts = [Path(space.name).stem]
    if settings.model is not None:
        parts.append(settings.model)
    parts += [budget, f"seed{settings.seed}"]
    parts += [settings.method] if settings.method != "any" else []
    parts += [settings.sampler] if settings.sampler != "monte-carlo" else []
    parts += [f"racing-{settings.racing}"] if settings.racing != "both" else []
    signal = settings.racing_signal
    parts += [f"signal-{signal}"] if signal != "total-variation" else []
    return "-".join(_plain(part) for part in parts)


def _plain(part: str) -> str:
    return re.sub(r"[^\w.%]+", "_", part.strip())
