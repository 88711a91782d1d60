"""The configuration file: what it says is what the rates give, or it is refused by name."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.messages import one_line

from ztp_search.errors import ConfigError
from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.pruning.config_file import ConfigFile, load_config, read_config_file
from ztp_search.pruning.geometry import Geometry

# A toy: 4 blocks, 10 patch tokens and a class token. A block on N tokens costs 100 N + N * N.
GEOMETRY: dict[str, Any] = {
    "depth": 4, "heads": 2, "embed_dim": 8, "attn_dim": 8, "patch_tokens": 10, "prefix_tokens": 1,
    "class_token": True, "block_macs_per_token": 100, "block_macs_per_pair": 1,
    "stem_macs": 1000, "tail_macs_per_token": 40, "tail_macs": 60,
}  # fmt: skip
# After block 1 a rate of 0.7 leaves 7 of 10; after block 3 half of 7 is 3.5, so 4, less 2 by
# similarity: 2.
CONFIG: dict[str, Any] = {
    "layers": [
        {"after_block": 1, "retention": 0.7, "wpr_iterations": 3},
        {"after_block": 3, "retention": 0.5, "s_tokens": 2, "wpr_iterations": 5},
    ]
}
TOKENS = [11, 8, 8, 3, 3]
# Blocks: 11 * 111 = 1221, twice 8 * 108 = 864, 3 * 103 = 309; with stem 1000 and tail
# 40 * 3 + 60 = 180 that makes 4438. Pruning: 3 iterations * 2 heads * 11 * 11 = 726; then one
# iteration for I' and 5 for I on 8 tokens, 6 * 2 * 64 = 768, and 3 * 4 pairs of width 8, 96.
# Unpruned: 1000 + 4 * 1221 + 40 * 11 + 60 = 6384.
GFLOPS = {"total": 6028e-9, "backbone": 4438e-9, "overhead": 1590e-9, "unpruned": 6384e-9}
MINIMAL: dict[str, Any] = {
    "format": "ztp-search/pruning-config", "version": 1, "config": {"layers": []}
}  # fmt: skip
FULL: dict[str, Any] = MINIMAL | {
    "model": {"name": "toy", "kwargs": {}, "geometry": GEOMETRY},
    "config": CONFIG,
    "tokens": TOKENS,
    "gflops": GFLOPS,
    "evidence": {"holdout": {"images": 3, "top1": 0.5}},
    "provenance": {"seed": 0},
}


def write(folder: Path, data: Any) -> Path:
    path = folder / "config.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return path


def changed(data: dict[str, Any], keys: str, value: Any) -> dict[str, Any]:
    """A copy in which the value at `a.b.0.c` is another."""
    out = copy.deepcopy(data)
    inner: Any = out
    *parents, last = (int(key) if key.isdigit() else key for key in keys.split("."))
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return out


def refusal(folder: Path, data: Any) -> str:
    with pytest.raises(ConfigError) as error:
        read_config_file(write(folder, data))
    return one_line(error)


MERGING: list[dict[str, Any]] = [
    changed(CONFIG, "layers.1.merge_share", 0.5),
    CONFIG | {"similar": "merge"},
    CONFIG | {"sizes": "track"},
    CONFIG | {"partition": "position"},
    changed(CONFIG, "layers.0.merge_share", 1.0) | {"similar": "merge", "sizes": "track"},
]
"""What files of version 1 could not say."""


# --- what is written and read back ---------------------------------------------------------------


def test_tokens_and_gflops_are_those_done_by_hand() -> None:
    file = ConfigFile(PruningConfig.from_dict(CONFIG), model=FULL["model"])
    document = file.to_dict()
    assert document["tokens"] == TOKENS
    assert document["gflops"] == pytest.approx(GFLOPS, rel=1e-12)
    assert file.geometry() == Geometry(**GEOMETRY)


def test_a_file_survives_writing_and_reading(tmp_path: Path) -> None:
    file = ConfigFile(
        PruningConfig.from_dict(CONFIG), FULL["model"], FULL["evidence"], FULL["provenance"]
    )
    again = read_config_file(write(tmp_path, file.dumps()))
    assert again == file
    assert again.dumps() == file.dumps()
    assert list(json.loads(file.dumps())) == [
        "format", "version", "model", "config", "tokens", "gflops", "evidence", "provenance",
    ]  # fmt: skip


def test_a_full_hand_written_file_is_read(tmp_path: Path) -> None:
    assert read_config_file(write(tmp_path, FULL)).config == PruningConfig.from_dict(CONFIG)


def test_a_hand_written_file_needs_only_layers(tmp_path: Path) -> None:
    layers = {"layers": [{"after_block": 3, "retention": 0.8, "s_tokens": 10}]}
    file = read_config_file(write(tmp_path, MINIMAL | {"config": layers}))
    assert file.config == PruningConfig((PruningLayer(3, 0.8, 10, 1),))
    assert file.geometry() is None
    assert file.to_dict().keys() == {"format", "version", "config"}


def test_load_config_gives_the_configuration_alone(tmp_path: Path) -> None:
    path = write(tmp_path, FULL)
    assert load_config(path) == load_config(str(path)) == PruningConfig.from_dict(CONFIG)


@pytest.mark.parametrize("config", MERGING, ids=str)
def test_what_version_1_could_not_say_is_written_as_version_2(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    file = ConfigFile(PruningConfig.from_dict(config), model=FULL["model"])
    assert file.to_dict()["version"] == 2
    assert file.to_dict()["tokens"] == TOKENS
    again = read_config_file(write(tmp_path, file.dumps()))
    assert again == file and again.dumps() == file.dumps()


def test_what_version_1_can_say_is_written_as_version_1() -> None:
    variant = {"features": "x", "metric": "manhattan", "order": "i-s", "aggregation": "max"}
    stated = {"similar": "drop", "sizes": "ignore", "partition": "sequential-u"}
    no_share = changed(CONFIG, "layers.0.merge_share", 0.0)
    for config in (CONFIG, CONFIG | variant, no_share | stated, {"layers": []}):
        document = ConfigFile(PruningConfig.from_dict(config)).to_dict()
        assert document["version"] == 1
        assert not {"similar", "sizes", "partition"} & document["config"].keys()
        assert all("merge_share" not in layer for layer in document["config"]["layers"])


def test_both_versions_are_read(tmp_path: Path) -> None:
    for version in (1, 2):
        file = read_config_file(write(tmp_path, FULL | {"version": version}))
        assert file.config == PruningConfig.from_dict(CONFIG)
        assert file.to_dict()["version"] == 1
    for config in MERGING:
        merging = MINIMAL | {"config": config}
        unnumbered = {key: value for key, value in merging.items() if key != "version"}
        for document in (merging | {"version": 2}, unnumbered):
            read = read_config_file(write(tmp_path, document)).config
            assert read == PruningConfig.from_dict(config)


def test_merging_costs_what_is_done_by_hand(tmp_path: Path) -> None:
    # After block 1 all of the 3 pruned are merged: each is compared with 7 that stay, 3 * 7 of
    # width 8 are 168, and means are (7 + 1) * 3 * 8 = 192. After block 3 S merges its 2, and of
    # the 3 that I prunes half, so 2: each is compared with 2 that stay, 3 * 2 * 8 = 48, and means
    # are (2 + 1) * 4 * 8 = 96. 168 + 192 + 48 + 96 = 504 more than 6028, the same tokens.
    config = changed(changed(CONFIG, "layers.0.merge_share", 1.0), "layers.1.merge_share", 0.5)
    config |= {"similar": "merge", "sizes": "track"}
    gflops = GFLOPS | {"total": 6532e-9, "overhead": 2094e-9}
    full = FULL | {"version": 2, "config": config, "gflops": gflops}
    read_config_file(write(tmp_path, full))
    assert "gflops.total" in refusal(tmp_path, full | {"gflops": GFLOPS})


# --- contradictions ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tokens",
    [
        [11, 8, 8, 3, 2],
        [11, 8, 8, 3],
        [11, 8, 8, 3, 3, 3],
        [10, 7, 7, 2, 2],  # without the class token
        [],
        "11 8 8 3 3",
        {"0": 11},
        11,
    ],
)
def test_tokens_that_contradict_the_rates_are_refused(tmp_path: Path, tokens: Any) -> None:
    message = refusal(tmp_path, FULL | {"tokens": tokens})
    for word in ("config.json", "tokens", str(tokens), str(TOKENS)):
        assert word in message


@pytest.mark.parametrize("key", GFLOPS)
@pytest.mark.parametrize("value", [3.08, 0, -1.0, None, "6", True, [1], float("inf"), 10**400])
def test_gflops_that_contradict_the_rates_are_refused(
    tmp_path: Path, key: str, value: Any
) -> None:
    text = json.dumps(changed(FULL, f"gflops.{key}", value)).replace("Infinity", "1e999")
    message = refusal(tmp_path, text)
    assert "config.json" in message and f"gflops.{key}" in message


def test_gflops_that_are_no_number_are_refused_where_the_value_is_zero(tmp_path: Path) -> None:
    unpruned = FULL | {"config": {"layers": []}, "tokens": [11] * 5}
    for value in (False, True, "0"):
        assert "gflops.overhead" in refusal(tmp_path, unpruned | {"gflops": {"overhead": value}})
    read_config_file(write(tmp_path, unpruned | {"gflops": {"overhead": 0}}))


def test_some_of_the_gflops_may_be_left_out(tmp_path: Path) -> None:
    read_config_file(write(tmp_path, FULL | {"gflops": {"total": GFLOPS["total"]}}))
    without = {key: value for key, value in FULL.items() if key not in ("tokens", "gflops")}
    read_config_file(write(tmp_path, without))


def test_a_changed_rate_contradicts_the_counts(tmp_path: Path) -> None:
    # 0.74 * 10 still rounds to 7 tokens, 0.75 * 10 to 8.
    read_config_file(write(tmp_path, changed(FULL, "config.layers.0.retention", 0.74)))
    message = refusal(tmp_path, changed(FULL, "config.layers.0.retention", 0.75))
    assert "[11, 9, 9," in message


def test_layers_that_the_model_does_not_have_are_refused(tmp_path: Path) -> None:
    for block in (4, 5, 12):
        message = refusal(tmp_path, changed(FULL, "config.layers.1.after_block", block))
        assert "after_block" in message and str(block) in message and "4 blocks" in message


def test_more_s_tokens_than_one_half_are_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, changed(FULL, "config.layers.1.s_tokens", 4))  # half of 7 is 3
    assert "s_tokens" in message and "4" in message and "3" in message


# --- unknown, missing, of a wrong kind -----------------------------------------------------------


@pytest.mark.parametrize("where", ["", "model", "model.geometry", "config", "gflops"])
def test_unknown_keys_are_refused_by_name(tmp_path: Path, where: str) -> None:
    message = refusal(tmp_path, changed(FULL, f"{where}.colour".lstrip("."), 1))
    assert "'colour'" in message and "unknown" in message
    assert where.rsplit(".")[-1] in message


def test_an_unknown_key_of_a_layer_is_refused_by_name(tmp_path: Path) -> None:
    message = refusal(tmp_path, changed(FULL, "config.layers.1.rate", 0.5))
    assert "'rate'" in message and "layers[1]" in message and "retention" in message


@pytest.mark.parametrize("key", ["config"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    message = refusal(tmp_path, {k: v for k, v in MINIMAL.items() if k != key})
    assert f"'{key}'" in message and "missing" in message


def test_a_missing_size_of_the_model_is_named(tmp_path: Path) -> None:
    geometry = {key: value for key, value in GEOMETRY.items() if key != "heads"}
    assert "'heads'" in refusal(tmp_path, changed(FULL, "model.geometry", geometry))


@pytest.mark.parametrize("value", [3, 0, -1, "1", "2", None, True, 1.0, 2.0, [1]])
def test_another_version_is_refused(tmp_path: Path, value: Any) -> None:
    message = refusal(tmp_path, MINIMAL | {"version": value})
    assert "config.json: version must be 1 or 2" in message and repr(value) in message


@pytest.mark.parametrize("value", ["ztp-search/space", "", None, 1, ["ztp-search/pruning-config"]])
def test_another_format_is_refused(tmp_path: Path, value: Any) -> None:
    message = refusal(tmp_path, MINIMAL | {"format": value})
    assert "format must be 'ztp-search/pruning-config'" in message and repr(value) in message


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        ("config", [], ["config", "mapping", "[]"]),
        ("config", None, ["config", "mapping", "None"]),
        ("model", "deit", ["model", "mapping", "'deit'"]),
        ("model", None, ["model", "mapping", "None"]),
        ("gflops", 3.08, ["gflops", "mapping", "3.08"]),
        ("evidence", [1], ["evidence", "mapping", "[1]"]),
        ("provenance", 7, ["provenance", "mapping", "7"]),
        ("model.geometry", [], ["geometry", "mapping", "[]"]),
        ("model.geometry.depth", True, ["geometry.depth", "integer", "True"]),
        ("model.geometry.depth", 4.0, ["geometry.depth", "integer", "4.0"]),
        ("model.geometry.heads", "2", ["geometry.heads", "integer", "'2'"]),
        ("model.geometry.class_token", 1, ["geometry.class_token", "true or false", "1"]),
        ("config.layers", None, ["config.layers", "list", "None"]),
        ("config.layers.0", 3, ["config.layers[0]", "mapping", "3"]),
        ("config.layers.0.after_block", True, ["after_block", "integer", "True"]),
        ("config.layers.0.retention", True, ["retention", "number", "True"]),
        ("config.layers.0.wpr_iterations", False, ["wpr_iterations", "integer", "False"]),
        ("config.layers.1.s_tokens", True, ["s_tokens", "integer", "True"]),
        ("config.layers.1.s_tokens", 2.0, ["s_tokens", "integer", "2.0"]),
        ("config.v_min", False, ["v_min", "number", "False"]),
        ("config.variant", "tome", ["variant", "zero-tprune", "'tome'"]),
        ("config.layers.0.merge_share", True, ["merge_share", "number", "True"]),
        ("config.layers.0.merge_share", 1.5, ["merge_share", "1.5"]),
        ("config.similar", "average", ["similar", "merge", "'average'"]),
        ("config.sizes", True, ["sizes", "track", "True"]),
    ],
)
def test_a_value_of_a_wrong_kind_is_refused(
    tmp_path: Path, keys: str, value: Any, words: list[str]
) -> None:
    message = refusal(tmp_path, changed(FULL, keys, value))
    for word in words:
        assert word in message


# --- no JSON, no file ----------------------------------------------------------------------------


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_nan_and_infinity_are_no_json(tmp_path: Path, constant: str) -> None:
    text = json.dumps(changed(FULL, "config.v_max", "HERE")).replace('"HERE"', constant)
    message = refusal(tmp_path, text)
    assert "config.json" in message and constant in message


def test_numbers_beyond_floats_are_refused(tmp_path: Path) -> None:
    for value in ("1e999", "1" + "0" * 400):
        text = json.dumps(changed(FULL, "config.v_max", "HERE")).replace('"HERE"', value)
        assert "v_max" in refusal(tmp_path, text)


@pytest.mark.parametrize(
    "text", ["", "{", "{'format': 1}", "pruning: all", '{"format": 1,}', "[" * 100_000, "{} {}"]
)
def test_what_is_no_json_is_refused(tmp_path: Path, text: str) -> None:
    message = refusal(tmp_path, text)
    assert "config.json" in message and "JSON" in message


@pytest.mark.parametrize("text", ["[]", "3", "null", '"text"', "true"])
def test_json_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    message = refusal(tmp_path, text)
    assert "config.json" in message and "mapping" in message


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ConfigError) as error:
        read_config_file(path)
    assert "config.json" in one_line(error)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.json", tmp_path):
        with pytest.raises(ConfigError) as error:
            read_config_file(path)
        assert str(path) in one_line(error) and "cannot be read" in one_line(error)


def test_the_layers_alone_are_enough(tmp_path: Path) -> None:
    file = read_config_file(write(tmp_path, {"config": {"layers": [{"after_block": 2}]}}))
    assert [layer.after_block for layer in file.config.layers] == [2]


DATA = {
    "source": "digits", "split": None, "holdout_split": None, "class_map": None, "config": {},
    "seed": 0, "skip_unreadable": False, "images": {"count": 3, "sha256": "ab"},
    "holdout": {"count": 0, "sha256": None},
}  # fmt: skip
RUNTIME = {"device": "cpu", "precision": "bf16", "batch_size": 8, "threads": 1}


@pytest.mark.parametrize(
    ("key", "wrong", "words"),
    [
        ("model.name", 3, "must be text"),
        ("model.kwargs", None, "must be a mapping"),
        ("model.weights", [], "must be text"),
        ("model.num_classes", "ten", "must be an integer"),
        ("provenance.data", "digits", "must be a mapping"),
        ("provenance.data", {}, "key 'source' is missing"),
        ("provenance.data.source", None, "must be text"),
        ("provenance.data.seed", -1, "must be 0 or above"),
        ("provenance.data.skip_unreadable", 0, "must be true or false"),
        ("provenance.data.images", 3, "must be a mapping"),
        ("provenance.data.images.count", True, "must be an integer"),
        ("provenance.data.holdout.sha256", 3, "must be text"),
        ("provenance.runtime", [], "must be a mapping"),
        ("provenance.runtime.batch_size", 0, "must be 1 or above"),
        ("provenance.runtime.precision", None, "must be text"),
    ],
)
def test_a_value_of_a_wrong_kind_is_named(
    tmp_path: Path, key: str, wrong: object, words: str
) -> None:
    full = FULL | {"provenance": {"data": DATA, "runtime": RUNTIME, "trial": 7}}
    read_config_file(write(tmp_path, full))
    message = refusal(tmp_path, changed(full, key, wrong))
    assert "config.json" in message and key in message and words in message


@pytest.mark.parametrize("size", [name for name in GEOMETRY if name != "class_token"])
@pytest.mark.parametrize("value", [-1, 10**16, 10**400])
def test_sizes_that_no_model_has_are_refused_before_anything_is_counted(
    tmp_path: Path, size: str, value: int
) -> None:
    text = json.dumps(changed(FULL, f"model.geometry.{size}", value))
    assert f"model.geometry.{size}" in refusal(tmp_path, text)


def test_messages_quote_no_more_of_a_value_than_can_be_read(tmp_path: Path) -> None:
    message = refusal(tmp_path, changed(FULL, "config.variant", "x" * 1_000_000))
    assert "variant must be one of" in message and len(message) < 2_000
