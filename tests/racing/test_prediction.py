"""Predicted accuracies against a reference of their own, by hand, and by who is chosen."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from helpers.racing_by_hand import FayHerriot
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ztp_search.racing import Correct, Results, paired_difference, predicted_differences

Floats = npt.NDArray[np.float64]


def trial(unpruned: Correct, wins: int, losses: int, loss: int | None, at: int = 0) -> Results:
    """Of the images from `at` on it loses the first that were right and wins those that were not.

    loss: on each image, in units.
    """
    correct = np.roll(unpruned, -at).copy()
    correct[np.flatnonzero(correct)[:losses]] = False
    correct[np.flatnonzero(~np.roll(unpruned, -at))[:wins]] = True
    units = None if loss is None else np.full(len(unpruned), loss, np.uint16)
    return Results(np.roll(correct, at), units)


def differences(field: list[Results], unpruned: Correct) -> list[float]:
    """As they were found, image by image."""
    found = []
    for each in field:
        pairs = zip(each.correct.tolist(), unpruned.tolist(), strict=False)
        found.append(sum(mine - its for mine, its in pairs) / len(each))
    return found


def log_losses(field: list[Results]) -> Floats:
    return np.log([float(np.mean(each.units)) / 65_535 + 1e-5 for each in field])


def random_field(
    generator: np.random.Generator, unpruned: Correct, trials: int, informative: float,
    same_images: bool,
) -> list[Results]:  # fmt: skip
    """Trials of any accuracy; losses follow from it as far as they are informative (-1 to 1)."""
    images = len(unpruned)
    field = []
    for _ in range(trials):
        rate = 0.02 + 0.2 * generator.random()
        correct = unpruned ^ (generator.random(images) < rate)
        mean = 0.1 * np.exp(informative * np.log(rate / 0.1) + 0.3 * generator.normal())
        losses = np.minimum(generator.exponential(mean, images), 1)
        seen = images if same_images else int(generator.integers(images // 3, images + 1))
        units = (losses * 65_535).astype(np.uint16)
        field.append(Results(correct, units).first(seen))
    return field


@settings(deadline=None)
@given(
    st.integers(5, 14), st.integers(60, 600), st.floats(-1, 1), st.booleans(),
    st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_predictions_are_those_of_fay_and_herriot(
    trials: int, images: int, informative: float, same_images: bool, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    unpruned = generator.random(images) < 0.8
    field = random_field(generator, unpruned, trials, informative, same_images)
    reference = FayHerriot(
        [(each.correct.tolist(), float(np.mean(each.units)) / 65_535) for each in field],
        unpruned.tolist(),
    )
    # else it depends on the weights whether the slope is believed
    assume((reference.slope(0.0) < 0) == (reference.slope(reference.spread) < 0))
    predicted = predicted_differences(field, unpruned)
    assert predicted.tolist() == pytest.approx(reference.predicted().tolist(), abs=1e-9)


def test_without_losses_the_differences_are_as_they_were_found() -> None:
    generator = np.random.default_rng(0)
    unpruned = generator.random(300) < 0.8
    field = random_field(generator, unpruned, 9, 1.0, same_images=False)
    bare = [Results(each.correct) for each in field]
    expected = differences(field, unpruned)
    assert predicted_differences(bare, unpruned).tolist() == pytest.approx(expected)
    assert predicted_differences([*field[1:], bare[0]], unpruned).tolist() == pytest.approx(
        expected[1:] + expected[:1]
    )
    for each, difference in zip(field, expected, strict=True):
        paired = paired_difference(each.correct, unpruned[: len(each)])
        assert paired.difference == pytest.approx(difference)


@pytest.mark.parametrize("trials", [0, 1, 2, 3, 4])
def test_to_fewer_than_five_trials_no_line_is_fitted(trials: int) -> None:
    generator = np.random.default_rng(1)
    unpruned = generator.random(300) < 0.8
    field = random_field(generator, unpruned, 5, 1.0, same_images=True)
    few, found = field[:trials], differences(field, unpruned)
    assert predicted_differences(few, unpruned).tolist() == pytest.approx(found[:trials])
    assert predicted_differences(field, unpruned).tolist() != pytest.approx(found, abs=1e-4)


@pytest.mark.parametrize("informative", [1.0, 0.0, -1.0])
def test_with_ever_more_images_predictions_tend_to_what_was_found(informative: float) -> None:
    """The same images again and again: the same differences and losses, ever less noise."""
    generator = np.random.default_rng(2)
    unpruned = generator.random(500) < 0.8
    field = random_field(generator, unpruned, 8, informative, same_images=True)
    found = np.array(differences(field, unpruned))
    away = []
    for times in (1, 10, 100, 1000):
        again = [
            Results(np.tile(each.correct, times), np.tile(each.units, times)) for each in field
        ]
        away.append(np.abs(predicted_differences(again, np.tile(unpruned, times)) - found).max())
    assert away == sorted(away, reverse=True)
    assert away[0] > 1e-3 and away[3] < 1e-4
    assert away[2] / away[3] == pytest.approx(10, rel=0.1)


def test_where_noise_explains_everything_predictions_lie_on_the_line() -> None:
    """Up to 6 of 400 images beside a line, where each difference has a standard error of 10."""
    unpruned = np.arange(400) < 320
    losses = [500, 1000, 2000, 4000, 8000, 16_000]
    beside = [5, -6, 2, 3, -5, 1]
    field = [
        trial(unpruned, 40, 50 + 8 * place + more, loss, at=17 * place)
        for place, (loss, more) in enumerate(zip(losses, beside, strict=True))
    ]
    x, found = log_losses(field), np.array(differences(field, unpruned))
    predicted = predicted_differences(field, unpruned)
    slope, level = np.polyfit(x, predicted, 1)
    assert np.abs(level + slope * x - predicted).max() < 1e-12
    assert slope == pytest.approx(np.polyfit(x, found, 1)[0], rel=0.1) and slope < -0.02
    assert np.abs(found - predicted).max() > 0.01


def test_a_trial_far_beside_the_line_keeps_most_of_its_own() -> None:
    """Differences of 100 images of 400 that losses do not explain, beside errors of 10."""
    unpruned = np.arange(400) < 320
    losses = [500, 1000, 2000, 4000, 8000, 16_000]
    field = [
        trial(unpruned, 30, 130 - 100 * (place % 2) + 10 * place, loss)
        for place, loss in enumerate(losses)
    ]
    found = np.array(differences(field, unpruned))
    predicted = predicted_differences(field, unpruned)
    assert np.abs(found - predicted).max() < 0.02
    assert np.abs(found - predicted).max() > 1e-4


def test_a_trial_on_fewer_images_is_drawn_further_to_the_line() -> None:
    """Of the same difference and loss as on all images, which are these four times over."""
    generator = np.random.default_rng(3)
    unpruned = generator.random(1000) < 0.8
    field = random_field(generator, unpruned, 12, 0.5, same_images=True)
    tiled = [Results(np.tile(each.correct, 4), np.tile(each.units, 4)) for each in field]
    many = predicted_differences(tiled, np.tile(unpruned, 4))
    few = predicted_differences([tiled[0].first(1000), *tiled[1:]], np.tile(unpruned, 4))
    own = differences(field, unpruned)[0]
    assert abs(few[0] - own) > 2 * abs(many[0] - own) > 0
    assert np.abs(few[1:] - many[1:]).max() < abs(few[0] - many[0])


def rising_field(unpruned: Correct, losses: list[int]) -> list[Results]:
    """The higher the loss the better: from 30 images lost to 22 won."""
    lost = [60, 44, 40, 28, 12, 8]
    return [
        trial(unpruned, 30, own, loss, at=31 * place)
        for place, (own, loss) in enumerate(zip(lost, losses, strict=True))
    ]


def test_a_positive_slope_is_not_believed() -> None:
    """Then losses do not count at all: trials are drawn towards their common level."""
    unpruned = np.arange(400) < 300
    field = rising_field(unpruned, [500, 1000, 2000, 4000, 8000, 16_000])
    other = rising_field(unpruned, [10, 20, 20, 300, 20_000, 60_000])
    predicted = predicted_differences(field, unpruned)
    assert predicted.tolist() == pytest.approx(predicted_differences(other, unpruned).tolist())
    found = np.array(differences(field, unpruned))
    assert (np.diff(found) > 0).all() and (np.diff(predicted) > 0).all()
    assert found[0] < predicted[0] and predicted[-1] < found[-1]
    assert 0.3 < np.ptp(predicted) / np.ptp(found) < 0.95


def test_no_trial_is_better_for_its_higher_loss() -> None:
    """Of two that are alike in all else; whatever the weights with which the line is fitted."""
    generator = np.random.default_rng(4)
    for _ in range(300):
        unpruned = generator.random(1000) < 0.8
        field = random_field(generator, unpruned, 6, generator.uniform(-1, 1), True)
        field = [each.first(int(generator.choice([100, 1000]))) for each in field]
        higher = np.minimum(field[0].units * 1.5 + 50, 65_535).astype(np.uint16)
        field.append(Results(field[0].correct, higher))
        predicted = predicted_differences(field, unpruned)
        assert predicted[-1] <= predicted[0] + 1e-9


def test_equal_losses_tell_nothing() -> None:
    """As losses that are not believed: no line is made of how their logarithms are rounded."""
    generator = np.random.default_rng(5)
    for _ in range(60):
        unpruned = generator.random(500) < 0.8
        trials, level = generator.integers((5, 0), (12, 3000)).tolist()
        field = random_field(generator, unpruned, trials, 0.0, same_images=True)
        places = np.argsort(np.argsort(differences(field, unpruned)))  # the better the higher
        alike, rising = [], []
        for each, place in zip(field, places, strict=True):
            alike.append(Results(each.correct, np.full(500, level, np.uint16)))
            rising.append(Results(each.correct, np.full(500, 100 * place + 100, np.uint16)))
        assert predicted_differences(alike, unpruned).tolist() == pytest.approx(
            predicted_differences(rising, unpruned).tolist(), abs=1e-9
        )


def test_a_loss_of_zero_has_a_logarithm() -> None:
    unpruned = np.arange(400) < 320
    field = [trial(unpruned, 5 + n, 9 + 7 * n, 200 * n) for n in range(6)]
    assert np.isfinite(predicted_differences(field, unpruned)).all()


def test_trials_that_are_the_unpruned_model_differ_by_nothing() -> None:
    unpruned = np.arange(400) < 320
    field = [Results(unpruned, np.zeros(400, np.uint16))] * 7
    assert predicted_differences(field, unpruned).tolist() == pytest.approx([0.0] * 7, abs=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 12), st.floats(-1, 1), st.integers(0, 2**32 - 1))
def test_the_order_of_trials_changes_no_prediction(
    trials: int, informative: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    unpruned = generator.random(300) < 0.8
    field = random_field(generator, unpruned, trials, informative, same_images=False)
    order = generator.permutation(trials)
    shuffled = predicted_differences([field[place] for place in order], unpruned)
    assert shuffled.tolist() == pytest.approx(
        predicted_differences(field, unpruned)[order].tolist(), abs=1e-9
    )


def test_images_beyond_those_seen_change_no_prediction() -> None:
    generator = np.random.default_rng(6)
    unpruned = generator.random(400) < 0.8
    field = [each.first(200) for each in random_field(generator, unpruned, 8, 1.0, True)]
    other = np.concatenate([unpruned[:200], ~unpruned[200:]])
    assert (predicted_differences(field, unpruned) == predicted_differences(field, other)).all()


def chosen(informative: bool, spread: float, runs: int = 120) -> tuple[float, float, float]:
    """Mean true difference of the best of 30 trials on 2,000 images: by what is predicted, by
    what was found, and by mean loss. The standard error of a difference is about 0.0025.

    spread: standard deviation of the true differences; with these, or with nothing, mean loss
    rises.
    """
    generator = np.random.default_rng(7)
    choices = np.zeros(3)
    for _ in range(runs):
        true = -generator.gamma(4, spread / 2, 30)
        drives = true if informative else -generator.gamma(4, spread / 2, 30)
        unpruned = generator.random(2000) < 0.8
        field = []
        for difference, driven in zip(true, drives, strict=True):
            chance = generator.random(2000)
            down = 0.02 - difference / 0.8  # where it was right; 0.08 where it was wrong
            correct = np.where(unpruned, chance >= down, chance < 0.08)
            losses = generator.exponential(0.02 * np.exp(-0.3 * driven / spread), 2000)
            field.append(Results(correct, (np.minimum(losses, 1) * 65_535).astype(np.uint16)))
        best = [
            np.argmax(predicted_differences(field, unpruned)),
            np.argmax(differences(field, unpruned)),
            np.argmin([each.loss for each in field]),
        ]
        choices += true[best]
    predicted, found, loss = (choices / runs).tolist()
    return predicted, found, loss


@pytest.mark.parametrize("spread", [0.001, 0.003, 0.01])
def test_where_losses_predict_accuracy_a_better_trial_is_chosen(spread: float) -> None:
    predicted, found, _ = chosen(True, spread)
    assert predicted > found


@pytest.mark.parametrize("spread", [0.001, 0.003, 0.01])
def test_where_losses_predict_nothing_about_as_good_a_trial_is_chosen(spread: float) -> None:
    """Within a fifth of the noise, or far better than by loss."""
    predicted, found, loss = chosen(False, spread)
    assert predicted > found - 0.0005
    assert predicted > loss
