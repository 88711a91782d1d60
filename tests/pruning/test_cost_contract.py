"""What every cost model must keep to; a new one joins by its line in `COST_MODELS`."""

from __future__ import annotations

import pytest
from helpers.geometries import GEOMETRIES, macs_by_hand, size_of

from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.pruning.costs import COST_MODELS, CostModel
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.tokens import token_counts

ALL = pytest.mark.parametrize("name", COST_MODELS)
MODELS = pytest.mark.parametrize("geometry", GEOMETRIES, ids=size_of)
CONFIG = PruningConfig((PruningLayer(2, 0.9, 5, 3), PruningLayer(4, 0.7, 0, 9)))


@ALL
@MODELS
def test_it_has_the_name_that_it_is_found_by_and_a_unit(name: str, geometry: Geometry) -> None:
    model = COST_MODELS[name](geometry)
    assert model.name == name and model.unit and model.per_unit > 0


@ALL
@MODELS
def test_costs_are_integers_that_never_fall_with_a_token(name: str, geometry: Geometry) -> None:
    model = COST_MODELS[name](geometry)
    for cost_of in (model.block, model.tail):
        costs = [cost_of(n) for n in range(geometry.tokens + 1)]
        assert all(type(cost) is int and cost >= 0 for cost in costs)
        assert costs == sorted(costs)
    assert type(model.fixed()) is int and model.fixed() >= 0


@ALL
@MODELS
def test_the_total_is_the_sum_of_its_parts(name: str, geometry: Geometry) -> None:
    model = COST_MODELS[name](geometry)
    tokens = token_counts(geometry, CONFIG)
    prefix = geometry.prefix_tokens
    parts = model.fixed() + model.tail(tokens[-1]) + sum(model.block(n) for n in tokens[:-1])
    for layer in CONFIG.layers:
        n_in, n_out = tokens[layer.after_block - 1], tokens[layer.after_block]
        knobs = (layer.s_tokens, layer.wpr_iterations)
        parts += model.layer_cost(CONFIG)(n_in - prefix, n_out - prefix, knobs)
    assert model.total(CONFIG) == parts


@ALL
@MODELS
def test_without_layers_it_is_the_unpruned_model(name: str, geometry: Geometry) -> None:
    model = COST_MODELS[name](geometry)
    assert model.total(PruningConfig()) == model.unpruned() > model.total(CONFIG)


@ALL
@MODELS
def test_the_backbone_alone_leaves_out_what_layers_add(name: str, geometry: Geometry) -> None:
    total: CostModel = COST_MODELS[name](geometry)
    backbone = COST_MODELS[name](geometry, "backbone")
    assert backbone.layer_cost(CONFIG)(50, 40, (5, 3)) == 0
    assert backbone.total(CONFIG) <= total.total(CONFIG)
    assert backbone.unpruned() == total.unpruned()


@MODELS
def test_gflops_are_those_of_the_published_formulas(geometry: Geometry) -> None:
    backbone, overhead = macs_by_hand(geometry, CONFIG)
    assert COST_MODELS["gflops"](geometry).total(CONFIG) == backbone + overhead
    assert COST_MODELS["gflops"](geometry, "backbone").total(CONFIG) == backbone
