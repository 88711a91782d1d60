"""Signals: what outputs are compared with, and what the comparison is worth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ztp_search.objectives import SIGNALS
from ztp_search.objectives.signals import distribution, losses
from ztp_search.racing import LOSS_UNITS

ALL = pytest.mark.parametrize("name", SIGNALS)
UNPRUNED = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.25, 0.5, 0.25]], np.float32)
LABELS = np.array([0, 1, 2])
LOGITS = st.lists(st.floats(-30, 30), min_size=3, max_size=3)


@ALL
def test_a_signal_has_the_name_that_it_is_found_by(name: str) -> None:
    assert SIGNALS[name].name == name


@ALL
def test_targets_are_a_distribution_per_image_or_none(name: str) -> None:
    before = UNPRUNED.copy()
    targets = SIGNALS[name].targets(UNPRUNED, LABELS)
    assert (targets is None) == (name == "correct")
    if targets is not None:
        assert targets.dtype == np.float32 and targets.shape == UNPRUNED.shape
        assert (targets >= 0).all()
        np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
    assert (before == UNPRUNED).all()


def test_total_variation_is_from_the_unpruned_model_and_needs_no_labels() -> None:
    signal = SIGNALS["total-variation"]
    targets = signal.targets(UNPRUNED, np.full(3, -1))
    assert targets is not None and (targets == UNPRUNED).all()
    assert not signal.needs_labels
    assert signal.measured(0.25) == {"total_variation": 0.25}


def test_label_probability_is_from_certainty_of_the_label() -> None:
    signal = SIGNALS["label-probability"]
    targets = signal.targets(UNPRUNED, LABELS)
    assert targets is not None and targets.tolist() == np.eye(3).tolist()
    assert signal.needs_labels
    assert signal.measured(0.25) == {"label_probability": 0.75}


def one(logits: list[float], target: list[float]) -> float:
    found = losses(torch.tensor([logits]), torch.tensor([target]))
    assert found.shape == (1,) and found.dtype == torch.int32
    return found.item() / LOSS_UNITS


def test_a_loss_by_hand() -> None:
    third = [0.0, 0.0, 0.0]  # logits of a third each
    assert one(third, [1 / 3, 1 / 3, 1 / 3]) == pytest.approx(0, abs=1e-5)
    assert one(third, [1.0, 0.0, 0.0]) == pytest.approx(2 / 3, abs=1e-5)
    assert one([50.0, 0.0, 0.0], [0.0, 0.5, 0.5]) == 1.0
    assert one(np.log([0.5, 0.3, 0.2]).tolist(), [0.2, 0.3, 0.5]) == pytest.approx(0.3, abs=1e-5)


@given(LOGITS, LOGITS)
def test_a_loss_is_a_distance_between_0_and_1(first: list[float], other: list[float]) -> None:
    p = torch.tensor([first], dtype=torch.float32).softmax(-1)
    q = torch.tensor([other], dtype=torch.float32).softmax(-1)
    there, back = one(first, q[0].tolist()), one(other, p[0].tolist())
    assert 0 <= there <= 1 and there == pytest.approx(back, abs=2e-5)
    assert there == pytest.approx((p - q).clamp(min=0).sum().item(), abs=2e-5)  # mass that moves
    assert one(first, p[0].tolist()) == 0


@given(LOGITS, st.integers(0, 2))
def test_a_loss_from_the_label_is_what_its_probability_lacks(
    logits: list[float], label: int
) -> None:
    lacking = 1 - torch.tensor(logits, dtype=torch.float64).softmax(-1)[label].item()
    assert one(logits, np.eye(3)[label].tolist()) == pytest.approx(lacking, abs=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_distributions_are_float32_whatever_the_logits_are(dtype: torch.dtype) -> None:
    logits = torch.randn(5, 10, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = distribution(logits)
    assert found.dtype == torch.float32
    assert torch.equal(found, logits.float().softmax(-1))
    together = losses(logits, found)
    alone = [losses(logits[i : i + 1], found[i : i + 1]).item() for i in range(5)]
    assert together.tolist() == alone == [0] * 5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_not_finite_have_the_highest_loss(value: float) -> None:
    logits = torch.zeros(2, 3)
    logits[0, 1] = value
    targets = torch.full((2, 3), 1 / 3)
    assert losses(logits, targets).tolist() == [LOSS_UNITS, 0]
