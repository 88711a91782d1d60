"""Configurations that are known beforehand are proposed as they are given, each once."""

from __future__ import annotations

import dataclasses

import pytest
from helpers.geometries import DIGITS, budget_of
from helpers.spaces import space_of, wide

from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.samplers import SAMPLERS, Known, MonteCarlo, Proposer, Refine
from ztp_search.samplers.adaptive import AdaptiveSampler
from ztp_search.space.decoder import Decoder

ONE = PruningConfig((PruningLayer(2, 0.8, 5, 10), PruningLayer(5, 0.7, 0, 3)))
OTHER = dataclasses.replace(ONE, v_max=9.0)
THIRD = PruningConfig((PruningLayer(1, 1.0, 20),), similar="merge", sizes="track")
SAME_AS_ONE = PruningConfig((PruningLayer(2, 0.801, 5, 10), PruningLayer(5, 0.7, 0, 3)))
"""0.801 of 100 tokens are 80 as well."""


def proposed(sampler: Proposer, count: int) -> list[PruningConfig | None]:
    proposals = [sampler.propose(index) for index in range(count)]
    return [proposal and proposal.config for proposal in proposals]


def few() -> Decoder:
    """A space of six configurations: s of 0 to 2, one or two iterations."""
    space = space_of(
        after_block=[4], layers=1, s_tokens=[0, 2], wpr_iterations=[1, 2], v_min=0.1, v_max=5
    )
    return Decoder(space, DIGITS, budget_of(DIGITS, 0.8))


def test_configurations_come_in_the_order_given_and_none_behind_the_last() -> None:
    for configs in ([ONE, OTHER, THIRD], [THIRD, ONE, OTHER]):
        sampler = Known(wide(), seed=0, configs=configs)
        assert sampler.configs == configs
        assert proposed(sampler, 5) == [*configs, None, None]
    assert proposed(Known(wide(), seed=0), 1) == [None]


def test_the_seed_has_no_say() -> None:
    configs = [THIRD, ONE]
    first, second = (Known(wide(), seed, configs=configs) for seed in (0, 77))
    assert proposed(first, 2) == proposed(second, 2)


def test_what_is_given_has_no_point() -> None:
    sampler = Known(wide(), seed=0, configs=[ONE])
    proposal = sampler.propose(0)
    assert proposal is not None and proposal.point == ()
    assert not hasattr(sampler, "point")


def test_of_configurations_that_must_have_the_same_result_the_first_counts() -> None:
    sampler = Known(wide(), seed=0, configs=[ONE, SAME_AS_ONE, ONE, OTHER, THIRD, OTHER])
    assert proposed(sampler, 4) == [ONE, OTHER, THIRD, None]
    assert proposed(Known(wide(), seed=0, configs=[SAME_AS_ONE, ONE]), 2) == [SAME_AS_ONE, None]


def test_those_behind_the_ones_that_a_resumed_study_has_are_left() -> None:
    sampler = Known(wide(), seed=0, configs=[ONE, OTHER, THIRD])
    for config in (ONE, OTHER):
        sampler.exclude(config)
    proposal = sampler.propose(2)
    assert proposal is not None and proposal.config == THIRD
    assert sampler.propose(3) is None


@pytest.mark.parametrize("name", [*SAMPLERS, "refine"])
def test_no_other_sampler_of_the_study_proposes_them_again(name: str) -> None:
    every = MonteCarlo(few(), seed=0)
    configs = [config for config in proposed(every, 6) if config is not None]
    assert len(configs) == 6 and every.propose(6) is None  # all that the space holds
    seen: set[bytes] = set()
    hand_set = Known(few(), 0, seen, configs[:4])
    other = {**SAMPLERS, "refine": Refine}[name](few(), 0, seen)
    assert len(seen) == 0  # what is not proposed yet may be proposed
    assert proposed(hand_set, 4) == configs[:4]
    if isinstance(other, AdaptiveSampler):
        other.tell(4, [], [])
    left = [proposal.config for index in (4, 5) if (proposal := other.propose(index)) is not None]
    assert sorted(map(str, left)) == sorted(map(str, configs[4:]))
    assert other.propose(6) is None


def test_being_told_of_results_changes_nothing() -> None:
    sampler = Known(wide(), seed=0, configs=[ONE, OTHER])
    assert proposed(sampler, 1) == [ONE]
    sampler.tell(1, [], [])
    proposal = sampler.propose(1)
    assert proposal is not None and proposal.config == OTHER
