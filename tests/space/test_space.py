"""What a search space means for each block of a model, and where it does not fit one."""

from __future__ import annotations

from typing import Any

import pytest
from helpers.messages import one_line
from helpers.spaces import space_of
from hypothesis import given
from hypothesis import strategies as st

from ztp_search.errors import SpaceError
from ztp_search.space import Scale


def refusal(depth: int, **pruning: Any) -> str:
    space = space_of("mine.yaml", **pruning)
    with pytest.raises(SpaceError) as error:
        space.blocks(depth)
    return one_line(error)


def test_one_interval_holds_for_all_blocks() -> None:
    blocks = space_of(retention=[0.6, 0.9], s_tokens=[3, 4], wpr_iterations=[5, 7]).blocks(5)
    assert [block.block for block in blocks] == [1, 2, 3, 4]
    for block in blocks:
        assert block.retention == (0.6, 0.9)
        assert block.s_tokens == (3, 4)
        assert block.wpr_iterations == (5, 7)


def test_one_number_means_both_ends() -> None:
    (block,) = space_of(
        after_block=[2], layers=1, retention=0.7, s_tokens=5, wpr_iterations=3
    ).blocks(12)
    assert (block.retention, block.s_tokens, block.wpr_iterations) == ((0.7, 0.7), (5, 5), (3, 3))


def test_blocks_may_be_listed() -> None:
    assert [b.block for b in space_of(after_block=[3, 6, 9]).blocks(12)] == [3, 6, 9]


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        ({"other": 1}, [1] * 11),
        ({4: 2, "other": 1}, [1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1]),
        ({"4": 2, "other": 1}, [1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1]),
        ({"4-9": 2, "other": 1}, [1, 1, 1, 2, 2, 2, 2, 2, 2, 1, 1]),
        ({"4 - 6": 2, "other": 1}, [1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1]),
        ({"first 3": 2, "other": 1}, [2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1]),
        ({"last 3": 2, "other": 1}, [1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2]),
        ({"first 3": 3, "last 3": 1, "other": 2}, [3, 3, 3, 2, 2, 2, 2, 2, 1, 1, 1]),
        ({"other": 2, "first 3": 3, "last 3": 1}, [3, 3, 3, 2, 2, 2, 2, 2, 1, 1, 1]),
        ({"1-5": 1, "6-11": 2}, [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]),
        ({"1-40": 3}, [3] * 11),
        ({"first 40": 3}, [3] * 11),
        ({"first 0": 3, "other": 1}, [1] * 11),
    ],
)
def test_selectors_name_blocks(selectors: dict[Any, int], expected: list[int]) -> None:
    blocks = space_of(wpr_iterations=selectors).blocks(12)
    assert [block.wpr_iterations for block in blocks] == [(n, n) for n in expected]


def test_a_shallow_model_keeps_the_first_blocks_first() -> None:
    selectors = {"first 3": [30, 50], "last 3": [1, 1], "other": [5, 10]}
    blocks = space_of(wpr_iterations=selectors).blocks(5)
    assert [block.wpr_iterations[0] for block in blocks] == [30, 30, 30, 1]


def test_variants_hold_for_all_configurations() -> None:
    assert space_of(order="i-s", metric="euclidean").variants == {
        "order": ("i-s",), "metric": ("euclidean",),
    }  # fmt: skip
    assert space_of().variants == {}


def test_a_variant_may_be_one_of_several() -> None:
    space = space_of(partition=["alternate", "position"], sizes="track", similar=["merge"])
    assert space.variants == {
        "partition": ("alternate", "position"), "sizes": ("track",), "similar": ("merge",),
    }  # fmt: skip


def test_what_is_merged_and_kept_may_be_stated_by_block() -> None:
    space = space_of(merge_share={"first 2": 1, "other": [0, 0.5]}, kept=[0.3, 0.9])
    blocks = space.blocks(5)
    assert [block.merge_share for block in blocks] == [(1, 1), (1, 1), (0, 0.5), (0, 0.5)]
    assert {block.kept for block in blocks} == {(0.3, 0.9)}
    for block in space_of().blocks(5):  # a file without them drops tokens, as ever
        assert (block.merge_share, block.kept) == ((0.0, 0.0), (0.0, 1.0))


def test_half_of_the_tokens_and_all_of_the_blocks_have_names() -> None:
    space = space_of(s_tokens=[0, "half"], layers=[2, "all"])
    assert space.blocks(12)[0].s_tokens[1] >= 10_000 and space.layers[1] >= 100


MERGING = {
    "similar": ["drop", "merge"], "sizes": ["ignore", "track"], "merge_share": [0.0, 1.0],
    "partition": ["sequential-u", "position"], "features": ["key", "x"],
}  # fmt: skip


def test_a_space_is_restricted_to_a_method() -> None:
    space = space_of(**MERGING)
    assert space.restricted("any") is space
    papers, merging = space.restricted("zero-tprune"), space.restricted("merge")
    assert papers.variants == {
        "similar": ("drop",), "sizes": ("ignore",), "partition": ("sequential-u",),
        "features": ("key",),
    }  # fmt: skip
    assert {block.merge_share for block in papers.blocks(12)} == {(0.0, 0.0)}
    assert (merging.variants["similar"], merging.variants["sizes"]) == (("merge",), ("track",))
    assert merging.variants["partition"] == ("sequential-u", "position")
    assert {block.merge_share for block in merging.blocks(12)} == {(1.0, 1.0)}
    assert len({space.sha256, papers.sha256, merging.sha256}) == 3
    with pytest.raises(SpaceError, match="`method` must be one of any, zero-tprune, merge, but"):
        space.restricted("magic")


@pytest.mark.parametrize(
    ("pruning", "method", "words"),
    [
        ({}, "merge", ["pruning.similar merge", "drop"]),
        (MERGING | {"similar": "merge"}, "zero-tprune", ["pruning.similar drop", "merge"]),
        (MERGING | {"sizes": "ignore"}, "merge", ["pruning.sizes track", "ignore"]),
        (MERGING | {"merge_share": [0.0, 0.5]}, "merge", ["pruning.merge_share 1"]),
        (MERGING | {"merge_share": {1: 0.5, "other": [0, 1]}}, "zero-tprune", ["merge_share 0"]),
    ],
)
def test_a_method_that_a_space_excludes_is_refused(
    pruning: dict[str, Any], method: str, words: list[str]
) -> None:
    with pytest.raises(SpaceError) as error:
        space_of("mine.yaml", **pruning).restricted(method)
    for word in ["mine.yaml", f"`method` {method}", *words]:
        assert word in one_line(error)


def test_the_papers_method_keeps_a_space_s_own_partition_and_features() -> None:
    space = space_of(partition="alternate", features=["x", "value"])
    assert space.restricted("zero-tprune").variants == {
        "partition": ("alternate",), "features": ("x", "value"), "similar": ("drop",),
        "sizes": ("ignore",),
    }  # fmt: skip


def test_corners_are_the_methods_that_a_space_holds_beside_others() -> None:
    assert len(space_of(**MERGING).corners()) == 2
    assert len(space_of(**MERGING | {"similar": "merge"}).corners()) == 1
    assert len(space_of(**MERGING | {"merge_share": [0.0, 0.5]}).corners()) == 1
    assert space_of().corners() == []


def test_scales_by_hand() -> None:
    even, log = Scale(1.0, 5.0), Scale(0.01, 100.0, log=True)
    assert [even.at(u) for u in (0, 0.25, 1)] == [1.0, 2.0, 5.0]
    assert [log.at(u) for u in (0, 0.25, 0.5, 1)] == [0.01, 0.1, 1.0, 100.0]
    assert Scale(2.0, 2.0).at(0.3) == 2.0
    space = space_of(v_min={"low": 0.1, "high": 0.4}, v_max={"low": 1, "high": 9, "log": True})
    assert space.v_min == Scale(0.1, 0.4) and space.v_max == Scale(1.0, 9.0, log=True)
    assert space_of(v_min=0, v_max=3).v_max == Scale(3.0, 3.0)


@given(
    st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.booleans(), st.floats(0, 1), st.floats(0, 1)
)
def test_scales_stay_in_their_interval_and_grow(
    a: float, b: float, log: bool, u: float, v: float
) -> None:
    scale = Scale(min(a, b), max(a, b), log)
    low, high = sorted((u, v))
    assert scale.low <= scale.at(low) <= scale.at(high) <= scale.high


@pytest.mark.parametrize(
    ("pruning", "words"),
    [
        ({"after_block": [0, 1]}, ["after_block", "block < depth", "[0, 1]", "1 to 11"]),
        ({"after_block": [3, 12]}, ["after_block", "[3, 12]", "12 blocks", "1 to 11"]),
        ({"after_block": [3]}, ["layers", "2", "1"]),
        ({"layers": [12, 14]}, ["layers", "12", "11"]),
        ({"s_tokens": {"first 3": [0, 5]}}, ["s_tokens", "block 4", "other"]),
        ({"s_tokens": {}}, ["s_tokens", "block 1", "other"]),
    ],
)
def test_what_does_not_fit_the_model_is_refused_with_file_field_and_value(
    pruning: dict[str, Any], words: list[str]
) -> None:
    message = refusal(12, **pruning)
    for word in ["mine.yaml", *words]:
        assert word in message


def test_a_model_of_one_block_has_no_place_for_a_layer() -> None:
    assert "layers" in refusal(1)
