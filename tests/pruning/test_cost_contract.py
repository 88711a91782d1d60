"""What every cost model must keep to; a new one joins by its line in `COST_MODELS`."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from helpers.geometries import GEOMETRIES, macs_by_hand, size_of

from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.pruning.costs import COST_MODELS, CostModel
from ztp_search.pruning.costs.base import LayerCost
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.tokens import token_counts


class TimeTable(CostModel):
    """Nanoseconds as one would measure them, in steps: what a latency budget would rest on."""

    name = "time-table"
    unit = "ms"
    per_unit = 10**6

    def block(self, tokens: int) -> int:
        return 20_000 + 5_000 * -(-tokens // 8)  # a kernel that works on eight tokens at a time

    def fixed(self) -> int:
        return 90_000

    def tail(self, tokens: int) -> int:
        return 40 * tokens

    def layer_cost(self, config: PruningConfig) -> LayerCost:
        if self.counts != "total":
            return lambda _patch_tokens, _kept, _values: 0
        return lambda patch_tokens, kept, _values: 700 * patch_tokens if kept < patch_tokens else 0


MEMBERS: Mapping[str, type[CostModel]] = {**COST_MODELS, "time-table": TimeTable}
ALL = pytest.mark.parametrize("name", MEMBERS)
MODELS = pytest.mark.parametrize("geometry", GEOMETRIES, ids=size_of)
CONFIG = PruningConfig((PruningLayer(2, 0.9, 5, 3), PruningLayer(4, 0.7, 0, 9)))
MERGED = PruningConfig(
    (PruningLayer(2, 0.9, 5, 3, merge_share=0.4), PruningLayer(4, 0.7, 0, 9, merge_share=1.0)),
    similar="merge", sizes="track", partition="position",
)  # fmt: skip
CONFIGS = pytest.mark.parametrize("config", [CONFIG, MERGED], ids=["dropped", "merged"])


@ALL
@MODELS
def test_it_has_the_name_that_it_is_found_by_and_a_unit(name: str, geometry: Geometry) -> None:
    model = MEMBERS[name](geometry)
    assert model.name == name and model.unit and model.per_unit > 0


@ALL
@MODELS
def test_costs_are_integers_that_never_fall_with_a_token(name: str, geometry: Geometry) -> None:
    model = MEMBERS[name](geometry)
    for cost_of in (model.block, model.tail):
        costs = [cost_of(n) for n in range(geometry.tokens + 1)]
        assert all(type(cost) is int and cost >= 0 for cost in costs)
        assert costs == sorted(costs)
    assert type(model.fixed()) is int and model.fixed() >= 0


@ALL
@MODELS
@CONFIGS
def test_the_total_is_the_sum_of_its_parts(
    name: str, geometry: Geometry, config: PruningConfig
) -> None:
    model = MEMBERS[name](geometry)
    tokens = token_counts(geometry, config)
    prefix = geometry.prefix_tokens
    parts = model.fixed() + model.tail(tokens[-1]) + sum(model.block(n) for n in tokens[:-1])
    for layer in config.layers:
        n_in, n_out = tokens[layer.after_block - 1], tokens[layer.after_block]
        values = (layer.s_tokens, layer.wpr_iterations, layer.merge_share)
        parts += model.layer_cost(config)(n_in - prefix, n_out - prefix, values)
    assert model.total(config) == parts


@ALL
@MODELS
def test_without_layers_it_is_the_unpruned_model(name: str, geometry: Geometry) -> None:
    model = MEMBERS[name](geometry)
    assert model.total(PruningConfig()) == model.unpruned()
    assert MEMBERS[name](geometry, "backbone").total(CONFIG) < model.unpruned()


@ALL
@MODELS
def test_the_backbone_alone_leaves_out_what_layers_add(name: str, geometry: Geometry) -> None:
    total: CostModel = MEMBERS[name](geometry)
    backbone = MEMBERS[name](geometry, "backbone")
    for config in (CONFIG, MERGED):
        assert backbone.layer_cost(config)(50, 40, (5, 3, 1.0)) == 0
        assert backbone.total(config) <= total.total(config)
    assert backbone.total(CONFIG) == backbone.total(MERGED)  # the same tokens
    assert backbone.unpruned() == total.unpruned()


@MODELS
@CONFIGS
def test_gflops_are_those_of_the_published_formulas(
    geometry: Geometry, config: PruningConfig
) -> None:
    backbone, overhead = macs_by_hand(geometry, config)
    assert COST_MODELS["gflops"](geometry).total(config) == backbone + overhead
    assert COST_MODELS["gflops"](geometry, "backbone").total(config) == backbone
