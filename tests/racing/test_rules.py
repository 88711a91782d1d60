"""Rungs, survivors and finalists, against slow twins, by hand and by simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from helpers.promoted import survivors
from helpers.racing_by_hand import Seen, slow_equal, slow_survivors
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from ztp_search.racing import (
    RACING,
    Racing,
    Results,
    first_rung,
    lot,
    shown_equal,
    stopped,
)

Bools = npt.NDArray[np.bool_]
BOTH, HALVING, EVIDENCE, OFF = (RACING[name] for name in ("both", "halving", "evidence", "off"))


def with_losses(*losses: int) -> Results:
    return Results(np.ones(len(losses), np.bool_), np.array(losses, np.uint16))


def bits(text: str) -> Results:
    return Results(np.array([digit == "1" for digit in text]))


@settings(deadline=None)  # the first call imports scipy.special
@given(
    st.sampled_from([BOTH, HALVING, EVIDENCE, OFF]), st.booleans(),
    st.integers(1, 12), st.integers(0, 4), st.integers(1, 6), st.integers(0, 4),
    st.integers(1, 120), st.floats(0.3, 0.95), st.sampled_from([2, 4, 65_536]),
    st.integers(0, 20), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_survivors_are_those_that_the_rules_promote(
    racing: Racing, losses: bool, trials: int, before: int, quota: int, finalists: int,
    images: int, accuracy: float, levels: int, rivals: int, seed: int,
) -> None:  # fmt: skip
    """Also where trials that were complete have seen fewer or more images, and where some tie."""
    generator = np.random.default_rng(seed)
    accuracies = accuracy * generator.random((trials + before, 1))
    draws = generator.random((trials + before, images + 7))
    if losses:
        steps = np.floor(np.minimum(draws**2 + 0.7 * (1 - accuracies), 1) * (levels - 1))
        results = (steps * (65_535 // (levels - 1))).astype(np.uint16)
    else:
        results = draws < accuracies
    numbers = generator.permutation(100)[: trials + before].tolist()
    seen = generator.integers(max(0, images - 3), images + 8, before).tolist() + [images] * trials
    everyone = [row[:length] for row, length in zip(results, seen, strict=True)]

    def of(row: npt.NDArray[np.generic]) -> Results:
        if losses:
            return Results(np.ones(len(row), np.bool_), row.astype(np.uint16))
        return Results(row.astype(np.bool_))

    fast = dict(zip(numbers, map(of, everyone), strict=True))
    slow: dict[int, Seen] = dict(zip(numbers, [row.tolist() for row in everyone], strict=True))
    complete, cohort = numbers[:before], numbers[before:]
    def surviving(rule: Racing) -> set[int]:
        return slow_survivors(
            replace(rule, kept_of=racing.kept_of),
            {n: slow[n] for n in cohort}, {n: slow[n] for n in complete},
            quota, finalists, rivals,
        )  # fmt: skip

    asked = (
        racing, {n: fast[n] for n in cohort}, {n: fast[n] for n in complete},
        quota, finalists, rivals,
    )  # fmt: skip
    assert survivors(*asked) == surviving(racing)
    reasons = {"halving": (racing.halving, HALVING), "evidence": (racing.evidence, EVIDENCE)}
    stops = stopped(*asked)
    for name, (in_force, rule) in reasons.items():
        named = {number for number, stop in stops.items() if name in stop.rules}
        assert named == ({*cohort} - surviving(rule) if in_force else set())
    for stop in stops.values():
        shown = stop.evidence is not None and stop.evidence >= (stop.needed or 0.0)
        assert shown == ("evidence" in stop.rules)
        if finalists == 0 and "halving" in stop.rules:
            assert stop.rank > quota


def test_halving_goes_by_the_mean_loss_where_there_is_one() -> None:
    right, wrong = np.ones(4, np.bool_), np.zeros(4, np.bool_)
    low, high = np.full(4, 100, np.uint16), np.full(4, 200, np.uint16)
    cohort = {0: Results(right, high), 1: Results(wrong, low)}
    assert survivors(HALVING, cohort, {}, 1, 0, 1) == {1}
    cohort = {0: Results(right), 1: Results(wrong)}
    assert survivors(HALVING, cohort, {}, 1, 0, 1) == {0}


@pytest.mark.parametrize("better", [0, 1])
def test_one_unit_of_loss_in_a_million_images_decides(better: int) -> None:
    losses = np.full(1_000_000, 60_001, np.uint16)
    less = losses.copy()
    less[-1] -= 1
    right = np.ones(1_000_000, np.bool_)
    cohort = {better: Results(right, less), 1 - better: Results(right, losses)}
    assert survivors(HALVING, cohort, {}, 1, 0, 1) == {better}


def test_halving_keeps_the_best_of_the_study_beyond_the_quota() -> None:
    cohort = {n: with_losses(100 * n, 0) for n in (5, 6, 7, 8)}
    assert survivors(HALVING, cohort, {}, 1, 0, 3) == {5}
    assert survivors(HALVING, cohort, {}, 1, 3, 3) == {5, 6, 7}
    # two that were complete before take two of the places
    complete = {0: with_losses(0, 0, 65_535), 1: with_losses(550, 0, 0)}
    assert survivors(HALVING, cohort, complete, 1, 4, 3) == {5, 6}
    assert survivors(HALVING, cohort, complete, 0, 3, 3) == {5}
    assert survivors(HALVING, cohort, complete, 0, 1, 3) == set()


def test_trials_complete_on_fewer_images_are_not_compared() -> None:
    cohort = {n: with_losses(*[60_000] * 40) for n in (5, 6)}
    best = with_losses(*[0] * 40)
    assert survivors(EVIDENCE, cohort, {0: best}, 2, 2, 1) == set()
    assert survivors(EVIDENCE, cohort, {0: best.first(39)}, 2, 2, 1) == {5, 6}
    assert survivors(EVIDENCE, cohort, {0: best.then(with_losses(7))}, 2, 2, 1) == set()
    # nor do they take a finalist's place
    assert survivors(HALVING, cohort, {0: best.first(39)}, 1, 2, 1) == {5, 6}
    assert len(survivors(HALVING, cohort, {0: best}, 1, 2, 1)) == 1


def test_only_the_images_of_this_rung_count() -> None:
    """One that was complete before is the best on them, and the worst on those that follow."""
    cohort = {5: bits("1" * 30 + "0" * 10), 6: bits("1" * 20 + "0" * 20)}
    before = {0: bits("1" * 40 + "0" * 400)}
    assert survivors(HALVING, cohort, before, 0, 1, 1) == set()
    assert survivors(HALVING, cohort, before, 0, 2, 1) == {5}


def test_evidence_stops_what_lost_far_more_and_spares_what_did_not() -> None:
    """Against 20,000 less on each of 40 images every stake of 1/4 and more has won enough."""
    cohort = {0: with_losses(*[10_000] * 40), 1: with_losses(*[10_100] * 40)}
    cohort[2] = with_losses(*[30_000] * 40)
    assert survivors(EVIDENCE, cohort, {}, 1, 0, 2) == {0, 1}
    assert survivors(EVIDENCE, cohort, {}, 1, 0, 10**9) == {0, 1, 2}
    assert survivors(EVIDENCE, cohort, {}, 1, 3, 2) == {0, 1}  # finalists may be stopped by it


def test_the_incumbent_survives_the_evidence() -> None:
    generator = np.random.default_rng(10)
    for _ in range(50):
        losses = generator.integers(0, 65_536, (8, 30)).astype(np.uint16)
        cohort = {n: Results(np.ones(30, np.bool_), row) for n, row in enumerate(losses)}
        assert int(losses.sum(1, dtype=np.int64).argmin()) in survivors(
            EVIDENCE, cohort, {}, 0, 0, 0
        )


@pytest.mark.parametrize("losses", [True, False])
def test_the_order_of_the_trials_decides_nothing(losses: bool) -> None:
    generator = np.random.default_rng(3)
    cohort = {}
    for number in range(9):
        correct = generator.random(64) < 0.8
        units = generator.integers(0, 3, 64).astype(np.uint16)
        cohort[number] = Results(correct, units if losses else None)
    backwards = dict(reversed(cohort.items()))
    assert survivors(BOTH, cohort, {}, 4, 2, 8) == survivors(BOTH, backwards, {}, 4, 2, 8)


def test_of_no_trials_none_survives() -> None:
    assert survivors(BOTH, {}, {0: bits("1")}, 0, 3, 0) == set()


def test_without_racing_every_trial_survives_and_there_is_one_rung() -> None:
    assert OFF.rungs(5000, 64) == (5000,)
    cohort = {0: bits("1" * 64), 1: bits("0" * 64)}
    assert survivors(OFF, cohort, {}, 1, 1, 1) == {0, 1}


@pytest.mark.parametrize("losses", [True, False])
def test_equal_trials_are_promoted_in_the_order_of_their_lots(losses: bool) -> None:
    """Other images right, other losses on each, but the same sums."""
    numbers = range(100, 116)
    by_lot = sorted(numbers, key=lot)
    for quota in (1, 5, 16):
        cohort = {}
        for number in numbers:
            correct = np.roll(np.arange(16) < 10, number)
            units = np.roll(np.arange(16), number).astype(np.uint16)
            cohort[number] = Results(correct, units if losses else None)
        assert survivors(HALVING, cohort, {}, quota, 0, 15) == set(by_lot[:quota])
        assert survivors(HALVING, cohort, {}, 0, quota, 15) == set(by_lot[:quota])


def test_a_lot_is_drawn_by_a_digest() -> None:
    """So that it is the same in every process: as printf '\\0…\\1' | b2sum --length 64 has it."""
    assert lot(0).hex() == "ca08ea5bca49cc18"
    assert lot(1).hex() == "5199c35d28efdab8"
    assert lot(1000).hex() == "66ebfa11ac114273"


def test_lots_are_in_no_order_of_numbers() -> None:
    lots = [lot(number) for number in range(20_000)]
    assert len(set(lots)) == 20_000
    ascents = sum(one < next_one for one, next_one in zip(lots, lots[1:], strict=False))
    assert ascents / 20_000 == pytest.approx(0.5, abs=0.02)
    places = np.argsort(sorted(range(20_000), key=lots.__getitem__))
    assert abs(np.corrcoef(places, np.arange(20_000))[0, 1]) < 0.03


def test_among_equal_trials_a_lower_number_is_of_no_advantage() -> None:
    promoted = []
    for start in range(0, 4000, 20):
        cohort = {number: bits("10") for number in range(start, start + 20)}
        surviving = survivors(BOTH, cohort, {}, 10, 0, 19)
        assert len(surviving) == 10
        promoted += [number - start for number in surviving]
    assert np.mean(promoted) == pytest.approx(9.5, abs=0.4)  # three standard errors
    assert sum(place < 10 for place in promoted) / 2000 == pytest.approx(0.5, abs=0.035)
    assert np.bincount(promoted, minlength=20).min() > 70  # of 100, five of a standard error


@pytest.mark.parametrize("batch, losses, on_cpu, images", [
    (1, True, True, 1), (7, True, True, 7), (8, True, True, 8), (9, True, True, 8),
    (48, True, True, 8), (64, True, True, 8), (256, True, True, 8),
    (1, True, False, 1), (8, True, False, 8), (16, True, False, 16), (48, True, False, 48),
    (64, True, False, 64), (256, True, False, 256),
    (1, False, True, 64), (8, False, True, 64), (16, False, True, 64), (48, False, True, 96),
    (60, False, True, 120), (64, False, True, 64), (65, False, True, 65), (256, False, True, 256),
    (8, False, False, 64), (48, False, False, 96), (64, False, False, 64), (100, False, False, 100),
])  # fmt: skip
def test_the_first_rung_is_small_with_losses_and_whole_batches_without(
    batch: int, losses: bool, on_cpu: bool, images: int
) -> None:
    assert first_rung(batch, losses=losses, on_cpu=on_cpu) == images


@pytest.mark.parametrize("images, first, rungs", [
    (2000, 64, (64, 128, 256, 512, 1024, 2000)),
    (1024, 64, (64, 128, 256, 512, 1024)),
    (1025, 64, (64, 128, 256, 512, 1024, 1025)),
    (1000, 16, (16, 32, 64, 128, 256, 512, 1000)),
    (1000, 100, (100, 200, 400, 800, 1000)),
    (64, 64, (64,)),
    (50, 64, (50,)),
    (3, 1, (1, 2, 3)),
])  # fmt: skip
def test_rungs_by_hand(images: int, first: int, rungs: tuple[int, ...]) -> None:
    for racing in (BOTH, HALVING, EVIDENCE):
        assert racing.rungs(images, first) == rungs


@given(st.integers(1, 10**6), st.integers(1, 1000))
def test_rungs_double_from_the_first_to_all_images(images: int, first: int) -> None:
    rungs = BOTH.rungs(images, first)
    assert rungs[0] == min(first, images) and rungs[-1] == images
    for before, after in zip(rungs, rungs[1:-1], strict=False):
        assert after == 2 * before
    if len(rungs) > 1:
        assert rungs[-2] < images <= 2 * rungs[-2]


def test_halving_promotes_a_third_from_each_rung_and_a_half_of_bits() -> None:
    assert [BOTH.quota(100, rung) for rung in range(6)] == [34, 12, 4, 2, 1, 1]
    assert BOTH.by(losses=True) == BOTH
    bits = BOTH.by(losses=False)
    assert (bits.halving, bits.evidence) == (True, True)
    assert [bits.quota(100, rung) for rung in range(8)] == [50, 25, 13, 7, 4, 2, 1, 1]


def test_remaining_evaluations_by_hand() -> None:
    rungs = (64, 128, 256, 400)
    assert BOTH.remaining_evaluations(27, rungs, 0) == 27 * 64 + 9 * 64 + 3 * 128 + 1 * 144
    assert BOTH.remaining_evaluations(27, rungs, 2) == 27 * 128 + 9 * 144
    bits = HALVING.by(losses=False)
    assert bits.remaining_evaluations(8, rungs, 0) == 8 * 64 + 4 * 64 + 2 * 128 + 1 * 144
    assert EVIDENCE.remaining_evaluations(8, rungs, 0) == 8 * 400
    assert bits.share_of_first_rung(rungs) == 512 / (512 + 256 + 256 + 144)
    assert OFF.share_of_first_rung((400,)) == 1.0


@pytest.mark.parametrize("finalists, looks, z", [
    (2, 1, 1.959964), (2, 5, 2.575829), (3, 5, 2.935199), (5, 10, 3.480756),
])  # fmt: skip
def test_finalists_that_never_differ_are_equal_once_there_are_images_enough(
    finalists: int, looks: int, z: float
) -> None:
    """The interval is z * sqrt(2) / (images + 2) to both sides, and each pair and look has its
    part of 5 %."""
    pairs = finalists * (finalists - 1) // 2
    assert z == pytest.approx(norm.isf(0.025 / (pairs * looks)), abs=1e-6)
    enough = math.ceil(z * math.sqrt(2) / 0.002 - 2)
    same = bits("1" * enough)
    assert shown_equal([same] * finalists, looks)
    assert not shown_equal([same.first(enough - 1)] * finalists, looks)


def test_a_finalist_is_equal_to_itself() -> None:
    assert shown_equal([bits("10")], 5)
    assert shown_equal([], 0)


def finalists_of(flips: list[list[int]], images: int) -> list[Results]:
    """Right or wrong at random, each finalist on other images than all others."""
    alike = np.random.default_rng(images).random(images) < 0.8
    finalists = []
    for flipped in flips:
        correct = alike.copy()
        correct[[place % images for place in flipped]] ^= True
        finalists.append(Results(correct))
    return finalists


FLIPS = st.lists(st.lists(st.integers(0, 10**6), max_size=6), min_size=1, max_size=4)


@settings(deadline=None, max_examples=60)
@given(FLIPS, st.integers(1000, 8000), st.integers(1, 12))
def test_finalists_are_equal_where_every_interval_says_so(
    flips: list[list[int]], images: int, looks: int
) -> None:
    finalists = finalists_of(flips, images)
    slow = slow_equal([each.correct.tolist() for each in finalists], looks)
    assert shown_equal(finalists, looks) == slow


@settings(deadline=None)
@given(FLIPS, st.integers(1000, 8000), st.integers(1, 12), st.data())
def test_equality_depends_on_no_order_nor_on_which_is_right(
    flips: list[list[int]], images: int, looks: int, data: st.DataObject
) -> None:
    finalists = finalists_of(flips, images)
    equal = shown_equal(finalists, looks)
    assert shown_equal(data.draw(st.permutations(finalists)), looks) == equal
    assert shown_equal([Results(~each.correct) for each in finalists], looks) == equal


@settings(deadline=None)
@given(FLIPS, st.integers(1000, 8000), st.integers(1, 12), st.integers(0, 5000), st.booleans())
def test_finalists_stay_equal_on_more_images_on_which_they_agree(
    flips: list[list[int]], images: int, looks: int, more: int, right: bool
) -> None:
    finalists = finalists_of(flips, images)
    longer = [each.then(Results(np.full(more, right))) for each in finalists]
    twice = [each.then(each) for each in finalists]
    if shown_equal(finalists, looks):
        assert shown_equal(longer, looks) and shown_equal(twice, looks)
    if not shown_equal(longer, looks):
        assert not shown_equal(finalists, looks)


def test_losses_have_no_part_in_equality() -> None:
    right = np.ones(4000, np.bool_)
    none, all_lost = np.zeros(4000, np.uint16), np.full(4000, 65_535, np.uint16)
    assert shown_equal([Results(right, none), Results(right, all_lost)], 5)
    wrong = Results(~right, none)
    assert not shown_equal([Results(right, none), wrong], 5)


def called_equal(up: float, down: float, alike: int, runs: int = 1000) -> float:
    """Share of runs in which finalists are called equal on any rung but the last of 20,000 images.

    One of them is right on `up` of the images where the others are wrong, wrong on `down` where
    they are right; the others, `alike` in number, differ from one another on an image in 1,000.
    """
    rungs = BOTH.rungs(20_000, 16)
    generator = np.random.default_rng(11)
    called = 0
    for _ in range(runs):
        common = generator.random(20_000) < 0.8
        chance = generator.random(20_000)
        other = np.where(common, chance >= down / 0.8, chance < up / 0.2)
        finalists = [common ^ (generator.random(20_000) < 0.0005) for _ in range(alike - 1)]
        finalists += [common, other]
        called += any(
            shown_equal([Results(each[:rung]) for each in finalists], len(rungs) - 1)
            for rung in rungs[5:-1]  # fewer than 500 images are never enough
        )
    return called / runs


@pytest.mark.parametrize("up, down, alike", [
    (0.0, 0.0021, 1), (0.001, 0.0031, 1), (0.0121, 0.01, 1), (0.0, 0.003, 2),
])  # fmt: skip
def test_finalists_that_truly_differ_are_called_equal_in_a_twentieth_of_runs_at_most(
    up: float, down: float, alike: int
) -> None:
    assert called_equal(up, down, alike) <= 0.05


def test_finalists_that_hardly_differ_are_called_equal_in_the_end() -> None:
    assert called_equal(0.0005, 0.0005, 1) > 0.9
