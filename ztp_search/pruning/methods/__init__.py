"""Methods of token reduction by name; a new one is a file here and a line below."""

from collections.abc import Mapping
from typing import Any

from ztp_search.errors import ConfigError
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.methods.base import Coordinate, LayerRanges, Method, Sight, Values
from ztp_search.pruning.methods.zero_tprune import ZeroTPrune

DEFAULT_METHOD = "zero-tprune"
"""The method of a space or configuration that names none."""

METHODS: Mapping[str, Method] = {
    DEFAULT_METHOD: ZeroTPrune(),
}
"""Instances by name, the default first."""


def method_of(config: PruningConfig) -> Method:
    """The method that a configuration is of."""
    return METHODS[config.method]


def parse_config(data: Any, where: str = "config") -> PruningConfig:
    """Read a configuration of any method from its JSON form.

    Args:
        data: may name its method under "method".
        where: what errors call it.

    Raises:
        ConfigError: the method is unknown, or its configuration is malformed.
    """
    name = DEFAULT_METHOD
    if isinstance(data, Mapping) and "method" in data:
        name = data["method"]
        data = {key: value for key, value in data.items() if key != "method"}
        if not isinstance(name, str) or name not in METHODS:
            raise ConfigError(
                f"{where}.method must be one of {', '.join(METHODS)}, but got {name!r}"
            )
    return METHODS[name].parse(data, where)


__all__ = [
    "DEFAULT_METHOD", "METHODS", "Coordinate", "LayerRanges", "Method", "Sight", "Values",
    "ZeroTPrune", "method_of", "parse_config",
]  # fmt: skip
