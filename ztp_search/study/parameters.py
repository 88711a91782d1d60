"""The parameters of a study's trials, the same for each, as Optuna's tables have them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)

from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.methods import DEFAULT_METHOD, METHODS, Method, method_of

Ranges = Mapping[str, Sequence[float] | Sequence[str]]
"""By a parameter's name: its least and most, or the names that it takes."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter's range, and its JSON."""

    distribution: FloatDistribution | IntDistribution | CategoricalDistribution
    text: str


def parameters_of(
    blocks: Sequence[int], ranges: Ranges, method: Method = METHODS[DEFAULT_METHOD]
) -> dict[str, Parameter]:
    """The parameters by name; one range for every trial, as Optuna's importances need it.

    Args:
        blocks: every block that a pruning layer may follow.
        ranges: of each parameter; those of numbers are widened to hold the value of a block where
            no layer stands.
        method: says which parameters there are.
    """
    out: dict[str, Parameter] = {}
    for block in sorted(blocks):
        for field, neutral in method.neutral.items():
            name = f"block{block:02d}.{field}"
            low, high = _ends(ranges[name])
            low, high = min(low, neutral), max(high, neutral)
            if isinstance(neutral, int):
                out[name] = _parameter(IntDistribution(int(low), int(high)))
            else:
                out[name] = _parameter(FloatDistribution(low, high))
    for name in method.choices:
        if name in ranges:
            out[name] = _parameter(CategoricalDistribution(tuple(map(str, ranges[name]))))
    for name in method.scales:
        out[name] = _parameter(FloatDistribution(*_ends(ranges[name])))
    return out


def _ends(numbers: Sequence[float] | Sequence[str]) -> tuple[float, float]:
    low, high = map(float, numbers)
    return low, high


def _parameter(
    distribution: FloatDistribution | IntDistribution | CategoricalDistribution,
) -> Parameter:
    return Parameter(distribution, distribution_to_json(distribution))


def named_values(config: PruningConfig) -> dict[str, Any]:
    """What a configuration states, under the names of its parameters."""
    method = method_of(config)
    values = {name: getattr(config, name) for name in (*method.scales, *method.choices)}
    for layer in config.layers:
        for field in method.neutral:
            values[f"block{layer.after_block:02d}.{field}"] = getattr(layer, field)
    return values


def every_value(config: PruningConfig, names: Collection[str]) -> dict[str, Any]:
    """The value of every parameter; of a block where no layer stands, what a layer does nothing by.

    Args:
        config: of the space whose parameters these are.
        names: of all parameters, as `parameters_of` has them.

    Raises:
        ValueError: a pruning layer stands where no parameter is for it.
    """
    method = method_of(config)
    stated = {
        name: value
        for name, value in named_values(config).items()
        if name in names or name not in method.choices  # which a space need not search
    }
    out = {
        name: stated.pop(name) if name in stated else method.neutral[name.partition(".")[2]]
        for name in names
    }
    if stated:
        raise ValueError(f"{', '.join(stated)}: no pruning layer of this study may stand there")
    return out


def parameter_rows(
    config: PruningConfig, parameters: Mapping[str, Parameter]
) -> list[dict[str, Any]]:
    """Rows of the parameter table, one for every parameter of the study."""
    return [
        {
            "param_name": name,
            "param_value": _stored(name, value, parameters[name].distribution),
            "distribution_json": parameters[name].text,
        }
        for name, value in every_value(config, parameters).items()
    ]


def _stored(
    name: str,
    value: Any,
    distribution: FloatDistribution | IntDistribution | CategoricalDistribution,
) -> float:
    """The value as the table has it: a number, or the place of a name among the choices."""
    if isinstance(distribution, CategoricalDistribution):
        if value not in distribution.choices:
            names = ", ".join(map(str, distribution.choices))
            raise ValueError(f"{name} = {value!r} is none of {names}")
        return float(distribution.to_internal_repr(value))
    if not distribution.low <= value <= distribution.high:
        raise ValueError(
            f"{name} = {value} is outside its range: {distribution.low} to {distribution.high}"
        )
    return float(value)
