"""The configuration file: one JSON document that takes a configuration to other tools.

A hand-written file needs `config` with `layers` alone; an exported one says for which model it is,
what it costs, what the evidence for it is and where it comes from. Realised counts are the
authority: a file whose `tokens` contradict its rates is refused. Version 2 is written where
tokens are merged, which readers of version 1 know nothing of.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from ztp_search.errors import ConfigError
from ztp_search.files import YAML, parse_json, parse_yaml, read_text
from ztp_search.pruning.config import PruningConfig, check_keys
from ztp_search.pruning.cost import cost_dict, flops
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.methods import parse_config
from ztp_search.pruning.schedule_file import is_schedule, read_schedule

FORMAT = "ztp-search/pruning-config"


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A configuration with what is known of it.

    Attributes:
        config: how the model is pruned.
        model: name, kwargs, weights, num_classes, weights_sha256, geometry.
        evidence: accuracies on search and holdout images, measured speed.
        provenance: study, trial, seed, space, budget, data, runtime, versions.
    """

    config: PruningConfig
    model: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def geometry(self) -> Geometry | None:
        """The model's sizes; None where the file has none.

        Raises:
            ConfigError: names the first size that is unknown, missing or wrong.
        """
        data = self.model.get("geometry")
        if data is None:
            return None
        geometry: Geometry = _document().read_geometry(data, "model.geometry")
        return geometry

    def to_dict(self) -> dict[str, Any]:
        """The JSON document; tokens and GFLOPs are computed from the model's geometry."""
        out: dict[str, Any] = {"format": FORMAT, "version": 2 if self.config.merges else 1}
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
    """Read and check a configuration file: JSON, or YAML where its name ends in .yaml or .yml.

    Schedules of ToMe and DiffRate are read as well; see `schedule_file.read_schedule`.

    Raises:
        ConfigError: the file cannot be read, or holds a key that is unknown, missing or wrong, or
            states tokens or GFLOPs that its rates do not give; names the first of them.
    """
    name = os.fspath(path)
    text = read_text(path, "configuration file", ConfigError)
    kind, parse = ("YAML", parse_yaml) if name.lower().endswith(YAML) else ("JSON", parse_json)
    try:
        data = parse(text)
    except ValueError as error:
        raise ConfigError(f"configuration file {name} is not valid {kind}: {error}") from None
    if is_schedule(data):
        return ConfigFile(read_schedule(data, name))
    _document().check_document(data, name)
    file = ConfigFile(
        config=parse_config(data["config"], f"{name}: config"),
        model=data.get("model", {}),
        evidence=data.get("evidence", {}),
        provenance=data.get("provenance", {}),
    )
    geometry = file.geometry()
    if geometry is not None:
        check_counts(data, file.config, geometry, name)
    return file


def load_config(path: str | os.PathLike[str]) -> PruningConfig:
    """The configuration of a file, for `apply`.

    Raises:
        ConfigError: names what is wrong with the file.

    Example:
        >>> config = load_config("best.json")
        >>> model = ztp_search.apply(model, config)
    """
    return read_config_file(path).config


def check_counts(
    data: Mapping[str, Any], config: PruningConfig, geometry: Geometry, name: str
) -> None:
    """Refuse stated tokens or GFLOPs that the rates do not give on this geometry.

    Args:
        data: The document.
        config: What its `config` section means.
        geometry: The sizes of its model.
        name: The file, for messages.

    Raises:
        ConfigError: names the first that is contradicted, with what the rates give.
    """
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


def _document() -> ModuleType:
    """The module that needs pydantic, which `import ztp_search` need not wait for."""
    from ztp_search.pruning import config_document

    return config_document
