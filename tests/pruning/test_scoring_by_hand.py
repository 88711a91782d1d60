"""The scoring against examples worked out by hand."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.random_attention import EVERY_HEAD, random_case
from torch import Tensor

from ztp_search.pruning import scoring
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.merging import merge_tokens, take_tokens


def test_wpr_sends_scores_along_attention_by_hand() -> None:
    # s' = A^T s from (1/2, 1/2):
    #   s'_0 = 1/2 * 1/2 + 1/4 * 1/2 = 3/8        s'_1 = 1/2 * 1/2 + 3/4 * 1/2 = 5/8
    #   s''_0 = 1/2 * 3/8 + 1/4 * 5/8 = 11/32     s''_1 = 1/2 * 3/8 + 3/4 * 5/8 = 21/32
    attention = torch.tensor([[[[1 / 2, 1 / 2], [1 / 4, 3 / 4]]]], dtype=torch.float64)
    once = scoring.wpr(attention, 1, class_token=False)
    twice = scoring.wpr(attention, 2, class_token=False)
    assert once.tolist() == [[[3 / 8, 5 / 8]]]
    assert twice.tolist() == [[[11 / 32, 21 / 32]]]


def test_wpr_on_the_tokens_left_by_hand() -> None:
    # Token 4 is gone. Four tokens are left, so the class token starts with sqrt(4) = 2 shares:
    # (0.4, 0.2, 0.2, 0.2). Rows over the tokens left, made to sum to 1:
    #   0: (1/4, 1/4, 1/4, 1/4)  1: (1/2, 0, 1/2, 0)  2: (0, 1, 0, 0)  3: (0, 0, 0, 1)
    # One step:  0.4/4 + 0.2/2 = 0.2,  0.4/4 + 0.2 = 0.3,  0.4/4 + 0.2/2 = 0.2,  0.4/4 + 0.2 = 0.3
    # Two steps: 0.05 + 0.15 = 0.2,    0.05 + 0.2 = 0.25,  0.05 + 0.15 = 0.2,    0.05 + 0.3 = 0.35
    attention = torch.tensor(
        [[[[0.2, 0.2, 0.2, 0.2, 0.2],
           [0.4, 0.0, 0.4, 0.0, 0.2],
           [0.0, 0.5, 0.0, 0.0, 0.5],
           [0.0, 0.0, 0.0, 0.1, 0.9],
           [0.3, 0.3, 0.2, 0.1, 0.1]]]], dtype=torch.float64,
    )  # fmt: skip
    alive = torch.tensor([[True, True, True, True, False]])
    for iterations, expected in [(1, [0.2, 0.3, 0.2, 0.3, 0.0]), (2, [0.2, 0.25, 0.2, 0.35, 0.0])]:
        scores = scoring.wpr(attention, iterations, class_token=True, alive=alive)
        assert scores[0, 0].tolist() == pytest.approx(expected, abs=1e-15)
        assert scores[0, 0, 4] == 0.0


def test_head_variance_by_hand() -> None:
    # Patch tokens 1 and 2 hold 0.1 and 0.3: scaled to mean 1 they are 0.5 and 1.5, variance 1/4.
    # Patch tokens 1-4 hold (c, 0, 0, 0): scaled (4, 0, 0, 0), variance (9 + 1 + 1 + 1) / 4 = 3.
    one = scoring.head_variance(
        torch.tensor([[[0.6, 0.1, 0.3, 0.0, 0.0]]]), torch.tensor([[0, 1, 1, 0, 0]]).bool()
    )
    two = scoring.head_variance(
        torch.tensor([[[0.9, 0.1, 0.0, 0.0, 0.0]]]), torch.tensor([[0, 1, 1, 1, 1]]).bool()
    )
    assert one.shape == (1, 1)
    assert one.item() == pytest.approx(0.25)
    assert two.item() == pytest.approx(3.0)


def test_aggregation_by_hand() -> None:
    # Two heads score two tokens (0.6, 0.4) and (0.2, 0.8).
    # EIR: sqrt((0.36 + 0.04) / 2) = sqrt(0.2), sqrt((0.16 + 0.64) / 2) = sqrt(0.4)
    scores = torch.tensor([[[0.6, 0.4], [0.2, 0.8]]], dtype=torch.float64)
    both, first = torch.tensor([[True, True]]), torch.tensor([[True, False]])
    expected = {"eir": [math.sqrt(0.2), math.sqrt(0.4)], "mean": [0.4, 0.6], "max": [0.6, 0.8]}
    for how, values in expected.items():
        assert scoring.aggregate(scores, both, how)[0].tolist() == pytest.approx(values)
        assert scoring.aggregate(scores, first, how)[0].tolist() == pytest.approx([0.6, 0.4])


def test_the_most_similar_token_by_hand() -> None:
    # a: (1, 0) and (2, 1); b: (0, 3), (2, 0), (1, 1)
    # cosine: (1, 0) to 0, 1, 1/sqrt 2; (2, 1) to 1/sqrt 5, 2/sqrt 5, 3/sqrt 10, the greatest
    # squared distance: (1, 0) to 10, 1, 1, of which the first counts; (2, 1) to 8, 1, 1
    # absolute differences: (1, 0) to 4, 1, 1; (2, 1) to 4, 1, 1
    a = torch.tensor([[[1.0, 0.0], [2.0, 1.0]]], dtype=torch.float64)
    b = torch.tensor([[[0.0, 3.0], [2.0, 0.0], [1.0, 1.0]]], dtype=torch.float64)
    similarity, match = scoring.best_match(a, b, "cosine")
    assert similarity[0].tolist() == pytest.approx([1.0, 3 / math.sqrt(10)])
    assert match.tolist() == [[1, 2]]
    apart = torch.tensor([[[0.0, 3.0], [2.0, 0.0], [5.0, 5.0]]], dtype=torch.float64)
    for metric in ("euclidean", "manhattan"):
        similarity, match = scoring.best_match(a, apart, metric)
        assert similarity[0].tolist() == pytest.approx([-1.0, -1.0])
        assert match.tolist() == [[1, 1]]
    for metric in ("cosine", "euclidean", "manhattan"):
        assert scoring.best_match(a, b, metric)[0].shape == (1, 2)


@pytest.mark.parametrize(
    ("how", "a", "b"),
    [
        # by falling importance: 3, 0, 4, 1, 2
        ("sequential-u", [1, 2], [3, 0, 4]),
        ("sequential-i", [3, 0], [4, 1, 2]),
        ("alternate", [0, 1], [3, 4, 2]),
        ("position", [1, 3], [0, 2, 4]),
    ],
)
def test_partitions_by_hand(how: str, a: list[int], b: list[int]) -> None:
    importance = torch.tensor([[0.25, 0.1, 0.05, 0.4, 0.2]])
    group_a, group_b = scoring.partition(importance, how)
    assert group_a[0].tolist() == a and group_b[0].tolist() == b


def test_tokens_are_taken_image_by_image() -> None:
    x = torch.arange(12.0).reshape(2, 3, 2)
    taken = take_tokens(x, torch.tensor([[2, 0], [1, 1]]))
    assert taken.tolist() == [[[4, 5], [0, 1]], [[8, 9], [8, 9]]]


def test_merged_tokens_by_hand() -> None:
    # Kept: 1 of size 1, 4 of size 3, 9 of size 2. Into 4 go 8 of size 1 and 2 of size 2, into 9
    # goes 0 of size 2, and 5 is dropped: (12 + 8 + 4) / 6 = 4 of size 6, (18 + 0) / 4 = 4.5.
    x, sizes = merge_tokens(
        torch.tensor([[[1.0], [4.0], [9.0]]]), torch.tensor([[1.0, 3.0, 2.0]]),
        torch.tensor([[[8.0], [0.0], [5.0], [2.0]]]), torch.tensor([[1.0, 2.0, 7.0, 2.0]]),
        torch.tensor([[1, 2, -1, 1]]),
    )  # fmt: skip
    assert x.flatten().tolist() == pytest.approx([1.0, 4.0, 4.5])
    assert sizes.tolist() == [[1.0, 6.0, 4.0]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_token_that_takes_nothing_in_is_the_same_to_the_bit(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    kept = torch.randn(2, 5, 8, generator=generator).to(dtype)
    merged = torch.randn(2, 3, 8, generator=generator).to(dtype)
    into = torch.tensor([[1, -1, 1], [-1, -1, -1]])
    x, sizes = merge_tokens(kept, torch.rand(2, 5) + 1, merged, torch.ones(2, 3), into)
    assert x.dtype == dtype and sizes.dtype == torch.float32
    assert torch.equal(x[0, [0, 2, 3, 4]], kept[0, [0, 2, 3, 4]])
    assert torch.equal(x[1], kept[1]) and not torch.equal(x[0, 1], kept[0, 1])


# --- the pruning layer by hand ---------------------------------------------------------------

# Every row of A is the same, so one iteration gives the importances as they stand here, and the
# patch tokens 1, 2, 3, 4 come in falling order.
IMPORTANCE = [0.1, 0.4, 0.3, 0.15, 0.05]
# Cosine: 2~3 is 1, 1~4 is 1 / sqrt(1.25) = 0.894, 3~4 and 2~4 are 0.447, 1~2 and 1~3 are 0.
# Distance: 2 to 3 is 1, 1 to 4 is 0.5, all others more than 1.
DIRECTIONS = [[9.0, 9.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [1.0, 0.5]]


def one_image(importance: list[float]) -> Tensor:
    n = len(importance)
    return torch.tensor(importance, dtype=torch.float64).expand(1, 1, n, n).contiguous()


@pytest.mark.parametrize(
    ("variant", "after_s"),
    [
        ({}, [0, 1, 2, 4]),  # B = 1, 2; A = 3, 4; 3 is closest to B
        ({"metric": "euclidean"}, [0, 1, 2, 3]),  # 4 is
        ({"metric": "manhattan"}, [0, 1, 2, 3]),
        ({"partition": "sequential-i"}, [0, 1, 3, 4]),  # A = 1, 2; B = 3, 4; 2 is closest
        ({"partition": "alternate"}, [0, 1, 3, 4]),  # B = 1, 3; A = 2, 4; 2 is closest
        ({"partition": "alternate", "metric": "euclidean"}, [0, 1, 2, 3]),
        ({"partition": "position"}, [0, 1, 3, 4]),  # A = 2, 4; B = 1, 3; 2 is closest to 3
        ({"partition": "position", "metric": "euclidean"}, [0, 1, 2, 3]),
    ],
)
def test_similarity_stage_by_hand(variant: dict[str, Any], after_s: list[int]) -> None:
    kept = scoring.prune_tokens(
        one_image(IMPORTANCE), torch.tensor([DIRECTIONS], dtype=torch.float64),
        PruningConfig(**EVERY_HEAD, **variant),
        prefix_tokens=1, class_token=True, s_tokens=1, kept=3, wpr_iterations=1,
    )  # fmt: skip
    assert kept.after_s.tolist() == [after_s]
    assert kept.after_i.tolist() == [after_s]  # nothing is left for the I-stage to prune
    assert kept.fallback.tolist() == [False]
    assert kept.after_i.dtype == torch.int64


@pytest.mark.parametrize(
    ("partition", "gone"),
    [
        ("sequential-u", {4, 5}),
        ("sequential-i", {1, 2}),
        ("alternate", {2, 4}),
        ("position", {2, 4}),
    ],
)
def test_of_an_odd_count_the_extra_token_is_in_b(partition: str, gone: set[int]) -> None:
    importance = [0.05, 0.35, 0.25, 0.15, 0.12, 0.08]  # the prefix, then falling
    _, features = random_case(5, images=1, heads=1, tokens=6, sharpness=1.0)
    kept = scoring.prune_tokens(  # s = 2 prunes all of A, whatever the features
        one_image(importance), features, PruningConfig(partition=partition, **EVERY_HEAD),
        prefix_tokens=1, class_token=True, s_tokens=2, kept=3, wpr_iterations=1,
    )  # fmt: skip
    assert set(kept.after_s[0].tolist()) == set(range(6)) - gone


def merged_by_hand(variant: dict[str, Any], **layer: Any) -> tuple[list[int], dict[int, int]]:
    """The tokens kept of `DIRECTIONS`, and which of them each merged one is in."""
    kept = scoring.prune_tokens(
        one_image(IMPORTANCE), torch.tensor([DIRECTIONS], dtype=torch.float64),
        PruningConfig(**EVERY_HEAD, **variant),
        prefix_tokens=1, class_token=True, wpr_iterations=1, **layer,
    )  # fmt: skip
    if kept.merged is None:
        return kept.layer[0].tolist(), {}
    tokens, into = kept.merged.tokens[0].tolist(), kept.merged.into[0].tolist()
    left = kept.layer[0].tolist()
    ends = [-1 if place == -1 else left[place] for place in into]
    return left, dict(zip(tokens, ends, strict=True))


@pytest.mark.parametrize(
    ("variant", "layer", "left", "ends"),
    [
        # S prunes 3, which is most like 2; the other way round where B is the less important half
        ({}, {"s_tokens": 1, "kept": 3}, [0, 1, 2, 4], {}),
        ({"similar": "merge"}, {"s_tokens": 1, "kept": 3}, [0, 1, 2, 4], {3: 2}),
        ({"similar": "merge"}, {"s_tokens": 2, "kept": 2}, [0, 1, 2], {3: 2, 4: 1}),
        ({"similar": "merge", "partition": "sequential-i"}, {"s_tokens": 1, "kept": 3},
         [0, 1, 3, 4], {2: 3}),
        # I prunes 3 and 4; of the two 3 is most alike to a kept one, 1 to 2 against 0.894 to 1
        ({}, {"s_tokens": 0, "kept": 2, "merge_share": 1.0}, [0, 1, 2], {3: 2, 4: 1}),
        ({}, {"s_tokens": 0, "kept": 2, "merge_share": 0.5}, [0, 1, 2], {3: 2}),
        ({}, {"s_tokens": 0, "kept": 2, "merge_share": 0.25}, [0, 1, 2], {3: 2}),  # half a token
        ({}, {"s_tokens": 0, "kept": 2, "merge_share": 0.2}, [0, 1, 2], {}),
        # by distance 4 is: 0.5 from 1
        ({"metric": "euclidean"}, {"s_tokens": 0, "kept": 2, "merge_share": 0.5}, [0, 1, 2],
         {4: 1}),
        # S merges 3 into 2 and I prunes 4 and 2, which is at 90 degrees from 1 and 4 is not; the
        # prefix at (9, 9) takes nothing in. 3 goes where 2 does.
        ({"similar": "merge"}, {"s_tokens": 1, "kept": 1}, [0, 1], {3: -1}),
        ({"similar": "merge"}, {"s_tokens": 1, "kept": 1, "merge_share": 0.5}, [0, 1],
         {3: -1, 4: 1}),
        ({"similar": "merge"}, {"s_tokens": 1, "kept": 1, "merge_share": 1.0}, [0, 1],
         {3: 1, 4: 1, 2: 1}),
        ({}, {"s_tokens": 1, "kept": 1, "merge_share": 1.0}, [0, 1], {4: 1, 2: 1}),
        # I first: it prunes 4, most like 1 of 1, 2 and 3, of which S then merges 3 into 1 or 2
        ({"order": "i-s", "similar": "merge"}, {"s_tokens": 1, "kept": 2, "merge_share": 1.0},
         [0, 1, 2], {4: 1, 3: 2}),
        # I merges 3 and 4 into 2 and 1, then S (A = 2, B = 1) drops 2 with what it took in
        ({"order": "i-s"}, {"s_tokens": 1, "kept": 1, "merge_share": 1.0}, [0, 1],
         {4: 1, 3: -1}),
        ({"order": "i-s", "similar": "merge"}, {"s_tokens": 1, "kept": 1, "merge_share": 1.0},
         [0, 1], {4: 1, 3: 1, 2: 1}),
    ],
)  # fmt: skip
def test_where_merged_tokens_end_by_hand(
    variant: dict[str, Any], layer: dict[str, Any], left: list[int], ends: dict[int, int]
) -> None:
    assert merged_by_hand(variant, **layer) == (left, ends)


def test_random_partition_is_one_permutation_for_all_images() -> None:
    attention, features = random_case(6, images=4, heads=2, tokens=10, sharpness=2.0)
    kept = scoring.prune_tokens(
        attention, features, PruningConfig(partition="random"),
        prefix_tokens=1, class_token=True, s_tokens=4, kept=5, wpr_iterations=1,
    )  # fmt: skip
    order = scoring.random_permutation(9)
    assert sorted(order.tolist()) == list(range(9))
    assert order.tolist() == scoring.random_permutation(9).tolist()
    group_b = [0] + sorted(1 + place for place in order[:5].tolist())  # prefix, ceil(9 / 2)
    assert kept.after_s.tolist() == [group_b] * 4


def test_random_partition_is_the_same_in_another_process() -> None:
    code = "from ztp_search.pruning.scoring import random_permutation as p; print(p(30).tolist())"
    root = Path(scoring.__file__).parents[2]
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert other.stdout.strip() == str(scoring.random_permutation(30).tolist())


def test_importance_stage_keeps_the_most_important_in_sequence_order() -> None:
    importance = [0.02, 0.1, 0.28, 0.2, 0.1, 0.3]
    _, features = random_case(7, images=1, heads=1, tokens=6, sharpness=1.0)
    kept = scoring.prune_tokens(
        one_image(importance), features, PruningConfig(**EVERY_HEAD),
        prefix_tokens=1, class_token=True, s_tokens=0, kept=3, wpr_iterations=4,
    )  # fmt: skip
    assert kept.after_s.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert kept.after_i.tolist() == [[0, 2, 3, 5]]


def test_a_token_that_is_gone_never_comes_back_however_unimportant_the_others() -> None:
    # All attention goes to the class token, so every patch token scores 0. A = 1, 2; B = 3, 4;
    # S prunes 2 (the same direction as 3), and the I-stage keeps the first two of 1, 3, 4.
    kept = scoring.prune_tokens(
        one_image([1.0, 0.0, 0.0, 0.0, 0.0]), torch.tensor([DIRECTIONS], dtype=torch.float64),
        PruningConfig(partition="sequential-i", **EVERY_HEAD),
        prefix_tokens=1, class_token=True, s_tokens=1, kept=2, wpr_iterations=3,
    )  # fmt: skip
    assert kept.after_s.tolist() == [[0, 1, 3, 4]]
    assert kept.after_i.tolist() == [[0, 1, 3]]


def test_of_equal_tokens_the_earlier_counts_as_more_important() -> None:
    # All sums are of powers of two and exact, so the ties are true ties.
    attention = torch.full((1, 2, 8, 8), 1 / 8, dtype=torch.float64)
    _, features = random_case(8, images=1, heads=1, tokens=8, sharpness=1.0)
    layer: dict[str, Any] = {"prefix_tokens": 0, "class_token": False, "wpr_iterations": 2}
    config = PruningConfig(**EVERY_HEAD)
    i_stage = scoring.prune_tokens(attention, features, config, s_tokens=0, kept=3, **layer)
    s_stage = scoring.prune_tokens(attention, features, config, s_tokens=4, kept=4, **layer)
    assert i_stage.after_i.tolist() == [[0, 1, 2]]
    assert s_stage.after_s.tolist() == [[0, 1, 2, 3]]


def test_heads_outside_the_variance_range_do_not_count() -> None:
    # Head 0 is flat (variance 0), head 1 likes the later tokens: rows (1, 2, 3, 4) / 10, whose
    # patch variance is ((0.6)^2 + (0.2)^2 + (0.2)^2 + (0.6)^2) / 4 = 0.2 after scaling by 1 / 2.5.
    ramp = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64) / 10
    flat = torch.full((4,), 0.25, dtype=torch.float64)
    attention = torch.stack([flat.expand(4, 4), ramp.expand(4, 4)])[None]
    _, features = random_case(12, images=1, heads=1, tokens=4, sharpness=1.0)
    layer: dict[str, Any] = {
        "prefix_tokens": 0, "class_token": False, "s_tokens": 0, "kept": 2, "wpr_iterations": 1,
    }  # fmt: skip
    for v_min, v_max, kept in [(0.1, 0.3, [2, 3]), (0.0, 0.1, [0, 1]), (0.0, 0.3, [2, 3])]:
        config = PruningConfig(v_min=v_min, v_max=v_max)
        out = scoring.prune_tokens(attention, features, config, **layer)
        assert out.after_i.tolist() == [kept]  # (0, 0.1): only the flat head, the earlier win
        assert out.fallback.tolist() == [False]
