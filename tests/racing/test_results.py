"""What a trial gave, put together by hand and summed exactly."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztp_search.racing import LOSS_UNITS, NOTHING, Results

IMAGES = st.lists(st.tuples(st.booleans(), st.integers(0, 65_535)), min_size=1, max_size=60)


def of(images: list[tuple[bool, int]], with_losses: bool = True) -> Results:
    correct = np.array([right for right, _ in images], np.bool_)
    losses = np.array([loss for _, loss in images], np.uint16)
    return Results(correct, losses if with_losses else None)


def same(one: Results, other: Results) -> bool:
    if (one.losses is None) != (other.losses is None):
        return False
    if one.losses is not None and other.losses is not None:
        if one.losses.dtype != other.losses.dtype or one.losses.tolist() != other.losses.tolist():
            return False
    return one.correct.dtype == np.bool_ and one.correct.tolist() == other.correct.tolist()


def test_a_loss_of_one_fills_sixteen_bits() -> None:
    assert LOSS_UNITS == np.iinfo(np.uint16).max == 2**16 - 1


@given(IMAGES, st.data(), st.booleans())
def test_the_first_images_and_those_that_follow_are_all_images(
    images: list[tuple[bool, int]], data: st.DataObject, with_losses: bool
) -> None:
    whole = of(images, with_losses)
    cut = data.draw(st.integers(0, len(images)))
    assert same(whole.first(cut), of(images[:cut], with_losses))
    assert same(whole.first(cut).then(of(images[cut:], with_losses)), whole)
    assert len(whole) == len(images) and len(whole.first(cut)) == cut


@given(IMAGES, st.booleans())
def test_after_nothing_come_the_first_results(
    images: list[tuple[bool, int]], with_losses: bool
) -> None:
    assert len(NOTHING) == 0
    assert same(NOTHING.then(of(images, with_losses)), of(images, with_losses))
    assert len(NOTHING) == 0


def test_putting_results_together_leaves_them_as_they_were() -> None:
    first, second = of([(True, 3), (False, 5)]), of([(False, 65_535)])
    whole = first.then(second)
    assert whole.losses is not None
    whole.losses[:], whole.correct[:] = 0, True
    assert same(first, of([(True, 3), (False, 5)])) and same(second, of([(False, 65_535)]))


def test_a_mean_loss_by_hand() -> None:
    assert of([(True, 0), (False, 65_535), (True, 0), (True, 0)]).loss == 0.25
    assert of([(True, 13_107)] * 3).loss == pytest.approx(0.2, rel=1e-15)
    assert of([(False, 65_535)]).loss == 1.0
    assert of([(False, 0)]).loss == 0.0  # whatever is right or wrong


def test_of_right_and_wrong_alone_the_loss_is_the_share_that_is_wrong() -> None:
    results = Results(np.array([True, True, False, True, False]))
    assert results.units.tolist() == [0, 0, 65_535, 0, 65_535]
    assert results.loss == pytest.approx(0.4, rel=1e-15)


@given(IMAGES, st.booleans())
def test_units_are_whole_numbers_of_sixteen_bits(
    images: list[tuple[bool, int]], with_losses: bool
) -> None:
    results = of(images, with_losses)
    assert results.units.dtype == np.uint16 and results.units.shape == (len(images),)
    expected = [loss if with_losses else (0 if right else 65_535) for right, loss in images]
    assert results.units.tolist() == expected
    mean = Fraction(sum(expected), len(images) * 65_535)
    assert results.loss == pytest.approx(float(mean), rel=1e-15)


@pytest.mark.parametrize("with_losses", [True, False])
def test_a_million_images_are_summed_without_rounding(with_losses: bool) -> None:
    """Twelve digits of their sum count, of which float32 has seven."""
    generator = np.random.default_rng(0)
    losses = generator.integers(60_000, 65_536, 1_000_000).astype(np.uint16)
    results = Results(losses < 61_000, losses if with_losses else None)
    total = sum(results.units.tolist())
    assert total > 2**32
    assert results.loss == pytest.approx(float(Fraction(total, 10**6 * 65_535)), rel=1e-15)
    worse = Results(results.correct, results.units.copy())
    assert worse.losses is not None
    worse.losses[worse.losses.argmin()] += 1
    assert worse.loss > results.loss


@given(IMAGES, st.randoms())
def test_the_order_of_images_changes_no_loss(
    images: list[tuple[bool, int]], rng: np.random.Generator
) -> None:
    shuffled = list(images)
    rng.shuffle(shuffled)
    assert of(shuffled).loss == of(images).loss
    assert of(shuffled, False).loss == of(images, False).loss
