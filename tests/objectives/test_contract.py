"""What every objective must do; a new one joins by its line in `OBJECTIVES`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ztp_search.objectives import OBJECTIVES

ALL = pytest.mark.parametrize("name", OBJECTIVES)
LABELS = np.array([1, 0, 2, 3, -1])
UNPRUNED = np.array([1, 2, -1, 0, 2], np.int32)
READINGS = np.array([1, 2, -1, 3, 2], np.int32)


@ALL
def test_it_has_the_name_that_it_is_found_by(name: str) -> None:
    assert OBJECTIVES[name].name == name


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_reading_per_image_stays_on_the_device_of_the_logits(
    name: str, dtype: torch.dtype
) -> None:
    logits = torch.randn(7, 10, generator=torch.Generator().manual_seed(0)).to(dtype)
    readings = OBJECTIVES[name].read(logits)
    assert readings.shape[0] == 7 and readings.device == logits.device


@ALL
def test_an_image_is_read_alone(name: str) -> None:
    logits = torch.randn(7, 10, generator=torch.Generator().manual_seed(0))
    together = OBJECTIVES[name].read(logits)
    alone = torch.cat([OBJECTIVES[name].read(logits[i : i + 1]) for i in range(7)])
    assert torch.equal(together, alone)


@ALL
def test_scores_lie_from_0_to_1_an_image_each(name: str) -> None:
    objective = OBJECTIVES[name]
    scores = objective.score(READINGS, LABELS, UNPRUNED)
    assert scores.shape == LABELS.shape
    assert ((scores >= 0) & (scores <= 1)).all()
    assert (scores.dtype == np.bool_) == objective.binary


@ALL
def test_logits_that_are_not_finite_score_nothing(name: str) -> None:
    logits = torch.zeros(3, 10)
    logits[:, 4] = 5.0
    logits[1, 0], logits[2, 4] = float("nan"), float("inf")
    objective = OBJECTIVES[name]
    readings = objective.read(logits).numpy()
    labels = np.full(3, 4)
    scores = objective.score(readings, labels, np.full(3, 4, np.int32))
    assert scores.tolist() == [1, 0, 0]


@ALL
def test_labels_count_only_where_they_are_needed(name: str) -> None:
    objective = OBJECTIVES[name]
    other = np.full_like(LABELS, -1)
    same = objective.score(READINGS, other, UNPRUNED).tolist() == objective.score(
        READINGS, LABELS, UNPRUNED
    ).tolist()
    assert same is not objective.needs_labels


def test_top1_compares_with_the_labels() -> None:
    scores = OBJECTIVES["top1"].score(READINGS, LABELS, UNPRUNED)
    assert scores.tolist() == [True, False, False, True, False]


def test_agreement_compares_with_the_unpruned_model() -> None:
    scores = OBJECTIVES["agreement"].score(READINGS, LABELS, UNPRUNED)
    assert scores.tolist() == [True, True, False, False, True]
