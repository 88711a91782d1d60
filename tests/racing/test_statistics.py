"""Paired differences and estimates against sums by hand, a slow twin and simulation."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from helpers.racing_by_hand import slow_interval
from hypothesis import given
from hypothesis import strategies as st

from ztp_search.racing import accuracy, estimate, paired_difference, standard_error

Bools = npt.NDArray[np.bool_]
pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=300)


def results(wins: int, losses: int, both: int, neither: int) -> tuple[Bools, Bools]:
    first = [True] * wins + [False] * losses + [True] * both + [False] * neither
    other = [False] * wins + [True] * losses + [True] * both + [False] * neither
    return np.array(first), np.array(other)


def split(images: list[tuple[bool, bool]]) -> tuple[Bools, Bools]:
    return np.array([a for a, _ in images]), np.array([b for _, b in images])


def test_accuracy_and_its_standard_error_by_hand() -> None:
    correct = np.array([True, True, True, False])
    assert accuracy(correct) == 0.75
    assert standard_error(correct) == pytest.approx((0.75 * 0.25 / 4) ** 0.5)
    # at 79 % the standard error is 0.58 points on 5,000 images
    correct = np.arange(5000) < 3950
    assert 100 * standard_error(correct) == pytest.approx(0.576, abs=0.001)
    assert standard_error(np.ones(10, dtype=bool)) == standard_error(np.zeros(10, dtype=bool)) == 0


def test_a_difference_by_hand() -> None:
    # 10 images, 3 wins, 1 loss: (3 + 1) / 12 - (1 + 1) / 12 = 1/6,
    # variance (4/12 + 2/12 - 1/36) / 12 = 17/432, its root 0.198373, times 1.959964 = 0.388804
    outcome = paired_difference(*results(wins=3, losses=1, both=4, neither=2))
    assert outcome.difference == pytest.approx(0.2)
    assert (outcome.wins, outcome.losses, outcome.images) == (3, 1, 10)
    assert outcome.interval == pytest.approx((1 / 6 - 0.388804, 1 / 6 + 0.388804), abs=1e-6)


def test_no_discordant_pair_still_leaves_an_interval() -> None:
    # 98 images: half width 1.959964 * sqrt((2 / 100) / 100) = 1.959964 * 0.0141421 = 0.0277181
    for both in (0, 40, 98):
        outcome = paired_difference(*results(wins=0, losses=0, both=both, neither=98 - both))
        assert (outcome.difference, outcome.wins, outcome.losses) == (0.0, 0, 0)
        assert outcome.interval == pytest.approx((-0.0277181, 0.0277181), abs=1e-6)


def test_one_image_says_next_to_nothing() -> None:
    # 2/3 - 1/3 = 1/3, variance (1 - 1/9) / 3 = 8/27, half width 1.959964 * 0.544331:
    # 1.066869, cut off at 1
    outcome = paired_difference(*results(wins=1, losses=0, both=0, neither=0))
    assert outcome.difference == 1.0
    assert outcome.interval == pytest.approx((1 / 3 - 1.066869, 1.0), abs=1e-6)


def test_winning_everywhere_ends_at_one() -> None:
    # 1001/1002 - 1/1002 = 1000/1002, variance (1 - (1000/1002)^2) / 1002
    outcome = paired_difference(*results(wins=1000, losses=0, both=0, neither=0))
    assert outcome.difference == outcome.interval[1] == 1.0
    assert outcome.interval[0] == pytest.approx(0.998004 - 1.959964 * 0.00199501, abs=1e-6)


@given(pairs)
def test_the_interval_equals_its_slow_twin(images: list[tuple[bool, bool]]) -> None:
    outcome = paired_difference(*split(images))
    assert outcome.interval == pytest.approx(slow_interval(images, 0.05), abs=1e-12)
    right = [sum(column) for column in zip(*images, strict=True)]
    assert outcome.difference == pytest.approx((right[0] - right[1]) / len(images))
    assert outcome.wins - outcome.losses == right[0] - right[1]
    assert outcome.images == len(images)


@given(pairs)
def test_the_interval_holds_the_difference_and_stays_in_its_range(
    images: list[tuple[bool, bool]],
) -> None:
    outcome = paired_difference(*split(images))
    low, high = outcome.interval
    assert -1.0 <= low <= outcome.difference <= high <= 1.0
    assert low < high


@given(pairs)
def test_turning_the_pair_round_turns_the_sign(images: list[tuple[bool, bool]]) -> None:
    first, other = split(images)
    one, back = paired_difference(first, other), paired_difference(other, first)
    assert back.difference == -one.difference
    assert back.interval == pytest.approx((-one.interval[1], -one.interval[0]), abs=1e-12)
    assert (back.wins, back.losses) == (one.losses, one.wins)


@given(pairs, st.randoms())
def test_only_the_pairing_matters_not_the_order(
    images: list[tuple[bool, bool]], rng: np.random.Generator
) -> None:
    shuffled = list(images)
    rng.shuffle(shuffled)
    assert paired_difference(*split(shuffled)) == paired_difference(*split(images))


def test_results_are_left_as_they_were() -> None:
    first, other = results(3, 2, 4, 1)
    before = first.copy(), other.copy()
    paired_difference(first, other)
    assert (first == before[0]).all() and (other == before[1]).all()


@pytest.mark.parametrize(
    ("first", "other"), [((3,), (4,)), ((0,), (0,)), ((2, 2), (2, 2)), ((), ()), ((3,), (3, 1))]
)
def test_results_that_are_no_pair_are_refused(
    first: tuple[int, ...], other: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="equally long") as error:
        paired_difference(np.zeros(first, dtype=bool), np.zeros(other, dtype=bool))
    assert str(first) in str(error.value) and str(other) in str(error.value)


@pytest.mark.parametrize(
    ("win", "lose"),
    [(0.0, 0.0), (0.005, 0.005), (0.04, 0.04), (0.1, 0.1), (0.03, 0.01), (0.05, 0.0),
     (0.06, 0.02), (0.01, 0.06), (0.15, 0.05), (0.4, 0.1), (0.9, 0.05)],
)  # fmt: skip
def test_the_interval_covers_the_true_difference(win: float, lose: float) -> None:
    images, repeats = 200, 2000
    generator = np.random.default_rng(0)
    counts = generator.multinomial(images, [win, lose, 1 - win - lose], size=repeats)
    covered = 0
    for wins, losses, same in counts.tolist():
        low, high = paired_difference(*results(wins, losses, same, 0)).interval
        covered += low <= win - lose <= high
    assert covered / repeats >= 0.935


@given(pairs, st.floats(1e-6, 0.9))
def test_the_interval_has_the_confidence_that_is_asked_for(
    images: list[tuple[bool, bool]], error: float
) -> None:
    outcome = paired_difference(*split(images), confidence=1 - error)
    assert outcome.interval == pytest.approx(slow_interval(images, error), abs=1e-9)
    wider = paired_difference(*split(images), 1 - error / 2)
    assert wider.interval[0] <= outcome.interval[0] and outcome.interval[1] <= wider.interval[1]
    assert wider.difference == outcome.difference


def test_an_interval_of_other_confidence_by_hand() -> None:
    # as above, with 2.575829 for 1.959964; 50 % lies within 0.674490 standard errors
    pair = results(wins=3, losses=1, both=4, neither=2)
    low, high = paired_difference(*pair, 0.99).interval
    assert (low, high) == pytest.approx((1 / 6 - 0.510975, 1 / 6 + 0.510975), abs=1e-6)
    low, high = paired_difference(*pair, 0.5).interval
    assert (low, high) == pytest.approx((1 / 6 - 0.133801, 1 / 6 + 0.133801), abs=1e-6)


def test_the_interval_narrows_with_the_root_of_the_images() -> None:
    widths = []
    for scale in (100, 400, 1600):
        scaled = results(5 * scale, 3 * scale, 80 * scale, 12 * scale)
        low, high = paired_difference(*scaled).interval
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.01)
    assert widths[1] / widths[2] == pytest.approx(2, rel=0.01)


def test_an_estimate_on_all_images_is_accuracy() -> None:
    correct = np.array([True] * 7 + [False] * 3)
    found = estimate(correct, np.ones(10, np.bool_))
    assert found.value == 0.7
    assert found.standard_error == pytest.approx(math.sqrt(0.7 * 0.3 / 10))


def test_an_estimate_by_hand() -> None:
    unpruned = np.array([True] * 6 + [False] * 2 + [True] * 9 + [False] * 3)  # 15 of 20
    correct = np.array([True] * 4 + [False] * 2 + [True] + [False])  # of 8: two losses, one win
    found = estimate(correct, unpruned)
    assert found.value == pytest.approx(0.75 - 1 / 8)
    up, down = 2 / 10, 3 / 10
    spread = up + down - (up - down) ** 2
    shared = 0.75 * 0.25 + 2 * (-down - 0.75 * (up - down))
    assert found.standard_error == pytest.approx(math.sqrt(max(0, shared) / 20 + spread / 8))


def test_the_standard_error_is_the_spread_of_the_estimate() -> None:
    """Over draws of 1,000 images, 200 of them seen; right for the unpruned model 90 %."""
    generator = np.random.default_rng(1)
    estimates, errors = [], []
    for _ in range(2000):
        unpruned = generator.random(1000) < 0.9
        flip = generator.random(1000)
        correct = np.where(unpruned, flip > 0.06, flip < 0.2)
        found = estimate(correct[:200], unpruned)
        estimates.append(found.value)
        errors.append(found.standard_error)
    truth = 0.9 * 0.94 + 0.1 * 0.2
    assert np.mean(estimates) == pytest.approx(truth, abs=0.002)
    assert np.mean(errors) == pytest.approx(np.std(estimates), rel=0.08)


def test_pairing_needs_a_fraction_of_the_images() -> None:
    """The standard error of the estimate is far below that of accuracy on the images seen."""
    generator = np.random.default_rng(2)
    unpruned = generator.random(4000) < 0.8
    correct = unpruned ^ (generator.random(4000) < 0.03)
    seen = correct[:500]
    plain = math.sqrt(seen.mean() * (1 - seen.mean()) / 500)
    assert estimate(seen, unpruned).standard_error < 0.6 * plain


def test_an_estimate_needs_images_that_were_seen() -> None:
    with pytest.raises(ValueError, match="1 to 4"):
        estimate(np.ones(0, np.bool_), np.ones(4, np.bool_))
    with pytest.raises(ValueError, match="1 to 4"):
        estimate(np.ones(5, np.bool_), np.ones(4, np.bool_))
