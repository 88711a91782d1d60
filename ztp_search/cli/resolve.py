"""What the command line means: parsed arguments into the settings of a search or evaluation."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ztp_search.cli.arguments import storage_url
from ztp_search.errors import DataError, ModelError, ZtpError
from ztp_search.pruning.budget import check_budgets, split_budgets
from ztp_search.pruning.config_file import ConfigFile
from ztp_search.settings import DataSpec, ModelSpec, Settings, Sources, WorkerOptions
from ztp_search.space import SearchSpace, load_space, shipped_spaces

DEFAULTS = {"trials": 500, "images": 2000, "holdout": 3000, "batch_size": 64}
DEFAULT_SPACE, ANY_SPACE = "deit_small", "any"


def settings(args: argparse.Namespace) -> Settings:
    """What a search is to do."""
    check_budgets(args.budget)
    _check_files(args)
    space = _space(args)
    out = Path(args.out)
    defaults = DEFAULTS | dict(space.defaults)
    sources = _sources(args, space, defaults, out)
    budgets = split_budgets(args.budget)
    return Settings(
        space=space,
        sources=sources,
        workers=worker_options(args),
        studies={budget: _study_name(args, space, budget, len(budgets)) for budget in budgets},
        storage=storage_url(args),
        trials=args.trials or defaults["trials"],
        batch_size=args.batch_size or defaults["batch_size"],
        tolerance=args.tolerance,
        budget_counts=args.budget_counts,
        objective=args.objective,
        sampler=args.sampler,
        refine=args.refine,
        racing=args.racing,
        precision=args.precision,
        device=args.device,
        threads=args.threads,
        timeout=args.timeout,
        candidates=args.candidates,
    )


def worker_options(args: argparse.Namespace) -> WorkerOptions:
    return WorkerOptions(args.workers, args.gpus_per_worker, args.address, args.cache_memory)


def data_overrides(args: argparse.Namespace) -> dict[str, Any]:
    """Preprocessing that the user states in place of timm's data config."""
    keys = ("mean", "std", "interpolation", "crop_pct", "crop_mode", "input_size")
    return {key: getattr(args, key) for key in keys if getattr(args, key) is not None}


def model_spec(args: argparse.Namespace, stated: Mapping[str, Any]) -> ModelSpec:
    """The model that a space or file states, with what the command line says in its place."""
    return ModelSpec(
        name=stated["name"],
        kwargs=dict(stated.get("kwargs", {})) | parse_model_kwargs(args.model_kwargs or []),
        weights=args.weights or stated.get("weights"),
        num_classes=args.num_classes or stated.get("num_classes"),
    )


def file_model(args: argparse.Namespace, file: ConfigFile) -> ModelSpec:
    """--model and its kin, else the file's."""
    stated: Mapping[str, Any] = file.model if args.model is None else {"name": args.model}
    if "name" not in stated:
        raise ZtpError(f"{args.config} names no model; give --model NAME")
    return model_spec(args, stated)


def file_sources(args: argparse.Namespace, file: ConfigFile) -> tuple[Sources, str]:
    """Model and images of `evaluate`, and which set is measured."""
    _check_files(args)
    model = file_model(args, file)
    cache_dir = Path(args.out) / "images"
    stored = file.provenance.get("data")
    if args.data is not None or stored is None:
        if args.data is None:
            raise ZtpError(f"{args.config} names no images; give --data")
        for flag, value in (
            ("--image-set", args.image_set), ("--holdout-split", args.holdout_split)
        ):  # fmt: skip
            if value is not None:
                raise ZtpError(f"{flag} {value} is of the file's images; leave it or --data out")
        data = DataSpec(args.data, args.split, None, args.class_map)
        count = args.images or DEFAULTS["images"]
        stated = stored["config"] if stored and args.model is None else {}
        return Sources(
            model, data, {**stated, **data_overrides(args)}, count, 0, args.seed or 0, cache_dir,
            args.skip_unreadable,
        ), "search"  # fmt: skip
    data = DataSpec(
        stored["source"],
        args.split or stored["split"],
        args.holdout_split or stored["holdout_split"],
        args.class_map or stored["class_map"],
    )
    for flag, value in (("--images", args.images), ("--seed", args.seed)):
        if value is not None:
            raise ZtpError(f"{flag} {value} chooses among images of --data; give --data too")
    holdout = stored["holdout"]["count"]
    sources = Sources(
        model, data, {**stored["config"], **data_overrides(args)}, stored["images"]["count"],
        holdout, stored["seed"], cache_dir, args.skip_unreadable or stored["skip_unreadable"],
    )  # fmt: skip
    return sources, args.image_set or ("holdout" if holdout else "search")


def _check_files(args: argparse.Namespace) -> None:
    """What the user names as a file or folder is there."""
    stated = {"--weights": args.weights, "--class-map": args.class_map}
    if args.data is not None and args.data.startswith(("/", "./", "../")):
        stated["--data"] = args.data
    for flag, path in stated.items():
        if path not in (None, "digits") and not Path(path).exists():
            raise ZtpError(f"{flag} {path} does not exist; give its path")


def parse_model_kwargs(items: Sequence[str]) -> dict[str, Any]:
    """`["img_size=40", "qk_norm=true"]` -> `{"img_size": 40, "qk_norm": True}`.

    Values are Python literals (and true, false, none in any case), otherwise strings.
    """
    kwargs: dict[str, Any] = {}
    for item in items:
        key, separator, value = item.partition("=")
        if not separator or not key.isidentifier():
            raise ModelError(f"--model-kwargs must be name=value, but got {item!r}")
        if key in kwargs:
            raise ModelError(f"--model-kwargs must name each argument once, but got {key} twice")
        literal = value.title() if value.lower() in ("true", "false", "none") else value
        try:
            kwargs[key] = ast.literal_eval(literal)
        except (ValueError, SyntaxError):
            kwargs[key] = value
    return kwargs


def _space(args: argparse.Namespace) -> SearchSpace:
    """--space, else the shipped space of that model, else the one for any model."""
    if args.space is not None:
        return load_space(args.space)
    if args.model is None:
        return load_space(DEFAULT_SPACE)
    base = args.model.split(".")[0]
    for name in shipped_spaces():
        space = load_space(name)
        own = space.model.get("kwargs") or space.model.get("weights")  # not timm's model as such
        if space.model and not own and not args.model_kwargs:
            if space.model["name"].split(".")[0] == base:
                return space
    return load_space(ANY_SPACE)


def _sources(
    args: argparse.Namespace, space: SearchSpace, defaults: dict[str, int], out: Path
) -> Sources:
    """Model and images: the space's, replaced by what the user states."""
    if args.model is None and not space.model:
        raise ZtpError(f"space {space.name} is for any model, so --model NAME is needed")
    stated = dict(space.model)
    if args.model is not None:
        stated = {"name": args.model}
    if args.data is not None:
        data = DataSpec(args.data, args.split, args.holdout_split, args.class_map)
    elif space.data:
        data = DataSpec(
            space.data["source"],
            args.split or space.data.get("split"),
            args.holdout_split or space.data.get("holdout_split"),
            args.class_map or space.data.get("class_map"),
        )
    else:
        raise DataError(
            "--data is needed: a folder of images, or what timm opens (hfds/…, wds/…, torch/…)"
        )
    return Sources(
        model=model_spec(args, stated),
        data=data,
        data_overrides=dict(stated.get("preprocessing", {})) | data_overrides(args),
        images=args.images or defaults["images"],
        holdout=defaults["holdout"] if args.holdout is None else args.holdout,
        seed=args.seed,
        cache_dir=out / "images",
        skip_unreadable=args.skip_unreadable,
    )


def _study_name(args: argparse.Namespace, space: SearchSpace, budget: str, budgets: int) -> str:
    """The same command, the same study: space, model where one is stated, budget and seed.

    What else a study cannot change is in its name where it is not the default.
    """
    if args.study is not None:
        return args.study if budgets == 1 else f"{args.study}-{_plain(budget)}"
    parts = [Path(space.name).stem]
    if args.model is not None:
        parts.append(args.model)
    parts += [budget, f"seed{args.seed}"]
    parts += [args.sampler] if args.sampler != "monte-carlo" else []
    parts += [f"racing-{args.racing}"] if args.racing != "both" else []
    return "-".join(_plain(part) for part in parts)


def _plain(part: str) -> str:
    return re.sub(r"[^\w.%]+", "_", part.strip())
