"""The contract of samplers: trial i follows from seed, decoder, earlier results and i alone, and no
configuration comes twice. A sampler joins by its line in SAMPLERS.
"""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from helpers.geometries import DEIT_S, DIGITS, GEOMETRIES, budget_of, counts_by_hand, size_of
from helpers.reference import round_half_up
from helpers.spaces import assert_right, space_of, wide

from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.geometry import Geometry
from ztp_search.samplers import SAMPLERS, Proposal, Refine, Sampler
from ztp_search.space import load_space
from ztp_search.space.decoder import Decoder

EVERY: Mapping[str, type[Sampler]] = {**SAMPLERS, "refine": Refine}
SMALL: Mapping[str, type[Sampler]] = {
    name: type(cls.__name__, (cls,), {"generation": cls.generation and 4})
    for name, cls in EVERY.items()
}
"""The same with generations of four, so that few trials make many generations."""

every_sampler = pytest.mark.parametrize("name", EVERY)


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


def value_of(config: PruningConfig) -> float | None:
    """Some value that has a best, and a failed trial here and there."""
    if sum(layer.s_tokens for layer in config.layers) % 7 == 3:
        return None
    return -sum((layer.retention - 0.8) ** 2 + 0.1 * layer.after_block for layer in config.layers)


def what_counts(geometry: Geometry, config: PruningConfig) -> object:
    """Realised counts and what the stages look at: configurations equal in these give one result.

    Iterations matter where the I-stage prunes, a layer where anything is pruned; thresholds where
    tokens are ranked, features where they are compared, sizes where any are merged.
    """
    layers = []
    by_s, by_i, by_i_merged = 0, 0, 0  # patch tokens, of all layers
    for layer, (n, out) in zip(config.layers, counts_by_hand(geometry, config), strict=True):
        least_important = n - out - layer.s_tokens
        merged = round_half_up(layer.merge_share, least_important)
        by_s, by_i, by_i_merged = (
            by_s + layer.s_tokens, by_i + least_important, by_i_merged + merged
        )  # fmt: skip
        if out < n:
            iterations = layer.wpr_iterations if least_important else None
            layers.append((layer.after_block, n, out, layer.s_tokens, iterations, merged))
    ranked = by_i or (by_s and config.partition != "position")
    merged_any = by_i_merged or (by_s and config.similar == "merge")
    return (
        str(layers),
        (config.v_min, config.v_max) if ranked else None,
        config.features if by_s or by_i_merged else None,
        (config.partition, config.similar) if by_s else None,
        config.sizes if merged_any else None,
    )


Generation = tuple[int, list[Proposal]]


@dataclass
class Search:
    """The loop around a sampler: generations of at most `generation`, the last one cut short."""

    sampler: Sampler
    generations: list[Generation] = field(default_factory=list)

    def run(self, trials: int, start: int = 0) -> list[Proposal]:
        """Trials start to trials - 1, or as many as the space holds."""
        return list(self._run(start, trials))

    def resume(self, generations: list[Generation], started: int, trials: int) -> list[Proposal]:
        """Finished generations from the database, one cut after `started`, and then the rest."""
        for start, proposals in generations[:-1]:
            self.exclude(proposals)
            points, values = stored(proposals)
            self.sampler.tell(start, points, values)
        start, proposals = generations[-1]
        self.exclude(proposals[:started])
        rest = self.propose(start + started, start + len(proposals))
        self._tell(start, proposals[:started] + rest)
        return rest + self.run(trials, start + len(proposals))

    def _run(self, start: int, trials: int) -> Iterator[Proposal]:
        while start < trials:
            stop = min(trials, start + (self.sampler.generation or 4))
            proposals = self.propose(start, stop)
            yield from proposals
            self._tell(start, proposals)
            if len(proposals) < stop - start:
                return
            start = stop

    def propose(self, start: int, stop: int) -> list[Proposal]:
        proposals = []
        for index in range(start, stop):
            proposal = self.sampler.propose(index)
            if proposal is None:
                break
            proposals.append(proposal)
        return proposals

    def _tell(self, start: int, proposals: list[Proposal]) -> None:
        self.generations.append((start, proposals))
        points = [proposal.point for proposal in proposals]
        self.sampler.tell(start, points, [value_of(proposal.config) for proposal in proposals])

    def exclude(self, proposals: list[Proposal]) -> None:
        for proposal in proposals:
            self.sampler.exclude(PruningConfig.from_dict(proposal.config.to_dict()))


def stored(proposals: list[Proposal]) -> tuple[list[tuple[float, ...]], list[float | None]]:
    """Points and values after their JSON form."""
    text = json.dumps([(p.point, value_of(p.config)) for p in proposals])
    read = json.loads(text)
    return [tuple(point) for point, _ in read], [value for _, value in read]


# --- what is proposed ----------------------------------------------------------------------------


@every_sampler
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=size_of)
def test_every_proposal_is_right_and_none_comes_twice(name: str, geometry: Geometry) -> None:
    decoder = Decoder(load_space("any"), geometry, budget_of(geometry, 0.67))
    proposals = Search(SMALL[name](decoder, seed=0)).run(24)
    for proposal in proposals:
        assert_right(decoder, proposal.config)
        assert decoder.decode(proposal.point) == proposal.config
    assert len({what_counts(geometry, proposal.config) for proposal in proposals}) == 24


@every_sampler
@pytest.mark.parametrize("make", [wide, tight])
def test_the_same_seed_proposes_the_same(name: str, make: Any) -> None:
    first = Search(SMALL[name](make(), seed=7)).run(20)
    random.seed(1)
    np.random.seed(1)  # what others draw has no say
    state = np.random.get_state()[1]
    assert Search(SMALL[name](make(), seed=7)).run(20) == first
    assert Search(SMALL[name](make(), seed=7)).run(10) == first[:10]
    assert np.array_equal(np.random.get_state()[1], state)


@every_sampler
def test_the_seed_matters(name: str) -> None:
    seeds = (0, 1, 2, 2**32, 2**63)
    configs = {str(Search(EVERY[name](wide(), seed)).run(3)): seed for seed in seeds}
    assert len(configs) == len(seeds)


@every_sampler
def test_attempts_at_a_trial_lie_in_the_unit_cube_and_differ(name: str) -> None:
    sampler = SMALL[name](wide(), seed=0)
    Search(sampler).run(12)
    attempts = (0, 1, 2, 30, 64, 65, 999)
    points = np.array([[sampler.point(i, attempt) for attempt in attempts] for i in range(12, 30)])
    assert points.shape == (18, len(attempts), sampler.decoder.dimensions)
    assert (points >= 0).all() and (points <= 1).all()
    for of_one_trial in points:
        assert len(np.unique(of_one_trial, axis=0)) == len(attempts)
    assert sampler.point(16, 2) == sampler.point(16, 2)


@every_sampler
def test_duplicates_are_replaced_in_index_order(name: str) -> None:
    # Slowly: trial i is the first of its attempts that equals no earlier trial.
    decoder = tight()
    sampler = EVERY[name](decoder, seed=5)
    seen: list[object] = []
    replaced = 0
    for index in range(40):
        attempts = (decoder.decode(sampler.point(index, attempt)) for attempt in range(200))
        attempt, expected = next(
            (n, c) for n, c in enumerate(attempts) if what_counts(DIGITS, c) not in seen
        )
        proposal = sampler.propose(index)
        assert proposal is not None and proposal.config == expected
        seen.append(what_counts(DIGITS, expected))
        replaced += attempt > 0
    assert replaced >= 3  # or this space is no test


@every_sampler
def test_what_is_excluded_is_not_proposed(name: str) -> None:
    first = EVERY[name](tight(), seed=5).propose(0)
    assert first is not None
    sampler = EVERY[name](tight(), seed=5)
    sampler.exclude(first.config)
    second = sampler.propose(0)
    assert second is not None
    assert what_counts(DIGITS, second.config) != what_counts(DIGITS, first.config)


def test_thresholds_that_differ_in_the_last_bit_are_two_configurations() -> None:
    sampler = EVERY["monte-carlo"](wide(), seed=0)
    config = sampler.decoder.decode([0.5] * sampler.decoder.dimensions)
    for v_min in (0.1 + 0.2, 0.3, 0.3):
        sampler.exclude(dataclasses.replace(config, v_min=v_min))
    assert len(sampler.seen) == 2


@every_sampler
def test_a_space_that_is_used_up_ends(name: str) -> None:
    sampler = EVERY[name](single(), seed=0)
    first = sampler.propose(0)
    assert first is not None
    assert_right(sampler.decoder, first.config)
    assert sampler.propose(1) is None
    assert sampler.propose(2) is None
    sampler.tell(0, [first.point], [0.5])
    assert sampler.propose(1) is None


@every_sampler
def test_a_small_space_is_used_up_to_the_last(name: str) -> None:
    # s of 0 to 2 and 1 or 2 iterations; the rate follows from the budget, so six in all.
    space = space_of(
        after_block=[4], layers=1, s_tokens=[0, 2], wpr_iterations=[1, 2], v_min=0.1, v_max=5
    )
    decoder = Decoder(space, DEIT_S, budget_of(DEIT_S, 0.7))
    cls: type[Sampler] = type("Small", (EVERY[name],), {"generation": EVERY[name].generation and 4})
    proposals = Search(cls(decoder, seed=1)).run(50)
    layers = [proposal.config.layers[0] for proposal in proposals]
    assert len(layers) == 6
    assert {(layer.s_tokens, layer.wpr_iterations) for layer in layers} == {
        (s, iterations) for s in (0, 1, 2) for iterations in (1, 2)
    }


# --- resuming ------------------------------------------------------------------------------------


@every_sampler
@pytest.mark.parametrize("make", [wide, tight])
def test_a_resumed_study_proposes_what_an_unbroken_one_does(name: str, make: Any) -> None:
    # cut everywhere: at the start, at each boundary of generations, and inside each
    search = Search(SMALL[name](make(), seed=3))
    unbroken = search.run(15)
    assert [len(proposals) for _, proposals in search.generations] == [4, 4, 4, 3]
    for cut in range(15):
        resumed = Search(SMALL[name](make(), seed=3))
        generations = search.generations[: cut // 4 + 1]
        assert resumed.resume(generations, cut % 4, 15) == unbroken[cut:], cut


@every_sampler
def test_more_trials_begin_a_new_generation(name: str) -> None:
    # 4, then 2 as the study ended there; with more --trials 4 from trial 6 on, and 2 again
    search = Search(SMALL[name](wide(), seed=3))
    search.run(6)
    more = search.run(12, start=6)
    assert [start for start, _ in search.generations] == [0, 4, 6, 10]
    for cut in range(6):
        resumed = Search(SMALL[name](wide(), seed=3))
        generations = search.generations[: cut // 4 + 3]
        assert resumed.resume(generations, cut % 4, 12) == more[cut:], cut


@every_sampler
def test_trials_of_another_sampler_may_lie_between(name: str) -> None:
    # 0 to 3 told; 4 to 9 another's, of which this one is not told
    search = Search(SMALL[name](wide(), seed=3))
    first = search.run(4)
    unbroken = search.run(18, start=10)
    resumed = Search(SMALL[name](wide(), seed=3))
    resumed.exclude(first)
    resumed.sampler.tell(0, *stored(first))
    resumed.exclude(unbroken[:2])
    assert resumed.propose(12, 14) == unbroken[2:4]


@every_sampler
def test_a_generation_that_failed_is_passed_over(name: str) -> None:
    search = Search(SMALL[name](wide(), seed=3))
    points = [proposal.point for proposal in search.propose(0, 4)]
    search.sampler.tell(0, points, [None] * 4)
    for proposal in search.propose(4, 8):
        assert_right(search.sampler.decoder, proposal.config)


def test_samplers_of_one_study_share_what_they_have_proposed() -> None:
    seen: set[bytes] = set()
    main, other = EVERY["monte-carlo"](tight(), 0, seen), EVERY["refine"](tight(), 0, seen)
    configs = []
    for index in range(40):
        proposal = (main if index % 2 else other).propose(index)
        assert proposal is not None
        configs.append(what_counts(DIGITS, proposal.config))
    assert len(set(configs)) == len(seen) == 40


# --- what it costs to have them ------------------------------------------------------------------


@every_sampler
def test_nothing_is_printed(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    Search(SMALL[name](wide(), seed=0)).run(12)
    assert capfd.readouterr() == ("", "")


def test_naming_the_samplers_imports_neither_optuna_nor_scipy() -> None:
    code = "import sys, ztp_search.samplers; print({'optuna', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
