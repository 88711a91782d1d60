"""Search-space files: those that are shipped, and how wrong ones are refused."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.messages import one_line
from helpers.spaces import DOCUMENT, PRUNING, space_of

from ztp_search.errors import SpaceError
from ztp_search.space import load_space, parse_space, shipped_spaces


def refusal(make: Callable[[], object]) -> str:
    with pytest.raises(SpaceError) as error:
        make()
    return one_line(error)


# --- the shipped spaces --------------------------------------------------------------------------

DEPTHS = {
    "any": 12, "deit_base": 12, "deit_small": 12, "deit_tiny": 12, "digits": 8, "vit_base": 12,
    "vit_small": 12,
}  # fmt: skip


PLAIN = "d697ff69202ec463dd173a7aadb4d26f8e893a79a67459ec314b545a521e50d7"
AUGREG = "cd3521b6e7b6c77ea612617448ac965d4304a4bf557fc55b12bcdc0dd3cf648e"
DIGESTS = {
    "any": PLAIN, "deit_base": PLAIN, "deit_small": PLAIN, "deit_tiny": PLAIN,
    "digits": "20498b45c9341f47e4551ffb9f4ad23cc1892e3131acbb37997ad7124a1d6ac3",
    "vit_base": AUGREG, "vit_small": AUGREG,
}  # fmt: skip


def test_the_shipped_spaces_are_these() -> None:
    assert list(shipped_spaces()) == sorted(DEPTHS)


@pytest.mark.parametrize("name", DEPTHS)
def test_every_shipped_space_can_be_bound_to_its_model(name: str) -> None:
    space = load_space(name)
    assert space.name == name and space.about
    blocks = space.blocks(DEPTHS[name])
    assert [block.block for block in blocks] == list(range(1, DEPTHS[name]))
    for block in blocks:
        assert 0 < block.retention[0] < block.retention[1] == 1.0
        assert block.s_tokens[0] == 0 < block.s_tokens[1]
        assert 1 <= block.wpr_iterations[0] <= block.wpr_iterations[1]
    assert space.v_min.high < space.v_max.low
    assert space.v_max.high > 6  # far above the paper's 0.7, which is of another scale
    assert 1 <= space.layers[0] < space.layers[1]


@pytest.mark.parametrize("name", DEPTHS)
def test_the_digests_of_the_shipped_spaces_stay(name: str) -> None:
    # Studies that were begun with a space can only be resumed while it has its digest.
    assert load_space(name).sha256 == DIGESTS[name]


@pytest.mark.parametrize("name", DEPTHS)
def test_every_shipped_range_says_why(name: str) -> None:
    # A comment stands above each range, or above the group it belongs to (v_max: v_min); a range
    # that a file does not state is that of its base.
    text = shipped_spaces()[name]
    lines = text.splitlines()
    for key in yaml.safe_load(text).get("pruning", {}).keys() - {"v_max"}:
        (at,) = (i for i, line in enumerate(lines) if line.startswith(f"  {key}:"))
        assert lines[at - 1].strip().startswith("#"), key


def test_the_papers_iterations_stand_in_the_first_middle_and_last_blocks() -> None:
    iterations = [block.wpr_iterations for block in load_space("deit_small").blocks(12)]
    assert iterations == 3 * [(30, 50)] + 5 * [(5, 10)] + 3 * [(1, 1)]


def test_only_the_space_for_any_model_names_none() -> None:
    for name in DEPTHS:
        space = load_space(name)
        assert bool(space.model) == bool(space.data) == (name != "any")


# --- what a file holds ----------------------------------------------------------------------------


def test_the_digest_follows_what_decides_sampling_alone() -> None:
    base = space_of()
    assert base.sha256 == hashlib.sha256(yaml.safe_dump(PRUNING).encode()).hexdigest()
    assert space_of("another name").sha256 == base.sha256
    assert parse_space(yaml.safe_dump(DOCUMENT | {"about": "words"}), "x").sha256 == base.sha256
    assert parse_space("# why\n" + yaml.safe_dump(DOCUMENT), "x").sha256 == base.sha256
    for change in ({"layers": [2, 5]}, {"v_min": [0.0, 0.4]}, {"order": "i-s"}):
        assert space_of(**change).sha256 != base.sha256


def test_a_users_file_is_read_like_a_shipped_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(DOCUMENT | {"about": "für mich\nallein"}), encoding="utf-8")
    space = load_space(str(path))
    assert space.name == str(path) and space.about == "für mich allein"
    assert space.sha256 == space_of().sha256


# --- wrong files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        ("format", "ztp-search/pruning-config", ["format", "'ztp-search/space'"]),
        ("format", None, ["format", "None"]),
        ("version", 2, ["version", "1", "2"]),
        ("version", "1", ["version", "'1'"]),
        ("version", True, ["version", "True"]),
        ("versoin", 1, ["unknown", "'versoin'", "version"]),
        ("pruning", None, ["pruning", "mapping", "None"]),
        ("pruning", [1], ["pruning", "mapping", "[1]"]),
        ("pruning.colour", 1, ["pruning", "unknown", "'colour'", "retention"]),
        ("pruning.layers", [3, 2], ["pruning.layers", "low <= high", "[3, 2]"]),
        ("pruning.layers", [0, 2], ["pruning.layers", "[0, 2]"]),
        ("pruning.layers", [1, 2, 3], ["pruning.layers", "[low, high]", "[1, 2, 3]"]),
        ("pruning.layers", [], ["pruning.layers", "[low, high]"]),
        ("pruning.layers", [1.0, 2.0], ["pruning.layers", "integers", "[1.0, 2.0]"]),
        ("pruning.layers", "2-6", ["pruning.layers", "integers", "'2-6'"]),
        ("pruning.layers", True, ["pruning.layers", "integers", "True"]),
        ("pruning.layers", None, ["pruning.layers", "None"]),
        ("pruning.layers", {"other": [1, 2]}, ["pruning.layers", "integers"]),
        ("pruning.retention", [0, 1], ["pruning.retention", "[0, 1]"]),
        ("pruning.retention", [-0.5, 1], ["pruning.retention", "[-0.5, 1]"]),
        ("pruning.retention", [0.5, 1.1], ["pruning.retention", "1.1"]),
        ("pruning.retention", 90, ["pruning.retention", "90"]),
        ("pruning.retention", [0.5, "1"], ["pruning.retention", "numbers", "'1'"]),
        ("pruning.retention", [float("nan"), 1.0], ["pruning.retention", "nan"]),
        ("pruning.retention", [0.5, float("inf")], ["pruning.retention", "inf"]),
        ("pruning.retention", [True, True], ["pruning.retention", "True"]),
        ("pruning.s_tokens", [-1, 5], ["pruning.s_tokens", "[-1, 5]"]),
        ("pruning.s_tokens", [0, 2.5], ["pruning.s_tokens", "integers", "2.5"]),
        ("pruning.s_tokens", 10**9, ["pruning.s_tokens", "1000000000"]),
        ("pruning.wpr_iterations", [0, 5], ["pruning.wpr_iterations", "[0, 5]"]),
        ("pruning.v_min", [0.5, 0.1], ["pruning.v_min", "low <= high", "[0.5, 0.1]"]),
        ("pruning.v_min", [-1, 0.1], ["pruning.v_min", "[-1, 0.1]"]),
        ("pruning.v_max", {"low": 1}, ["pruning.v_max", "'high'", "missing"]),
        ("pruning.v_max", {"low": 1, "high": 2, "base": 2}, ["pruning.v_max", "'base'"]),
        ("pruning.v_max", {"low": 1, "high": 2, "log": 1}, ["pruning.v_max", "log", "true", "1"]),
        ("pruning.v_min", {"low": 0, "high": 1, "log": True}, ["pruning.v_min", "log", "above 0"]),
        ("pruning.v_max", [0.4, 9], ["v_min", "v_max", "0.5", "0.4"]),
        ("pruning.v_max", [0.5, 9], ["v_min", "below", "v_max", "0.5"]),
        ("pruning.metric", "dot", ["pruning.metric", "cosine", "'dot'"]),
        ("pruning.variant", None, ["pruning.variant", "zero-tprune", "None"]),
        ("pruning.order", ["i-s", "s-i"], ["pruning.order", "'s-i'"]),
        ("pruning.order", ["i-s", "i-s"], ["pruning.order", "each once"]),
        ("pruning.order", [], ["pruning.order", "[]"]),
        ("pruning.similar", "melt", ["pruning.similar", "drop, merge", "'melt'"]),
        ("pruning.merge_share", [0.5, 1.5], ["pruning.merge_share", "[0.5, 1.5]"]),
        ("pruning.kept", [0.0, 1.0], ["pruning.kept", "0.0001"]),
        ("pruning.s_tokens", [0, "most"], ["pruning.s_tokens", "'most'"]),
        ("model", "deit", ["model", "mapping", "'deit'"]),
        ("model", {"kwargs": {}}, ["model", "'name'", "missing"]),
        ("model", {"name": 3}, ["model.name", "text", "3"]),
        ("model", {"name": "a", "kwargs": [1]}, ["model.kwargs", "mapping", "[1]"]),
        ("model", {"name": "a", "num_classes": "10"}, ["model.num_classes", "integer", "'10'"]),
        ("model", {"name": "a", "dept": 3}, ["model", "unknown", "'dept'"]),
        ("data", {"split": "test"}, ["data", "'source'", "missing"]),
        ("data", {"source": ["a"]}, ["data.source", "text", "['a']"]),
        ("data", [], ["data", "mapping", "[]"]),
        ("defaults", {"trials": 0}, ["defaults.trials", "0"]),
        ("defaults", {"trials": True}, ["defaults.trials", "True"]),
        ("defaults", {"images": 2.5}, ["defaults.images", "2.5"]),
        ("defaults", {"seed": 1}, ["defaults", "unknown", "'seed'", "trials"]),
        ("defaults", None, ["defaults", "None"]),
    ],
)
def test_a_wrong_value_is_refused_with_file_field_and_value(
    keys: str, value: Any, words: list[str]
) -> None:
    document = copy.deepcopy(DOCUMENT)
    inner = document
    *parents, last = keys.split(".")
    for key in parents:
        inner = inner[key]
    inner[last] = value
    message = refusal(lambda: parse_space(yaml.safe_dump(document), "mine.yaml"))
    for word in ["mine.yaml", *words]:
        assert word in message


@pytest.mark.parametrize(
    ("pruning", "words"),
    [
        ({"after_block": "some"}, ["after_block", "'all'", "'some'"]),
        ({"after_block": []}, ["after_block", "[]"]),
        ({"after_block": 3}, ["after_block", "3"]),
        ({"after_block": [3, True]}, ["after_block", "True"]),
        ({"after_block": [3, 2]}, ["after_block", "ascend", "[3, 2]"]),
        ({"after_block": [3, 3]}, ["after_block", "once", "[3, 3]"]),
        ({"s_tokens": {"all": 1}}, ["s_tokens", "'all'", "first 3"]),
        ({"s_tokens": {"first": 1, "other": 2}}, ["s_tokens", "'first'"]),
        ({"s_tokens": {"first -3": 1, "other": 2}}, ["s_tokens", "'first -3'"]),
        ({"s_tokens": {"first ²": 1, "other": 2}}, ["s_tokens", "'first ²'"]),
        ({"s_tokens": {0: 1, "other": 2}}, ["s_tokens", "'0'"]),
        ({"s_tokens": {-4: 1, "other": 2}}, ["s_tokens", "'-4'"]),
        ({"s_tokens": {"9-4": 1, "other": 2}}, ["s_tokens", "'9-4'"]),
        ({"s_tokens": {"4-": 1, "other": 2}}, ["s_tokens", "'4-'"]),
        ({"s_tokens": {"4-5-6": 1, "other": 2}}, ["s_tokens", "'4-5-6'"]),
        ({"s_tokens": {True: 1, "other": 2}}, ["s_tokens", "'True'"]),
        ({"s_tokens": {"last 3": [5, 2], "other": 2}}, ["s_tokens", "last 3", "[5, 2]"]),
        ({"retention": {"last 3": [0, 1], "other": 1}}, ["retention", "last 3", "[0, 1]"]),
        ({"retention": {"other": [0.5, 1.5]}}, ["retention", "other", "1.5"]),
    ],
)
def test_wrong_blocks_are_refused_with_file_field_and_value(
    pruning: dict[str, Any], words: list[str]
) -> None:
    message = refusal(lambda: space_of("mine.yaml", **pruning))
    for word in ["mine.yaml: pruning", *words]:
        assert word in message


@pytest.mark.parametrize("key", ["format", "version", "pruning"])
def test_a_missing_key_is_named(key: str) -> None:
    document = {k: v for k, v in DOCUMENT.items() if k != key}
    message = refusal(lambda: parse_space(yaml.safe_dump(document), "mine.yaml"))
    assert "mine.yaml" in message and f"'{key}'" in message and "missing" in message


@pytest.mark.parametrize("key", PRUNING)
def test_a_missing_key_of_pruning_is_named(key: str) -> None:
    pruning = {k: v for k, v in PRUNING.items() if k != key}
    document = yaml.safe_dump(DOCUMENT | {"pruning": pruning})
    message = refusal(lambda: parse_space(document, "mine.yaml"))
    assert "mine.yaml: pruning" in message and f"'{key}'" in message and "missing" in message


@pytest.mark.parametrize(
    "text",
    [
        "pruning: [1, 2", "a: b: c", "\t- x", "!!python/object/apply:os.getcwd []", "&a [*b]",
        "a: !!timestamp x", "a: !!int x", "a: !!int", "a: &b []\nb: *b", "a: 1\na: 2", "[" * 5_000,
        "a: " + "9" * 2_000, "a: " + "[" * 60 + "]" * 60, "a: b\n" + "#" * 300_000, "!!map x",
        "!!seq x", "a: \x00", "{[1]: 2}: 3", "--- a\n--- b", "'",
    ],
)  # fmt: skip
def test_what_is_no_yaml_is_refused(text: str) -> None:
    message = refusal(lambda: parse_space(text, "mine.yaml"))
    assert message.startswith("mine.yaml: this is no valid YAML")


@pytest.mark.parametrize("text", ["", "3", "words", "- 1\n- 2", "null", "true"])
def test_yaml_that_is_no_mapping_is_refused(text: str) -> None:
    message = refusal(lambda: parse_space(text, "mine.yaml"))
    assert "mine.yaml" in message and "mapping" in message


def test_a_space_that_is_not_there_names_the_shipped_ones(tmp_path: Path) -> None:
    for name in ("deit_smal", str(tmp_path / "no.yaml"), str(tmp_path), ""):
        message = refusal(lambda name=name: load_space(name))  # type: ignore[misc]
        assert repr(name) in message and ", ".join(sorted(DEPTHS)) in message


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xff\xfe\xff")
    assert "mine.yaml" in refusal(lambda: load_space(str(path)))
