"""What layers have made of the patches of an image, from records worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ztp_search.results.token_maps import DROPPED, Fate, layer_maps


def record(
    block: int, s: list[int], i: list[int], merges: dict[int, int] | None = None,
    importance: list[float] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A layer's record of one image: what is left after each stage, and who went into whom."""
    merges = merges or {}
    return {
        "after_block": block, "s": np.array(s), "i": np.array(i),
        "layer": np.array(min(s, i, key=len)),
        "merged": np.array(sorted(merges), np.int64),
        "into": np.array([merges[token] for token in sorted(merges)], np.int64),
        "importance": None if importance is None else np.array(importance),
    }  # fmt: skip


# Two prefix tokens and six patches: patch p is token p + 2.
FIRST = record(
    1, s=[0, 1, 2, 4, 5, 6, 7], i=[0, 1, 2, 4, 5, 6], merges={3: 2},
    importance=[9.0, 9.0, 0.4, 0.0, 0.3, 0.2, 0.5, 0.1],
)  # fmt: skip
"""The S-stage merges patch 1 into patch 0, the I-stage drops patch 5."""


def test_each_patch_is_in_the_token_that_it_was_merged_into() -> None:
    (layer,) = layer_maps([FIRST], patches=6, prefix=2, s_first=True)
    assert layer.groups_in.tolist() == [0, 1, 2, 3, 4, 5]
    assert layer.groups.tolist() == [0, 0, 2, 3, 4, DROPPED]
    kept = Fate.KEPT
    assert layer.fates.tolist() == [kept, Fate.S_MERGED, kept, kept, kept, Fate.I_DROPPED]
    assert (layer.tokens_in, layer.tokens_out) == (8, 6)
    assert layer.merged == {"s": 1, "i": 0} and layer.dropped == {"s": 0, "i": 1}
    assert layer.taken_out.tolist() == [False, True, False, False, False, True]


def test_what_a_dropped_token_had_taken_in_is_dropped_with_it() -> None:
    second = record(3, s=[0, 1, 2, 4, 5, 6], i=[0, 1, 4, 5], merges={6: 5})  # drops 0, merges 4
    _, layer = layer_maps([FIRST, second], patches=6, prefix=2, s_first=True)
    assert layer.groups_in.tolist() == [0, 0, 2, 3, 4, DROPPED]
    assert layer.groups.tolist() == [DROPPED, DROPPED, 2, 3, 3, DROPPED]
    assert layer.fates.tolist() == [
        Fate.I_DROPPED, Fate.I_DROPPED, Fate.KEPT, Fate.KEPT, Fate.I_MERGED, Fate.DROPPED_BEFORE
    ]  # fmt: skip
    # tokens are counted, not patches
    assert layer.dropped == {"s": 0, "i": 1} and layer.merged == {"s": 0, "i": 1}


def test_a_patch_stays_merged_while_its_token_goes_on_into_another() -> None:
    second = record(3, s=[0, 1, 4, 5, 6], i=[0, 1, 4, 5, 6], merges={2: 4})
    _, layer = layer_maps([FIRST, second], patches=6, prefix=2, s_first=True)
    assert layer.groups.tolist() == [2, 2, 2, 3, 4, DROPPED]
    assert layer.fates.tolist()[:2] == [Fate.S_MERGED, Fate.MERGED_BEFORE]
    assert layer.taken_out.tolist() == [True, True, False, False, False, False]


def test_a_token_merged_into_one_that_the_same_layer_drops_is_dropped_by_its_own_stage() -> None:
    only = record(1, s=[0, 1, 2, 4, 5, 6, 7], i=[0, 1, 4, 5, 6, 7], merges={3: -1})
    (layer,) = layer_maps([only], patches=6, prefix=2, s_first=True)
    assert layer.fates.tolist()[:3] == [Fate.I_DROPPED, Fate.S_DROPPED, Fate.KEPT]
    assert layer.dropped == {"s": 1, "i": 1} and layer.merged == {"s": 0, "i": 0}


def test_where_the_i_stage_comes_first_the_s_stage_takes_from_what_it_leaves() -> None:
    only = record(1, s=[0, 1, 2, 4, 5], i=[0, 1, 2, 4, 5, 7], importance=[1.0] * 8)
    (layer,) = layer_maps([only], patches=6, prefix=2, s_first=False)
    assert layer.fates.tolist() == [
        Fate.KEPT, Fate.I_DROPPED, Fate.KEPT, Fate.KEPT, Fate.I_DROPPED, Fate.S_DROPPED
    ]  # fmt: skip
    assert layer.dropped == {"s": 1, "i": 2}
    assert layer.importance is not None and np.isfinite(layer.importance).all()


def test_importance_is_that_of_a_patchs_token_and_none_where_it_was_not_ranked() -> None:
    scores = [9.0, 9.0, 0.4, 0.3, 0.2, 0.5]
    second = record(3, s=[0, 1, 2, 4, 5, 6], i=[0, 1, 2, 4, 5], importance=scores)
    first, layer = layer_maps([FIRST, second], patches=6, prefix=2, s_first=True)
    nan = float("nan")  # the S-stage had taken patch 1 out when the others were ranked
    np.testing.assert_array_equal(first.importance, [0.4, nan, 0.3, 0.2, 0.5, 0.1])
    np.testing.assert_array_equal(layer.importance, [0.4, 0.4, 0.3, 0.2, 0.5, nan])


def test_what_the_s_stage_alone_ranked_by_is_of_all_that_came_in() -> None:
    only = record(1, s=[0, 1, 2, 4, 5, 6, 7], i=[0, 1, 2, 4, 5, 6, 7], importance=[0.5] * 8)
    (layer,) = layer_maps([only], patches=6, prefix=2, s_first=True)
    assert layer.importance is not None and layer.importance.tolist() == [0.5] * 6


@pytest.mark.parametrize("s_first", [True, False])
def test_a_layer_that_takes_nothing_out_changes_nothing(s_first: bool) -> None:
    everything = list(range(8))
    (layer,) = layer_maps(
        [record(1, everything, everything)], patches=6, prefix=2, s_first=s_first
    )
    assert set(layer.fates.tolist()) == {Fate.KEPT} and not layer.taken_out.any()
    assert layer.importance is None and layer.tokens_in == layer.tokens_out == 8
