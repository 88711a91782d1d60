"""Rungs, estimates and survivors, against slow twins, by hand and by simulation."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from helpers.racing_by_hand import slow_survivors, slow_wealth
from hypothesis import given, settings
from hypothesis import strategies as st

from ztp_search.racing import (
    RACING,
    Racing,
    estimate,
    promotion_quota,
    remaining_evaluations,
    survivors,
)
from ztp_search.racing import log_evidence as log_evidences
from ztp_search.racing import shown_worse as shown_worses

Bools = npt.NDArray[np.bool_]
BOTH, HALVING, EVIDENCE, OFF = (RACING[name] for name in ("both", "halving", "evidence", "off"))


def log_evidence(wins: int, losses: int) -> float:
    return float(log_evidences(np.array([wins]), np.array([losses]))[0])


def shown_worse(wins: int, losses: int, rivals: int = 1) -> bool:
    return bool(shown_worses(np.array([wins]), np.array([losses]), rivals)[0])


@settings(deadline=None)  # the first call imports scipy.special
@given(st.lists(st.booleans(), max_size=400))
def test_evidence_is_the_wealth_of_one_who_bets_image_by_image(outcomes: list[bool]) -> None:
    wins = sum(outcomes)
    assert log_evidence(wins, len(outcomes) - wins) == pytest.approx(
        math.log(slow_wealth(outcomes)), abs=1e-4
    )


def test_without_discordant_pairs_nothing_is_shown() -> None:
    assert log_evidence(0, 0) == pytest.approx(0.0, abs=1e-12)
    assert not shown_worse(0, 0)


def test_more_wins_than_losses_never_stop_a_trial() -> None:
    assert log_evidence(400, 100) < 0
    assert not shown_worse(400, 100)
    assert not shown_worse(40_000, 100)
    assert shown_worse(100, 400)


def test_the_evidence_needed_grows_with_the_rivals() -> None:
    """In proportion to their number: the chances that one of them is wrong add up."""
    wins, losses = 20, 60
    wealth = math.exp(log_evidence(wins, losses))
    assert shown_worse(wins, losses, math.floor(wealth / 10))
    assert not shown_worse(wins, losses, math.floor(wealth / 10) + 1)
    assert shown_worse(wins, losses, 0)


def stopped_share(loss: float, runs: int = 1000) -> float:
    """Share of runs that are stopped in 25 looks at 10,000 images, 8 % of them discordant.

    loss: how much of the discordant pairs the incumbent wins, beyond half.
    """
    generator = np.random.default_rng(0)
    stopped = 0
    for _ in range(runs):
        discordant = generator.random(10_000) < 0.08
        lost = discordant & (generator.random(10_000) < 0.5 + loss)
        losses = lost.cumsum()[399::400]
        wins = discordant.cumsum()[399::400] - losses
        stopped += bool(shown_worses(wins, losses, 1).any())
    return stopped / runs


def test_an_equal_challenger_is_stopped_in_a_tenth_of_runs_at_most() -> None:
    assert stopped_share(0.0) < 0.1


def test_a_better_challenger_is_hardly_ever_stopped() -> None:
    assert stopped_share(-0.5 / 8) <= 0.002  # half a point better


@pytest.mark.parametrize("trials", [16, 64])
def test_of_equal_trials_the_best_so_far_stops_a_tenth_at_most(trials: int) -> None:
    """The rule as it is used: the incumbent is chosen on the images that it is compared on."""
    generator = np.random.default_rng(4)
    runs, stopped = 60, 0
    for _ in range(runs):
        hard = generator.random(5120) < 0.16  # where a trial is right half of the time
        results = ~hard | (generator.random((trials, 5120)) < 0.5)  # (trials, images)
        alive = {number: results[number] for number in range(trials)}
        for rung in EVIDENCE.rungs(5120, 64):
            cohort = {number: correct[:rung] for number, correct in alive.items()}
            surviving = survivors(EVIDENCE, cohort, {}, trials, 0, trials - 1)
            alive = {number: results[number] for number in surviving}
        stopped += trials - len(alive)
    assert stopped / (runs * trials) <= 0.1


def test_challengers_a_point_worse_are_mostly_stopped() -> None:
    assert stopped_share(0.5 / 8) > 0.85


@given(
    st.sampled_from([BOTH, HALVING, EVIDENCE, OFF]),
    st.integers(1, 12), st.integers(0, 4), st.integers(1, 6), st.integers(0, 4),
    st.integers(1, 120), st.floats(0.3, 0.95), st.integers(0, 20), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_survivors_are_those_that_the_rules_promote(
    racing: Racing, trials: int, before: int, quota: int, finalists: int, images: int,
    accuracy: float, rivals: int, seed: int,
) -> None:  # fmt: skip
    generator = np.random.default_rng(seed)
    accuracies = accuracy * generator.random(trials + before)
    results = generator.random((trials + before, images + 7)) < accuracies[:, None]
    numbers = generator.permutation(100)[: trials + before].tolist()
    complete = dict(zip(numbers[:before], results[:before], strict=True))
    cohort = {n: r[:images] for n, r in zip(numbers[before:], results[before:], strict=True)}
    slow = slow_survivors(
        racing, {n: r.tolist() for n, r in cohort.items()},
        {n: r.tolist() for n, r in complete.items()}, quota, finalists, rivals,
    )  # fmt: skip
    assert survivors(racing, cohort, complete, quota, finalists, rivals) == slow


def test_the_order_of_the_trials_decides_nothing() -> None:
    generator = np.random.default_rng(3)
    cohort = {number: generator.random(64) < 0.8 for number in range(9)}
    backwards = dict(reversed(cohort.items()))
    assert survivors(BOTH, cohort, {}, 4, 2, 8) == survivors(BOTH, backwards, {}, 4, 2, 8)


def test_without_racing_every_trial_survives_and_there_is_one_rung() -> None:
    assert OFF.rungs(5000, 64) == (5000,)
    cohort = {0: np.ones(64, np.bool_), 1: np.zeros(64, np.bool_)}
    assert survivors(OFF, cohort, {}, 1, 1, 1) == {0, 1}


@pytest.mark.parametrize("images, batch, rungs", [
    (2000, 64, (64, 128, 256, 512, 1024, 2000)),
    (1024, 64, (64, 128, 256, 512, 1024)),
    (1000, 32, (64, 128, 256, 512, 1000)),
    (1000, 100, (100, 200, 400, 800, 1000)),
    (1000, 48, (96, 192, 384, 768, 1000)),
    (64, 64, (64,)),
    (50, 64, (50,)),
    (5000, 256, (256, 512, 1024, 2048, 4096, 5000)),
])  # fmt: skip
def test_rungs_double_in_whole_batches(images: int, batch: int, rungs: tuple[int, ...]) -> None:
    assert BOTH.rungs(images, batch) == rungs


def test_halving_promotes_half_from_each_rung() -> None:
    assert [promotion_quota(100, rung) for rung in range(8)] == [50, 25, 13, 7, 4, 2, 1, 1]


def test_remaining_evaluations_by_hand() -> None:
    rungs = (64, 128, 256, 400)
    assert remaining_evaluations(8, rungs, 0, True) == 8 * 64 + 4 * 64 + 2 * 128 + 1 * 144
    assert remaining_evaluations(8, rungs, 2, True) == 8 * 128 + 4 * 144
    assert remaining_evaluations(8, rungs, 0, False) == 8 * 400
    assert BOTH.share_of_first_rung(rungs) == 512 / (512 + 256 + 256 + 144)
    assert OFF.share_of_first_rung((400,)) == 1.0


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
