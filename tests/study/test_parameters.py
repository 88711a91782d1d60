"""Parameters of a study: one range for every trial, numbers and names."""

from __future__ import annotations

import json

import pytest
from helpers.studies import BLOCKS, RANGES, config_of

from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.study.parameters import parameter_rows, parameters_of

NUMBERS = ("retention", "s_tokens", "wpr_iterations", "merge_share")


def test_every_block_has_its_numbers_and_variants_their_names() -> None:
    parameters = parameters_of(BLOCKS, RANGES)
    blocks = [f"block{block:02d}.{name}" for block in BLOCKS for name in NUMBERS]
    assert list(parameters) == [*blocks, "sizes", "v_min", "v_max"]
    kinds = {name: json.loads(each.text)["name"] for name, each in parameters.items()}
    assert kinds["block03.merge_share"] == kinds["v_max"] == "FloatDistribution"
    assert kinds["block03.s_tokens"] == "IntDistribution"
    assert json.loads(parameters["sizes"].text)["attributes"] == {"choices": ["ignore", "track"]}


def test_ranges_hold_the_values_of_a_block_without_a_layer() -> None:
    parameters = parameters_of(BLOCKS, {**RANGES, "block03.merge_share": (0.5, 0.75)})
    attributes = json.loads(parameters["block03.merge_share"].text)["attributes"]
    assert (attributes["low"], attributes["high"]) == (0.0, 0.75)


def test_names_are_stored_as_their_place_among_the_choices() -> None:
    parameters = parameters_of(BLOCKS, RANGES)
    for number, place in ((0, 0.0), (1, 1.0)):  # sizes are tracked in every other one
        rows = parameter_rows(config_of(number), parameters)
        values = {row["param_name"]: row["param_value"] for row in rows}
        assert values.keys() == parameters.keys()
        assert values["sizes"] == place
        assert values["block03.merge_share"] == 0.25 and values["block07.merge_share"] == 0.0


def test_values_outside_the_study_are_refused_by_name() -> None:
    parameters = parameters_of(BLOCKS, {**RANGES, "sizes": ("ignore",)})
    with pytest.raises(ValueError, match="sizes = 'track' is none of ignore"):
        parameter_rows(PruningConfig(sizes="track"), parameters)
    layer = PruningLayer(7, merge_share=0.75)
    with pytest.raises(ValueError, match="block07.merge_share = 0.75 is outside .*0.0 to 0.5"):
        parameter_rows(PruningConfig((layer,), v_min=0.25), parameters)
