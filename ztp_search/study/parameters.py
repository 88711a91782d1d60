"""The parameters of a study's trials, the same for each, as Optuna's tables have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import FloatDistribution, IntDistribution, distribution_to_json

from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.methods import DEFAULT_METHOD, METHODS, Method, method_of


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter's range, and its JSON."""

    low: float
    high: float
    text: str


def parameters_of(
    blocks: Sequence[int],
    ranges: Mapping[str, tuple[float, float]],
    method: Method = METHODS[DEFAULT_METHOD],
) -> dict[str, Parameter]:
    """The parameters by name; one range for every trial, as Optuna's importances need it.

    Args:
        blocks: every block that a pruning layer may follow.
        ranges: least and most of each parameter, by name; widened to hold the value of a block
            where no layer stands.
        method: says which parameters there are.
    """
    out: dict[str, Parameter] = {}
    for block in sorted(blocks):
        for field, neutral in method.neutral.items():
            low, high = ranges[f"block{block:02d}.{field}"]
            low, high = min(low, neutral), max(high, neutral)
            out[f"block{block:02d}.{field}"] = _parameter(
                FloatDistribution(low, high)
                if field == "retention"
                else IntDistribution(int(low), int(high))
            )
    for name in method.scales:
        out[name] = _parameter(FloatDistribution(*ranges[name]))
    return out


def _parameter(distribution: FloatDistribution | IntDistribution) -> Parameter:
    return Parameter(distribution.low, distribution.high, distribution_to_json(distribution))


def parameter_rows(
    config: PruningConfig, parameters: Mapping[str, Parameter]
) -> list[dict[str, Any]]:
    """Rows of the parameter table, one for every parameter of the study."""
    method = method_of(config)
    neutral = method.neutral
    values: dict[str, float] = {name: getattr(config, name) for name in method.scales}
    for layer in config.layers:
        for field in neutral:
            values[f"block{layer.after_block:02d}.{field}"] = getattr(layer, field)
    rows = []
    for name, each in parameters.items():
        value = values.pop(name) if name in values else neutral[name.partition(".")[2]]
        if not each.low <= value <= each.high:
            raise ValueError(f"{name} = {value} is outside its range: {each.low} to {each.high}")
        rows.append(
            {"param_name": name, "param_value": float(value), "distribution_json": each.text}
        )
    if values:
        raise ValueError(f"{', '.join(values)}: no pruning layer of this study may stand there")
    return rows
