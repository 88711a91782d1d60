"""The evidence tests, against gamblers who bet image by image, and by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from helpers.promoted import shown_to_lose_more, survivors
from helpers.promoted import shown_worse as shown_worses
from helpers.racing_by_hand import WHOLE, slow_bets, slow_wealth
from hypothesis import given, settings
from hypothesis import strategies as st

from ztp_search.racing import RACING, Results
from ztp_search.racing import log_evidence as log_evidences
from ztp_search.racing import log_wealth as log_wealths

Floats = npt.NDArray[np.float64]
EVIDENCE = RACING["evidence"]
DIFFERENCES = st.lists(st.integers(-WHOLE, WHOLE), max_size=60)


def log_evidence(wins: int, losses: int) -> float:
    return float(log_evidences(np.array([wins]), np.array([losses]))[0])


def shown_worse(wins: int, losses: int, rivals: int = 1) -> bool:
    return bool(shown_worses(np.array([wins]), np.array([losses]), rivals)[0])


def log_wealth(differences: list[int]) -> float:
    return float(log_wealths(np.array([differences]).reshape(1, -1) / WHOLE)[0])


def slow_log_bets(differences: list[int]) -> float:
    wealth = slow_bets(differences)
    return math.log(wealth.numerator) - math.log(wealth.denominator)


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


def test_challengers_a_point_worse_are_mostly_stopped() -> None:
    assert stopped_share(0.5 / 8) > 0.85


@settings(deadline=None)
@given(st.lists(DIFFERENCES, min_size=1, max_size=4))
def test_wealth_is_that_of_one_who_bets_on_the_difference_image_by_image(
    challengers: list[list[int]],
) -> None:
    images = min(map(len, challengers))
    rows = [differences[:images] for differences in challengers]
    wealths = log_wealths(np.array(rows).reshape(len(rows), images) / WHOLE)
    assert wealths.tolist() == pytest.approx([slow_log_bets(row) for row in rows], abs=1e-9)


def test_wealth_by_hand() -> None:
    """Of stakes 1, 3/4, 1/2, 3/8, 1/4, 3/16, 1/8, 1/16, 1/32 and 1/64 the mean is 211/640."""
    assert math.exp(log_wealth([])) == pytest.approx(1)
    assert math.exp(log_wealth([WHOLE])) == pytest.approx(1 + 211 / 640)
    assert math.exp(log_wealth([-WHOLE])) == pytest.approx(1 - 211 / 640)
    assert math.exp(log_wealth([0] * 1000)) == pytest.approx(1)


@given(
    DIFFERENCES, st.floats(0.001, 1), st.floats(0.001, 1), st.floats(0, 1), st.integers(0, 1)
)
def test_whatever_came_before_wealth_falls_in_expectation_if_the_mean_is_not_above_zero(
    before: list[int], gain: float, loss: float, share: float, fair: int
) -> None:
    """The next image: +gain with a chance that makes the bet fair at most, or else -loss."""
    chance = loss / (gain + loss) * (1 if fair else share)
    past = np.array(before) / WHOLE
    after = np.exp(log_wealths(np.array([[*past, gain], [*past, -loss]])))
    now = math.exp(log_wealths(past.reshape(1, -1))[0])
    assert chance * after[0] + (1 - chance) * after[1] <= now * (1 + 1e-9)


def test_over_all_sequences_of_a_fair_bet_mean_wealth_stays_one() -> None:
    """+1 with a chance of 1/5, +1/2 of 1/5, -1/2 of 3/5: all 729 sequences of six images."""
    chances = {1.0: 0.2, 0.5: 0.2, -0.5: 0.6}
    sequences = list(itertools.product(chances, repeat=6))
    weights = [math.prod(chances[step] for step in sequence) for sequence in sequences]
    wealths = np.exp(log_wealths(np.array(sequences)))
    assert math.fsum(weights) == pytest.approx(1)
    assert float(wealths @ weights) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("power", [3.0, 3.2, 5.0])
def test_mean_wealth_of_challengers_no_worse_does_not_grow(power: float) -> None:
    """Losses u^3 of the incumbent and v^power of the challenger, both mostly near zero."""
    generator = np.random.default_rng(6)
    shape = (40_000, 24)
    wealths = np.exp(log_wealths(generator.random(shape) ** power - generator.random(shape) ** 3))
    error = wealths.std() / math.sqrt(len(wealths))
    assert wealths.mean() <= 1 + 3 * error
    assert error < 0.02


@given(DIFFERENCES)
def test_whoever_lost_no_more_in_sum_is_not_stopped(differences: list[int]) -> None:
    """As log(1 + stake x difference) is stake x difference at most."""
    if sum(differences) <= 0:
        assert log_wealth(differences) <= 1e-9
        assert not shown_to_lose_more(np.array([differences]).reshape(1, -1) / WHOLE, 1)[0]


def test_a_stake_that_was_lost_whole_is_lost_for_good() -> None:
    lost = [-WHOLE] + [WHOLE] * 50
    assert math.isfinite(log_wealth(lost))
    assert log_wealth(lost) == pytest.approx(slow_log_bets(lost), abs=1e-9)
    # the stake 3/4 has a quarter left, and grows by 7/4 an image
    assert log_wealth(lost) == pytest.approx(math.log(0.25 / 10 * 1.75**50), abs=1e-2)


def test_losing_every_image_leaves_a_number() -> None:
    for images in (1, 2, 100, 50_000):
        wealths = log_wealths(np.full((3, images), -1.0))
        assert not np.isnan(wealths).any() and (wealths < 0).all()
        # of all stakes 1/64 keeps the most
        least = images * math.log(63 / 64) - math.log(10)
        assert (wealths >= least - 1e-6).all()


def test_a_million_images_won_or_lost_leave_a_number() -> None:
    differences = np.ones((2, 1_000_000))
    differences[1, ::2] = -1
    wealths = log_wealths(differences)
    assert wealths[0] == pytest.approx(1_000_000 * math.log(2) - math.log(10))
    assert np.isfinite(wealths).all()
    assert shown_to_lose_more(differences, 1).tolist() == [True, False]


@pytest.mark.parametrize("block", [1, 50, 99, 100, 101, 350, 1 << 22])
def test_challengers_in_blocks_have_the_wealth_of_each_alone(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(7)
    differences = generator.uniform(-0.9, 1, (7, 50))
    alone = [float(log_wealths(row[None])[0]) for row in differences]
    monkeypatch.setattr("ztp_search.racing.sequential_test.BLOCK", block)
    assert log_wealths(differences).tolist() == pytest.approx(alone, abs=1e-12)


def test_of_no_challengers_and_on_no_images_there_is_no_evidence() -> None:
    assert log_wealths(np.zeros((0, 20))).shape == (0,)
    assert log_wealths(np.zeros((3, 0))).tolist() == pytest.approx([0, 0, 0])
    assert shown_to_lose_more(np.zeros((3, 0)), 0).tolist() == [False] * 3


def test_wealth_leaves_the_differences_as_they_were() -> None:
    differences = np.array([[-1.0, 0.5, 1.0]])
    log_wealths(differences)
    assert differences.tolist() == [[-1.0, 0.5, 1.0]]


def test_wealth_needed_grows_with_the_rivals() -> None:
    differences = [WHOLE // 2] * 12
    wealth = float(slow_bets(differences))
    rows = np.array([differences]) / WHOLE
    assert wealth > 20
    for rivals in range(math.floor(wealth / 10)):
        assert shown_to_lose_more(rows, rivals)[0]
    assert shown_to_lose_more(rows, math.floor(wealth / 10))[0]
    assert not shown_to_lose_more(rows, math.floor(wealth / 10) + 1)[0]


LOOKS = EVIDENCE.rungs(2560, 16)


def losses_of(
    generator: np.random.Generator, scale: Floats | float, trials: int, images: int
) -> npt.NDArray[np.uint16]:
    """Losses on images which are easy or hard for all trials alike, most of them near zero.

    Their mean is `scale` / 9: images are Beta(1/2, 1), and so are trials on each of them.
    """
    hard = generator.random(images) ** 2
    own = generator.random((trials, images)) ** 2
    return (hard * own * scale * WHOLE).astype(np.uint16)


def stopped_by_losses(scale: float, runs: int = 500) -> float:
    """Share of runs in which a challenger is ever stopped; its mean loss is `scale` times that of
    the incumbent, and there are no rivals."""
    generator = np.random.default_rng(8)
    differences = np.empty((runs, LOOKS[-1]))
    for run in range(runs):
        scales = np.array([[scale], [1.0]])
        challenger, incumbent = losses_of(generator, scales, 2, LOOKS[-1]).astype(int)
        differences[run] = (challenger - incumbent) / WHOLE
    shown = [shown_to_lose_more(differences[:, :images], 1) for images in LOOKS]
    return float(np.any(shown, axis=0).mean())


def test_a_challenger_with_equal_losses_is_stopped_in_a_tenth_of_runs_at_most() -> None:
    assert stopped_by_losses(1.0) <= 0.1


def test_a_challenger_with_lower_losses_is_hardly_ever_stopped() -> None:
    assert stopped_by_losses(0.85) <= 0.01


def test_challengers_with_clearly_higher_losses_are_mostly_stopped() -> None:
    assert stopped_by_losses(1.0 / 0.75) > 0.95


def alive_after(trials: list[Results], images: int, first: int) -> set[int]:
    """Those whom the best so far has stopped on no rung; it is chosen on the same images."""
    alive = set(range(len(trials)))
    for rung in EVIDENCE.rungs(images, first):
        cohort = {number: trials[number].first(rung) for number in alive}
        alive = survivors(EVIDENCE, cohort, {}, len(trials), 0, len(trials) - 1)
    return alive


@pytest.mark.parametrize("trials", [16, 64])
def test_of_equal_trials_the_best_so_far_stops_a_tenth_at_most(trials: int) -> None:
    """The rule as it is used: the incumbent is chosen on the images that it is compared on."""
    generator = np.random.default_rng(4)
    runs, stopped = 60, 0
    for _ in range(runs):
        hard = generator.random(5120) < 0.16  # where a trial is right half of the time
        results = ~hard | (generator.random((trials, 5120)) < 0.5)  # (trials, images)
        stopped += trials - len(alive_after([Results(row) for row in results], 5120, 64))
    assert stopped / (runs * trials) <= 0.1


@pytest.mark.parametrize("trials, runs", [(64, 40), (1000, 3)])
def test_of_equal_losses_the_best_so_far_stops_a_tenth_at_most(trials: int, runs: int) -> None:
    generator = np.random.default_rng(5)
    right = np.ones(1280, np.bool_)
    stopped = 0
    for _ in range(runs):
        losses = losses_of(generator, 1.0, trials, 1280)
        stopped += trials - len(alive_after([Results(right, row) for row in losses], 1280, 16))
    assert stopped / (runs * trials) <= 0.1


def test_of_a_field_the_worse_are_mostly_stopped_and_the_better_hardly_ever() -> None:
    """Of 48 trials every fourth has two thirds of the others' mean loss."""
    generator = np.random.default_rng(9)
    runs, worse, better = 20, 0, 0
    right = np.ones(2560, np.bool_)
    scales = np.where(np.arange(48) % 4 == 0, 2 / 3, 1.0)[:, None]
    for _ in range(runs):
        losses = losses_of(generator, scales, 48, 2560)
        alive = alive_after([Results(right, row) for row in losses], 2560, 16)
        good = sum(number % 4 == 0 for number in alive)
        better += 12 - good
        worse += 36 - (len(alive) - good)
    assert better / (runs * 12) <= 0.01
    assert worse / (runs * 36) > 0.9
