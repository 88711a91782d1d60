"""The configuration file: one JSON document that takes a configuration to other tools.

A hand-written file needs `config` with `layers` alone; an exported one says for which model, what
it costs, the evidence for it and where it comes from. Realised counts are
the authority: a file whose `tokens` contradict its rates is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeAlias

from ztp_search.errors import ConfigError
from ztp_search.pruning.config import PruningConfig, check_keys
from ztp_search.pruning.cost import cost_dict, flops
from ztp_search.pruning.geometry import Geometry

FORMAT, VERSION = "ztp-search/pruning-config", 1
Shape: TypeAlias = "Mapping[str, str | Shape]"
"""What stands under each key, by the words of KINDS; a nested one needs all of its keys."""

KINDS: Mapping[str, Callable[[Any], bool]] = {
    "text": lambda value: isinstance(value, str),
    "text or null": lambda value: value is None or isinstance(value, str),
    "a whole number": lambda value: type(value) is int and value >= 0,
    "a whole number, 1 or more": lambda value: type(value) is int and value > 0,
    "a whole number or null": lambda value: value is None or type(value) is int,
    "true or false": lambda value: isinstance(value, bool),
    "a mapping": lambda value: isinstance(value, Mapping),
    "a mapping or null": lambda value: value is None or isinstance(value, Mapping),
}
MODEL: Shape = {
    "name": "text",
    "kwargs": "a mapping",
    "weights": "text or null",
    "num_classes": "a whole number or null",
    "weights_sha256": "text or null",
    "geometry": "a mapping or null",
}
SET: Shape = {"count": "a whole number", "sha256": "text or null"}
PROVENANCE: Shape = {
    "data": {
        "source": "text",
        "split": "text or null",
        "holdout_split": "text or null",
        "class_map": "text or null",
        "config": "a mapping",
        "seed": "a whole number",
        "skip_unreadable": "true or false",
        "images": SET,
        "holdout": SET,
    },
    "runtime": {
        "device": "text",
        "precision": "text",
        "batch_size": "a whole number, 1 or more",
        "threads": "a whole number, 1 or more",
    },
}
"""What the commands read of it; there may be more."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A configuration with what is known of it.

    model: name, kwargs, weights, num_classes, weights_sha256, geometry.
    evidence: accuracies on search and holdout images; provenance: study, seed, data, versions.
    """

    config: PruningConfig
    model: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def geometry(self) -> Geometry | None:
        """The model's sizes, where the file has them."""
        data = self.model.get("geometry")
        return None if data is None else _geometry(data, "model.geometry")

    def to_dict(self) -> dict[str, Any]:
        """The JSON document; tokens and GFLOPs are computed from the model's geometry."""
        out: dict[str, Any] = {"format": FORMAT, "version": VERSION}
        if self.model:
            out["model"] = dict(self.model)
        out["config"] = self.config.to_dict()
        geometry = self.geometry()
        if geometry is not None:
            out |= cost_dict(flops(geometry, self.config))
        if self.evidence:
            out["evidence"] = dict(self.evidence)
        if self.provenance:
            out["provenance"] = dict(self.provenance)
        return out

    def dumps(self) -> str:
        """The text of the file."""
        return json.dumps(self.to_dict(), indent=1) + "\n"


def read_config_file(path: str | os.PathLike[str]) -> ConfigFile:
    """Read and check a configuration file; ConfigError names the first thing that is wrong."""
    name = os.fspath(path)
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_no_constant)
    except OSError as error:
        raise ConfigError(f"configuration file {name} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # also UnicodeDecodeError
        raise ConfigError(f"configuration file {name} is not valid JSON: {error}") from None
    optional = {"format", "version", "model", "tokens", "gflops", "evidence", "provenance"}
    check_keys(data, name, {"config"}, optional)
    for key, value in (("format", FORMAT), ("version", VERSION)):
        stated = data.get(key, value)
        if type(stated) is not type(value) or stated != value:
            raise ConfigError(f"{name}: {key} must be {value!r}, but got {stated!r}")
    model = data.get("model", {})
    check_keys(model, f"{name}: model", set(), set(MODEL))
    _check_shape(model, MODEL, f"{name}: model")
    for key in ("evidence", "provenance"):
        if not isinstance(data.get(key, {}), Mapping):
            raise ConfigError(f"{name}: {key} must be a mapping, but got {data[key]!r}")
    _check_shape(data.get("provenance", {}), PROVENANCE, f"{name}: provenance")
    file = ConfigFile(
        config=PruningConfig.from_dict(data["config"], f"{name}: config"),
        model=model,
        evidence=data.get("evidence", {}),
        provenance=data.get("provenance", {}),
    )
    geometry = file.geometry()
    if geometry is not None:
        check_counts(data, file.config, geometry, name)
    return file


def load_config(path: str | os.PathLike[str]) -> PruningConfig:
    """The configuration of a file, for `apply`; ConfigError names what is wrong with the file."""
    return read_config_file(path).config


def check_counts(
    data: Mapping[str, Any], config: PruningConfig, geometry: Geometry, name: str
) -> None:
    """Refuse stated tokens or GFLOPs that the rates do not give on this geometry."""
    cost = flops(geometry, config)
    tokens = data.get("tokens")
    if tokens is not None and tokens != list(cost.tokens):
        raise ConfigError(
            f"{name}: tokens {tokens} contradict the rates, which give {list(cost.tokens)}; "
            "correct config.layers or leave tokens out"
        )
    stated = data.get("gflops", {})
    check_keys(stated, f"{name}: gflops", set(), set(cost.gflops()))
    for key, value in cost.gflops().items():
        slack = 1e-6 * value + 1e-9
        if key in stated and (
            type(stated[key]) not in (int, float)
            or not value - slack <= stated[key] <= value + slack
        ):
            raise ConfigError(
                f"{name}: gflops.{key} is {stated[key]!r}, but the rates give {value}; "
                "correct it or leave gflops out"
            )


def _check_shape(data: Mapping[str, Any], shape: Shape, where: str) -> None:
    for key, kind in shape.items():
        if key not in data:
            continue
        value, at = data[key], f"{where}.{key}"
        if not isinstance(kind, str):
            if not isinstance(value, Mapping) or not kind.keys() <= value.keys():
                raise ConfigError(
                    f"{at} must be a mapping with {', '.join(kind)}, but got {value!r}"
                )
            _check_shape(value, kind, at)
        elif not KINDS[kind](value):
            raise ConfigError(f"{at} must be {kind}, but got {value!r}")


def _geometry(data: Any, where: str) -> Geometry:
    check_keys(data, where, {each.name for each in fields(Geometry)}, set())
    for key, value in data.items():
        kind, words = (bool, "true or false") if key == "class_token" else (int, "an integer")
        if type(value) is not kind:
            raise ConfigError(f"{where}.{key} must be {words}, but got {value!r}")
    return Geometry(**data)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
