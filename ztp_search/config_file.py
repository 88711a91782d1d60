"""The configuration file: one JSON document that takes a configuration to other tools.

A hand-written file needs `format`, `version` and `config` (with `layers`); an exported one says
for which model, what it costs, the evidence for it and where it comes from. Realised counts are
the authority: a file whose `tokens` contradict its rates is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ztp_search.config import PruningConfig, check_keys
from ztp_search.cost import Geometry, cost_dict, flops
from ztp_search.errors import ConfigError

FORMAT, VERSION = "ztp-search/pruning-config", 1
MODEL_KEYS = {"name", "kwargs", "weights", "num_classes", "weights_sha256", "geometry"}


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
    optional = {"model", "tokens", "gflops", "evidence", "provenance"}
    check_keys(data, name, {"format", "version", "config"}, optional)
    for key, value in (("format", FORMAT), ("version", VERSION)):
        if type(data[key]) is not type(value) or data[key] != value:
            raise ConfigError(f"{name}: {key} must be {value!r}, but got {data[key]!r}")
    model = data.get("model", {})
    check_keys(model, f"{name}: model", set(), MODEL_KEYS)
    for key in ("evidence", "provenance"):
        if not isinstance(data.get(key, {}), Mapping):
            raise ConfigError(f"{name}: {key} must be a mapping, but got {data[key]!r}")
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


def _geometry(data: Any, where: str) -> Geometry:
    check_keys(data, where, {each.name for each in fields(Geometry)}, set())
    for key, value in data.items():
        kind, words = (bool, "true or false") if key == "class_token" else (int, "an integer")
        if type(value) is not kind:
            raise ConfigError(f"{where}.{key} must be {words}, but got {value!r}")
    return Geometry(**data)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
