"""Paired differences against sums done by hand, a slow twin and simulation."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztp_search.racing import accuracy, paired_difference, standard_error

Bools = npt.NDArray[np.bool_]
pairs = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=300)


def results(wins: int, losses: int, both: int, neither: int) -> tuple[Bools, Bools]:
    first = [True] * wins + [False] * losses + [True] * both + [False] * neither
    other = [False] * wins + [True] * losses + [True] * both + [False] * neither
    return np.array(first), np.array(other)


def split(images: list[tuple[bool, bool]]) -> tuple[Bools, Bools]:
    return np.array([a for a, _ in images]), np.array([b for _, b in images])


def slow_interval(images: list[tuple[bool, bool]]) -> tuple[float, float]:
    """Bonett and Price (2012), as they write it, one image at a time and exact to the root."""
    n = Fraction(len(images))
    f12 = sum(Fraction(1) for first, other in images if first and not other)
    f21 = sum(Fraction(1) for first, other in images if other and not first)
    p12, p21 = (f12 + 1) / (n + 2), (f21 + 1) / (n + 2)
    variance = (p12 + p21 - (p12 - p21) ** 2) / (n + 2)
    half = 1.959963984540054 * float(variance) ** 0.5
    return max(-1.0, float(p12 - p21) - half), min(1.0, float(p12 - p21) + half)


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
    assert outcome.ci95 == pytest.approx((1 / 6 - 0.388804, 1 / 6 + 0.388804), abs=1e-6)


def test_no_discordant_pair_still_leaves_an_interval() -> None:
    # 98 images: half width 1.959964 * sqrt((2 / 100) / 100) = 1.959964 * 0.0141421 = 0.0277181
    for both in (0, 40, 98):
        outcome = paired_difference(*results(wins=0, losses=0, both=both, neither=98 - both))
        assert (outcome.difference, outcome.wins, outcome.losses) == (0.0, 0, 0)
        assert outcome.ci95 == pytest.approx((-0.0277181, 0.0277181), abs=1e-6)


def test_one_image_says_next_to_nothing() -> None:
    # 2/3 - 1/3 = 1/3, variance (1 - 1/9) / 3 = 8/27, half width 1.959964 * 0.544331:
    # 1.066869, cut off at 1
    outcome = paired_difference(*results(wins=1, losses=0, both=0, neither=0))
    assert outcome.difference == 1.0
    assert outcome.ci95 == pytest.approx((1 / 3 - 1.066869, 1.0), abs=1e-6)


def test_winning_everywhere_ends_at_one() -> None:
    # 1001/1002 - 1/1002 = 1000/1002, variance (1 - (1000/1002)^2) / 1002
    outcome = paired_difference(*results(wins=1000, losses=0, both=0, neither=0))
    assert outcome.difference == outcome.ci95[1] == 1.0
    assert outcome.ci95[0] == pytest.approx(0.998004 - 1.959964 * 0.00199501, abs=1e-6)


@given(pairs)
def test_the_interval_equals_its_slow_twin(images: list[tuple[bool, bool]]) -> None:
    outcome = paired_difference(*split(images))
    assert outcome.ci95 == pytest.approx(slow_interval(images), abs=1e-12)
    right = [sum(column) for column in zip(*images, strict=True)]
    assert outcome.difference == pytest.approx((right[0] - right[1]) / len(images))
    assert outcome.wins - outcome.losses == right[0] - right[1]
    assert outcome.images == len(images)


@given(pairs)
def test_the_interval_holds_the_difference_and_stays_in_its_range(
    images: list[tuple[bool, bool]],
) -> None:
    outcome = paired_difference(*split(images))
    low, high = outcome.ci95
    assert -1.0 <= low <= outcome.difference <= high <= 1.0
    assert low < high


@given(pairs)
def test_turning_the_pair_round_turns_the_sign(images: list[tuple[bool, bool]]) -> None:
    first, other = split(images)
    one, back = paired_difference(first, other), paired_difference(other, first)
    assert back.difference == -one.difference
    assert back.ci95 == pytest.approx((-one.ci95[1], -one.ci95[0]), abs=1e-12)
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
        low, high = paired_difference(*results(wins, losses, same, 0)).ci95
        covered += low <= win - lose <= high
    assert covered / repeats >= 0.935


def test_the_interval_narrows_with_the_root_of_the_images() -> None:
    widths = []
    for scale in (100, 400, 1600):
        low, high = paired_difference(*results(5 * scale, 3 * scale, 80 * scale, 12 * scale)).ci95
        widths.append(high - low)
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.01)
    assert widths[1] / widths[2] == pytest.approx(2, rel=0.01)
