"""Space files that build on another: what they take over from it, and which bases are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.messages import one_line
from helpers.spaces import DOCUMENT, PRUNING, space_of

from ztp_search.errors import SpaceError
from ztp_search.space import load_space, shipped_spaces


def refusal(path: str) -> str:
    with pytest.raises(SpaceError) as error:
        load_space(path)
    return one_line(error)


def write(path: Path, base: str | None = None, **stated: Any) -> str:
    """A space file that states its base and this alone; returns its path."""
    header = {"format": "ztp-search/space", "version": 1} | ({"base": base} if base else {})
    path.write_text(yaml.safe_dump(header | stated), encoding="utf-8")
    return str(path)


def test_a_file_may_state_only_what_differs_from_a_shipped_space(tmp_path: Path) -> None:
    mine = load_space(
        write(
            tmp_path / "mine.yaml", "digits", pruning={"layers": [1, 2], "metric": "euclidean"},
            defaults={"trials": 7}, data={"split": "train"},
        )  # fmt: skip
    )
    digits = load_space("digits")
    assert mine.layers == (1, 2)
    assert mine.variants == {**digits.variants, "metric": ("euclidean",)}
    assert mine.blocks(8) == digits.blocks(8)
    assert (mine.about, mine.model, mine.v_min) == (digits.about, digits.model, digits.v_min)
    assert mine.defaults == digits.defaults | {"trials": 7}
    assert mine.data == digits.data | {"split": "train"}


def test_a_key_is_replaced_as_a_whole(tmp_path: Path) -> None:
    mine = write(
        tmp_path / "mine.yaml", "digits", pruning={"wpr_iterations": {"other": [2, 3]}},
        model={"name": "other", "kwargs": {"depth": 6}}, about="words",
    )  # fmt: skip
    space = load_space(mine)
    assert {block.wpr_iterations for block in space.blocks(8)} == {(2, 3)}
    assert space.model["name"] == "other" and space.model["kwargs"] == {"depth": 6}
    assert space.model["weights"] == "digits" and space.about == "words"


def test_a_file_that_only_names_its_base_is_its_base(tmp_path: Path) -> None:
    mine, shipped = load_space(write(tmp_path / "mine.yaml", "vit_small")), load_space("vit_small")
    assert dataclasses.replace(mine, name="vit_small") == shipped


def test_the_digest_is_that_of_the_same_space_written_out(tmp_path: Path) -> None:
    base = write(tmp_path / "base.yaml", pruning=PRUNING | {"layers": [1, 2]})
    mine = write(tmp_path / "mine.yaml", "base.yaml", pruning={"layers": PRUNING["layers"]})
    assert load_space(mine).sha256 == space_of().sha256 != load_space(base).sha256


def test_a_base_is_seen_from_the_file_that_names_it_and_may_have_one_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "inner").mkdir()
    write(tmp_path / "lowest.yaml", pruning=PRUNING, defaults={"trials": 1, "images": 2})
    write(tmp_path / "inner" / "middle.yaml", "../lowest.yaml", defaults={"images": 3})
    write(tmp_path / "inner" / "mine.yaml", "middle.yaml", defaults={"holdout": 4})
    for folder, path in ((tmp_path, "inner/mine.yaml"), (tmp_path / "inner", "mine.yaml")):
        monkeypatch.chdir(folder)
        assert load_space(path).defaults == {"trials": 1, "images": 3, "holdout": 4}
    absolute = write(tmp_path / "absolute.yaml", str(tmp_path / "inner" / "mine.yaml"))
    assert load_space(absolute).defaults == {"trials": 1, "images": 3, "holdout": 4}


def test_a_base_that_leads_back_is_refused_by_name(tmp_path: Path) -> None:
    own = write(tmp_path / "own.yaml", "own.yaml")
    assert f"{own} > {own}" in refusal(own)
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    write(first, "second.yaml")
    write(second, "./first.yaml")
    message = refusal(str(first))
    assert message.startswith(f"{second}: base") and f"{first} > {second} > {first}" in message


@pytest.mark.parametrize("base", ["nowhere", "nowhere.yaml", "", ".", 3, None, ["any"]])
def test_a_base_that_is_not_there_is_refused_by_name(base: Any, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(DOCUMENT | {"base": base}), encoding="utf-8")
    message = refusal(str(mine))
    assert message.startswith(f"{mine}: base ") and repr(base) in message
    assert ", ".join(shipped_spaces()) in message


def test_what_is_wrong_is_said_of_the_file_that_states_it(tmp_path: Path) -> None:
    base = write(tmp_path / "base.yaml", pruning=PRUNING | {"layers": [0, 2]})
    mine = write(tmp_path / "mine.yaml", "base.yaml", pruning={"layers": [1, 2]})
    assert refusal(mine).startswith(f"{base}: pruning.layers")
    for stated, words in (
        ({"pruning": {"layers": [0, 2]}}, "pruning.layers"), ({"pruning": [1]}, "pruning must"),
        ({"colour": 1}, "unknown key 'colour'"), ({"model": {"dept": 3}}, "unknown key 'dept'"),
    ):  # fmt: skip
        mine = write(tmp_path / "mine.yaml", "digits", **stated)
        assert words in refusal(mine).removeprefix(f"{mine}: ")


@pytest.mark.parametrize("key", ["format", "version"])
def test_each_file_states_format_and_version_itself(key: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    stated = {"format": "ztp-search/space", "version": 1, "base": "any"}
    del stated[key]
    mine.write_text(yaml.safe_dump(stated), encoding="utf-8")
    assert f"{mine}: key {key!r} is missing" in refusal(str(mine))
    mine.write_text(yaml.safe_dump(stated | {key: 2}), encoding="utf-8")
    assert f"{mine}: {key} must be" in refusal(str(mine))
