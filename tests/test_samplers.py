"""What every sampler keeps: trial i follows from (seed, decoder, i), and no trial comes twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from test_decode import (
    DEIT_S,
    DIGITS,
    GEOMETRIES,
    assert_right,
    budget_of,
    counts_by_hand,
    size_of,
)
from test_space import space_of

from ztp_search.config import PruningConfig
from ztp_search.cost import Geometry
from ztp_search.decode import Decoder
from ztp_search.samplers import SAMPLERS, Sampler
from ztp_search.space import load_space

pytestmark = pytest.mark.parametrize("name", SAMPLERS)


def wide() -> Decoder:
    """A space in which hardly any two points meet."""
    return Decoder(load_space("digits"), DIGITS, budget_of(DIGITS, 0.68))


def tight() -> Decoder:
    """One layer, fixed thresholds: some hundred configurations, so that many points meet."""
    space = space_of(
        after_block=[3, 4, 5], layers=1, s_tokens=[0, 9], wpr_iterations=[1, 4], v_min=0.1, v_max=5
    )
    return Decoder(space, DIGITS, budget_of(DIGITS, 0.8, tolerance=0.02))


def single() -> Decoder:
    """A space of one configuration."""
    space = space_of(
        after_block=[4], layers=1, retention=0.5, s_tokens=10, wpr_iterations=2, v_min=0.1, v_max=5
    )
    return Decoder(space, DIGITS, budget_of(DIGITS, 0.69))


def what_counts(geometry: Geometry, config: PruningConfig) -> object:
    """Realised counts and scoring parameters: configurations equal in these give one result."""
    layers = [
        # iterations matter where the I-stage prunes, a layer where anything is pruned
        (layer.after_block, n, out, layer.s_tokens,
         layer.wpr_iterations if out + layer.s_tokens < n else None)
        for layer, (n, out) in zip(config.layers, counts_by_hand(geometry, config), strict=True)
        if out < n
    ]  # fmt: skip
    return str(layers), config.v_min, config.v_max


def proposals(sampler: Sampler, count: int, start: int = 0) -> list[PruningConfig | None]:
    return [sampler.propose(index) for index in range(start, start + count)]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=size_of)
def test_every_proposal_is_right_and_none_comes_twice(name: str, geometry: Geometry) -> None:
    decoder = Decoder(load_space("any"), geometry, budget_of(geometry, 0.67))
    configs = proposals(SAMPLERS[name](decoder, seed=0), 60)
    for config in configs:
        assert config is not None
        assert_right(decoder, config)
    assert len({what_counts(geometry, c) for c in configs if c is not None}) == 60


@pytest.mark.parametrize("make", [wide, tight])
def test_the_same_seed_proposes_the_same(name: str, make: Any) -> None:
    first = proposals(SAMPLERS[name](make(), seed=7), 25)
    assert proposals(SAMPLERS[name](make(), seed=7), 25) == first
    assert proposals(SAMPLERS[name](make(), seed=7), 10) == first[:10]


def test_the_seed_matters(name: str) -> None:
    seeds = (0, 1, 2, 2**32, 2**63)
    configs = {
        str(proposals(SAMPLERS[name](wide(), seed), 3)): seed for seed in seeds
    }
    assert len(configs) == len(seeds)


@pytest.mark.parametrize("stored", [1, 9, 24])
@pytest.mark.parametrize("make", [wide, tight])
def test_a_resumed_study_proposes_what_an_unbroken_one_does(
    name: str, make: Any, stored: int
) -> None:
    unbroken = proposals(SAMPLERS[name](make(), seed=3), 25)
    resumed = SAMPLERS[name](make(), seed=3)
    for config in unbroken[:stored]:
        assert config is not None
        resumed.remember(config)
    assert proposals(resumed, 25 - stored, start=stored) == unbroken[stored:]


def test_a_stored_configuration_counts_after_its_json_form(name: str) -> None:
    unbroken = proposals(SAMPLERS[name](tight(), seed=3), 20)
    resumed = SAMPLERS[name](tight(), seed=3)
    for config in unbroken[:10]:
        assert config is not None
        resumed.remember(PruningConfig.from_dict(config.to_dict()))
    assert proposals(resumed, 10, start=10) == unbroken[10:]


def test_duplicates_are_replaced_in_index_order(name: str) -> None:
    # Slowly: trial i is the first of its attempts that equals no earlier trial.
    decoder = tight()
    sampler = SAMPLERS[name](decoder, seed=5)
    seen: list[object] = []
    replaced = 0
    for index, config in enumerate(proposals(sampler, 40)):
        attempts = (decoder.decode(sampler.point(index, attempt)) for attempt in range(100))
        attempt, expected = next(
            (n, c) for n, c in enumerate(attempts) if what_counts(DIGITS, c) not in seen
        )
        assert config == expected
        seen.append(what_counts(DIGITS, expected))
        replaced += attempt > 0
    assert replaced >= 3  # or this space is no test


def test_a_space_that_is_used_up_ends(name: str) -> None:
    sampler = SAMPLERS[name](single(), seed=0)
    first = sampler.propose(0)
    assert first is not None
    assert_right(sampler.decoder, first)
    assert sampler.propose(1) is None
    assert sampler.propose(2) is None


def test_a_small_space_is_used_up_to_the_last(name: str) -> None:
    # s of 0 to 2 and 1 or 2 iterations; the rate follows from the budget, so six in all.
    space = space_of(
        after_block=[4], layers=1, s_tokens=[0, 2], wpr_iterations=[1, 2], v_min=0.1, v_max=5
    )
    sampler = SAMPLERS[name](Decoder(space, DEIT_S, budget_of(DEIT_S, 0.7)), seed=1)
    configs = proposals(sampler, 7)
    assert configs[6] is None
    layers = [config.layers[0] for config in configs[:6] if config is not None]
    assert {(layer.s_tokens, layer.wpr_iterations) for layer in layers} == {
        (s, iterations) for s in (0, 1, 2) for iterations in (1, 2)
    }


def test_points_lie_in_the_unit_cube_and_differ(name: str) -> None:
    sampler = SAMPLERS[name](wide(), seed=0)
    points: list[Sequence[float]] = [
        sampler.point(index, attempt) for index in range(50) for attempt in range(3)
    ]
    array = np.array(points)
    assert array.shape == (150, sampler.decoder.dimensions)
    assert (array >= 0).all() and (array < 1).all()
    assert len(np.unique(array, axis=0)) == 150
    assert sampler.point(4, 2) == sampler.point(4, 2)


def test_monte_carlo_points_are_uniform(name: str) -> None:
    if name != "monte-carlo":
        pytest.skip("others need not be")
    sampler = SAMPLERS[name](wide(), seed=0)
    array = np.array([sampler.point(index, 0) for index in range(1000)])
    # the mean of 1,000 uniform numbers has a standard deviation of 0.0091
    assert np.abs(array.mean(axis=0) - 0.5).max() < 5 * 0.0091
    tenths = np.array([np.histogram(column, 10, (0, 1))[0] for column in array.T])
    assert np.abs(tenths - 100).max() < 5 * 10
    correlation = np.corrcoef(array.T) - np.eye(array.shape[1])
    assert np.abs(correlation).max() < 6 / np.sqrt(1000)
