"""The parameters of a study's trials, the same for each, as Optuna's tables have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import FloatDistribution, IntDistribution, distribution_to_json

from ztp_search.pruning.config import PruningConfig

NEUTRAL: dict[str, float] = {"retention": 1.0, "s_tokens": 0, "wpr_iterations": 1}
"""A block's parameters where no layer stands: those of a layer that prunes nothing."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter's range, and its JSON."""

    low: float
    high: float
    text: str


def parameters_of(
    blocks: Sequence[int], ranges: Mapping[str, tuple[float, float]]
) -> dict[str, Parameter]:
    """By name; one range for every trial, so that Optuna's importances and plots work."""
    out: dict[str, Parameter] = {}
    for block in sorted(blocks):
        for field, neutral in NEUTRAL.items():
            low, high = ranges[f"block{block:02d}.{field}"]
            low, high = min(low, neutral), max(high, neutral)
            out[f"block{block:02d}.{field}"] = _parameter(
                FloatDistribution(low, high)
                if field == "retention"
                else IntDistribution(int(low), int(high))
            )
    for name in ("v_min", "v_max"):
        out[name] = _parameter(FloatDistribution(*ranges[name]))
    return out


def _parameter(distribution: FloatDistribution | IntDistribution) -> Parameter:
    return Parameter(distribution.low, distribution.high, distribution_to_json(distribution))


def parameter_rows(
    config: PruningConfig, parameters: Mapping[str, Parameter]
) -> list[dict[str, Any]]:
    """Rows of the parameter table, one for every parameter of the study."""
    values: dict[str, float] = {"v_min": config.v_min, "v_max": config.v_max}
    for layer in config.layers:
        for field in NEUTRAL:
            values[f"block{layer.after_block:02d}.{field}"] = getattr(layer, field)
    rows = []
    for name, each in parameters.items():
        value = values.pop(name) if name in values else NEUTRAL[name.partition(".")[2]]
        if not each.low <= value <= each.high:
            raise ValueError(f"{name} = {value} is outside its range: {each.low} to {each.high}")
        rows.append(
            {"param_name": name, "param_value": float(value), "distribution_json": each.text}
        )
    if values:
        raise ValueError(f"{', '.join(values)}: no pruning layer of this study may stand there")
    return rows
