"""A configuration checks itself when it is made, and keeps through its JSON form."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from typing import Any

import pytest
from helpers.messages import one_line
from hypothesis import given
from hypothesis import strategies as st

from ztp_search.errors import ConfigError, SpaceError
from ztp_search.pruning.config import CHOICES, PruningConfig, PruningLayer, check_keys

thresholds = st.floats(0, 1e6)


@st.composite
def configs(draw: st.DrawFn) -> PruningConfig:
    """Any valid configuration."""
    blocks = sorted(draw(st.sets(st.integers(1, 48), max_size=8)))
    layers = tuple(
        PruningLayer(
            block,
            draw(st.floats(0, 1, exclude_min=True)),
            draw(st.integers(0, 500)),
            draw(st.integers(1, 100)),
            draw(st.floats(0, 1)),
        )
        for block in blocks
    )
    v_min, v_max = sorted((draw(thresholds), draw(thresholds)))
    names: dict[str, Any] = {k: draw(st.sampled_from(v)) for k, v in CHOICES.items()}
    return PruningConfig(layers, v_min=v_min, v_max=v_max, **names)


def test_defaults_are_the_method_s() -> None:
    config = PruningConfig()
    assert config.layers == ()
    assert (config.v_min, config.v_max) == (0.01, 12.5)
    assert {name: getattr(config, name) for name in CHOICES} == {
        "variant": "zero-tprune", "partition": "sequential-u", "features": "key",
        "metric": "cosine", "order": "i'-s-i", "aggregation": "eir", "similar": "drop",
        "sizes": "ignore",
    }  # fmt: skip
    assert PruningLayer(3) == PruningLayer(
        3, retention=1.0, s_tokens=0, wpr_iterations=1, merge_share=0.0
    )


def test_configurations_cannot_be_changed() -> None:
    for item, name in ((PruningLayer(3), "retention"), (PruningConfig(), "v_min")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(item, name, 0.5)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ({"after_block": 0}, ["after_block", "0", "1 <= after_block <= 1000"]),
        ({"after_block": -3}, ["after_block", "-3"]),
        ({"after_block": True}, ["after_block", "integer", "True"]),
        ({"after_block": 3.0}, ["after_block", "integer", "3.0"]),
        ({"after_block": "3"}, ["after_block", "integer", "'3'"]),
        ({"after_block": None}, ["after_block", "integer", "None"]),
        ({"retention": 0.0}, ["retention", "0.0", "block 3"]),
        ({"retention": -0.1}, ["retention", "-0.1"]),
        ({"retention": 1.0000001}, ["retention", "1.0000001"]),
        ({"retention": math.nan}, ["retention", "nan"]),
        ({"retention": math.inf}, ["retention", "inf"]),
        ({"retention": True}, ["retention", "number", "True"]),
        ({"retention": "0.9"}, ["retention", "number", "'0.9'"]),
        ({"after_block": 1001}, ["after_block", "1001"]),
        ({"s_tokens": 1_000_001}, ["s_tokens", "1000001", "block 3"]),
        ({"wpr_iterations": 10_001}, ["wpr_iterations", "10001", "block 3"]),
        ({"s_tokens": -1}, ["s_tokens", "-1", "block 3"]),
        ({"s_tokens": False}, ["s_tokens", "integer", "False"]),
        ({"s_tokens": 1.0}, ["s_tokens", "integer", "1.0"]),
        ({"wpr_iterations": 0}, ["wpr_iterations", "0", "block 3"]),
        ({"wpr_iterations": 5.0}, ["wpr_iterations", "integer", "5.0"]),
        ({"wpr_iterations": True}, ["wpr_iterations", "integer", "True"]),
        ({"merge_share": -0.1}, ["merge_share", "-0.1", "block 3"]),
        ({"merge_share": 1.0000001}, ["merge_share", "1.0000001"]),
        ({"merge_share": 50}, ["merge_share", "50"]),
        ({"merge_share": math.nan}, ["merge_share", "nan"]),
        ({"merge_share": math.inf}, ["merge_share", "inf"]),
        ({"merge_share": True}, ["merge_share", "number", "True"]),
        ({"merge_share": "0.5"}, ["merge_share", "number", "'0.5'"]),
        ({"merge_share": None}, ["merge_share", "number", "None"]),
    ],
)
def test_a_wrong_layer_is_refused_with_field_and_value(
    layer: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        PruningLayer(**({"after_block": 3} | layer))
    for word in words:
        assert word in one_line(error)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"layers": (PruningLayer(3), PruningLayer(3))}, ["after_block", "[3, 3]"]),
        ({"layers": (PruningLayer(6), PruningLayer(3))}, ["ascend", "[6, 3]"]),
        ({"v_min": 2.0, "v_max": 1.0}, ["v_min <= v_max", "2.0", "1.0"]),
        ({"v_min": -0.1}, ["v_min", "-0.1"]),
        ({"v_min": math.nan}, ["v_min", "nan"]),
        ({"v_max": math.nan}, ["v_max", "nan"]),
        ({"v_max": math.inf}, ["v_max", "finite", "inf"]),
        ({"v_max": 10**400}, ["v_max", "finite"]),
        ({"v_min": -(10**400)}, ["v_min", "finite"]),
        ({"v_min": True}, ["v_min", "number", "True"]),
        ({"v_max": "12"}, ["v_max", "number", "'12'"]),
        ({"variant": "tome"}, ["variant", "zero-tprune", "'tome'"]),
        ({"metric": None}, ["metric", "cosine", "None"]),
        ({"order": ["i-s"]}, ["order", "i-s", "['i-s']"]),
        ({"similar": "average"}, ["similar", "drop", "merge", "'average'"]),
        ({"similar": True}, ["similar", "drop", "merge", "True"]),
        ({"sizes": "keep"}, ["sizes", "ignore", "track", "'keep'"]),
        ({"partition": "positions"}, ["partition", "position", "'positions'"]),
    ],
)
def test_a_wrong_configuration_is_refused_with_field_and_value(
    config: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as error:
        PruningConfig(**config)
    for word in words:
        assert word in one_line(error)


def test_the_json_form_by_hand() -> None:
    config = PruningConfig((PruningLayer(3, 0.8, 10, 5),), v_min=0.5, v_max=2, metric="euclidean")
    assert config.to_dict() == {
        "variant": "zero-tprune",
        "v_min": 0.5,
        "v_max": 2.0,
        "layers": [{"after_block": 3, "retention": 0.8, "s_tokens": 10, "wpr_iterations": 5}],
        "metric": "euclidean",
    }


def test_the_json_form_of_merging_by_hand() -> None:
    config = PruningConfig(
        (PruningLayer(3, 0.8, 10, 5, 0.25), PruningLayer(4, 1, 2)),
        similar="merge", sizes="track", partition="position",
    )  # fmt: skip
    assert config.to_dict() == {
        "variant": "zero-tprune",
        "v_min": 0.01,
        "v_max": 12.5,
        "layers": [
            {"after_block": 3, "retention": 0.8, "s_tokens": 10, "wpr_iterations": 5,
             "merge_share": 0.25},
            {"after_block": 4, "retention": 1.0, "s_tokens": 2, "wpr_iterations": 1},
        ],
        "partition": "position",
        "similar": "merge",
        "sizes": "track",
    }  # fmt: skip


def test_a_json_form_from_before_merging_means_what_it_meant() -> None:
    data = {
        "variant": "zero-tprune-uni", "v_min": 0.02, "v_max": 3.0, "order": "i-s",
        "layers": [{"after_block": 3, "retention": 0.8, "s_tokens": 10, "wpr_iterations": 5}],
    }  # fmt: skip
    config = PruningConfig.from_dict(data)
    assert config.layers[0].merge_share == 0.0
    assert (config.similar, config.sizes) == ("drop", "ignore")
    assert config.to_dict() == data
    layer = data["layers"][0] | {"merge_share": 0}
    stated = PruningConfig.from_dict(
        data | {"layers": [layer], "similar": "drop", "sizes": "ignore"}
    )
    assert stated == config and stated.to_dict() == data
    assert stated.digest() == config.digest()


@given(configs())
def test_a_configuration_survives_json(config: PruningConfig) -> None:
    again = PruningConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.digest() == config.digest()


def test_layers_alone_are_enough() -> None:
    assert PruningConfig.from_dict({"layers": []}) == PruningConfig()
    assert PruningConfig.from_dict({"layers": [{"after_block": 4}]}) == PruningConfig(
        (PruningLayer(4),)
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({}, ["config", "layers", "missing"]),
        ([], ["config", "mapping"]),
        (None, ["config", "mapping", "None"]),
        ("layers", ["config", "mapping", "'layers'"]),
        ({"layers": {}}, ["config.layers", "list", "{}"]),
        ({"layers": None}, ["config.layers", "list", "None"]),
        ({"layers": [], "vmin": 0.1}, ["config", "unknown", "'vmin'", "v_min"]),
        ({"layers": [], 3: 0.1}, ["config", "unknown", "3"]),
        ({"layers": [3]}, ["config.layers[0]", "mapping", "3"]),
        ({"layers": [{"retention": 0.5}]}, ["config.layers[0]", "after_block", "missing"]),
        (
            {"layers": [{"after_block": 1}, {"after_block": 2, "rate": 0.9}]},
            ["config.layers[1]", "unknown", "'rate'", "retention"],
        ),
        ({"layers": [{"after_block": 1, "retention": None}]}, ["retention", "None", "block 1"]),
        ({"layers": [{"after_block": 1, "merge_share": 2}]}, ["merge_share", "2", "block 1"]),
        ({"layers": [{"after_block": 1, "merge_share": "all"}]}, ["merge_share", "'all'"]),
        ({"layers": [], "merge_share": 0.5}, ["config", "unknown", "'merge_share'"]),
        ({"layers": [], "similar": None}, ["similar", "drop", "None"]),
        ({"layers": [], "sizes": "tracked"}, ["sizes", "track", "'tracked'"]),
        ({"layers": [], "v_min": None}, ["v_min", "None"]),
    ],
)
def test_a_wrong_json_form_is_refused_by_name(data: Any, words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        PruningConfig.from_dict(data)
    for word in words:
        assert word in one_line(error)


def test_the_digest_is_sha256_of_the_canonical_json() -> None:
    config = PruningConfig((PruningLayer(2, 0.5, 1, 3),), v_min=0, v_max=1)
    text = (
        '{"layers": [{"after_block": 2, "retention": 0.5, "s_tokens": 1, "wpr_iterations": 3}], '
        '"v_max": 1.0, "v_min": 0.0, "variant": "zero-tprune"}'
    )
    assert config.digest() == hashlib.sha256(text.encode()).hexdigest()


def test_whatever_differs_changes_the_digest() -> None:
    base = PruningConfig((PruningLayer(2, 0.5, 1, 3),))
    layer = base.layers[0]
    others = [
        dataclasses.replace(base, v_min=0.02),
        dataclasses.replace(base, v_max=12.0),
        *(dataclasses.replace(base, **{name: CHOICES[name][1]}) for name in CHOICES),
        *(
            dataclasses.replace(base, layers=(dataclasses.replace(layer, **change),))
            for change in (
                {"after_block": 3}, {"retention": 0.5001}, {"s_tokens": 2}, {"wpr_iterations": 4},
                {"merge_share": 0.01},
            )
        ),
    ]  # fmt: skip
    assert len({config.digest() for config in [base, *others]}) == 1 + len(others)


def test_whole_numbers_count_as_numbers() -> None:
    assert PruningConfig(v_min=0, v_max=1) == PruningConfig(v_min=0.0, v_max=1.0)
    assert PruningConfig(v_min=0, v_max=1).digest() == PruningConfig(v_min=0.0, v_max=1.0).digest()
    assert isinstance(PruningLayer(1, retention=1).retention, float)
    assert isinstance(PruningLayer(1, merge_share=1).merge_share, float)


def test_keys_are_checked_with_the_error_that_is_asked_for() -> None:
    with pytest.raises(SpaceError) as error:
        check_keys({"a": 1, "c": 2}, "file: part", {"a"}, {"b"}, SpaceError)
    assert one_line(error) == "file: part: unknown key 'c'; known are a, b"
    check_keys({"a": 1}, "file", {"a"}, {"b"})
    check_keys({"a": 1, "b": 2}, "file", {"a"}, {"b"})
