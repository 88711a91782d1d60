"""Adaptive samplers do adapt: on an objective worked out here, they come to propose better."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from helpers.geometries import DIGITS, budget_of
from helpers.spaces import space_of

from ztp_search.pruning.config import PruningConfig
from ztp_search.samplers import SAMPLERS, MonteCarlo, Refine, Sampler
from ztp_search.space.decoder import Decoder

ADAPTIVE = [name for name, sampler in SAMPLERS.items() if sampler.generation is not None]
SEEDS = (0, 1, 2)


def decoder() -> Decoder:
    """Two or three layers after four blocks: 21 coordinates."""
    space = space_of(after_block=[2, 3, 4, 5], layers=[2, 3], retention=[0.3, 1.0],
                     v_min={"low": 0.001, "high": 0.3, "log": True})  # fmt: skip
    return Decoder(space, DIGITS, budget_of(DIGITS, 0.68))


def value_of(config: PruningConfig) -> float:
    """Best, at 0: layers after blocks 2 and 4 that prune alike, 14 by similarity, v_min 0.1.

    None of it lies in the middle of the cube, where CMA-ES begins.
    """
    rates = {layer.after_block: layer.retention for layer in config.layers}
    misplaced = len({2, 4} ^ set(rates))
    uneven = max(rates.values()) - min(rates.values())
    similar = float(np.mean([abs(layer.s_tokens - 14) / 20 for layer in config.layers]))
    threshold = (math.log10(config.v_min) + 1) ** 2
    return -0.05 * misplaced - uneven**2 - 0.2 * similar - 0.1 * threshold


def search(
    sampler: Sampler, trials: int, start: int = 0, others: Sequence[Sampler] = (), seed: int = 0
) -> list[float]:
    """True values of these trials; the samplers are told noisy ones, as racing gives them."""
    noise = np.random.default_rng(seed)
    values: list[float] = []
    while len(values) < trials:
        count = min(sampler.generation or trials, trials - len(values))
        proposals = [sampler.propose(start + len(values) + i) for i in range(count)]
        assert None not in proposals
        true = [value_of(proposal.config) for proposal in proposals if proposal is not None]
        points = [proposal.point for proposal in proposals if proposal is not None]
        told = [value + float(noise.normal(0.0, 0.01)) for value in true]
        for one in (sampler, *others):
            one.tell(start + len(values), points, told)
        values += true
    return values


@pytest.fixture(scope="module")
def by_chance() -> list[float]:
    return search(MonteCarlo(decoder(), seed=9), 1000)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_late_generations_beat_chance(name: str, by_chance: list[float]) -> None:
    mean, spread = float(np.mean(by_chance)), float(np.std(by_chance))
    for seed in SEEDS:
        values = search(SAMPLERS[name](decoder(), seed), 224, seed=seed)
        first, late = np.mean(values[:32]), np.mean(values[-32:])
        # the mean of 32 by chance has a standard deviation of 0.18 of the spread
        assert late > mean + 0.8 * spread
        assert late > first + 0.4 * spread  # CMA-ES begins in the middle, better than chance


def test_refinement_improves_the_best_more_than_as_many_trials_by_chance() -> None:
    gained, chance = [], []
    for seed in range(6):
        seen: set[bytes] = set()
        main, refine = MonteCarlo(decoder(), seed, seen), Refine(decoder(), seed, seen)
        before = max(search(main, 100, others=[refine], seed=seed))
        gained.append(max(search(refine, 64, start=100, seed=seed)) - before)
        chance.append(max(search(MonteCarlo(decoder(), seed), 164)[100:]) - before)
    assert min(gained) > 0
    assert np.mean(gained) > 0.02 > 2 * np.mean(np.maximum(chance, 0.0))


def test_refinement_moves_few_coordinates_of_the_best() -> None:
    seen: set[bytes] = set()
    main, refine = MonteCarlo(decoder(), 0, seen), Refine(decoder(), 0, seen)
    proposals = [proposal for i in range(50) if (proposal := main.propose(i)) is not None]
    points = [proposal.point for proposal in proposals]
    values: list[float | None] = [value_of(proposal.config) for proposal in proposals]
    values[7] = None
    refine.tell(0, points, values)
    order = sorted(range(50), key=lambda i: -(values[i] if values[i] is not None else math.inf))
    parents = np.array([points[i] for i in order if i != 7][:8])
    for index in range(50, 66):
        moved = (np.abs(parents - np.array(refine.point(index, 0))) > 1e-7).sum(axis=1)
        assert 1 <= moved.min() <= 3


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_trial_before_the_results_that_are_known_is_refused(name: str) -> None:
    sampler = SAMPLERS[name](decoder(), seed=0)
    search(sampler, sampler.generation or 0)
    with pytest.raises(ValueError, match="ascending"):
        sampler.propose(1)
