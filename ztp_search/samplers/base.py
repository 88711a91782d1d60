"""What proposes configurations by index, none of them twice, and what every sampler is."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from ztp_search.errors import BudgetError
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.methods import method_of
from ztp_search.pruning.tokens import token_counts
from ztp_search.space.decoder import Decoder

Point = tuple[float, ...]
"""Coordinates in the unit cube, one for each of `Decoder.names`."""
MAX_ATTEMPTS = 1_000
MAX_MISSES = 100
"""Attempts at one trial whose points may miss the budget (one token can cost more than 1 %)."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """The configuration of a trial, and the point of the unit cube that it was decoded from."""

    config: PruningConfig
    point: Point


class Proposer(ABC):
    """Proposes the configuration of trial i, and never one that it must not.

    Configurations must be proposed in ascending order of index. One that equals an earlier one in
    what decides its result (realised token counts and scoring parameters) is not proposed.

    Attributes:
        generation: How many trials are proposed before it is told of their results. None: it makes
            no use of results, so any number may be.
        seen: Digests of the configurations that are not proposed again.

    Args:
        decoder: Says which model and space the configurations are for.
        seed: Of everything that is drawn at random.
        seen: A set to share with the others of a study, so that none of them proposes what another
            has proposed.
    """

    generation: int | None = None

    def __init__(self, decoder: Decoder, seed: int, seen: set[bytes] | None = None) -> None:
        self.decoder = decoder
        self.seed = seed
        self.seen: set[bytes] = set() if seen is None else seen

    @abstractmethod
    def propose(self, index: int) -> Proposal | None:
        """The configuration of trial `index`, which is excluded from then on.

        Returns:
            None where there is nothing left to propose.
        """

    def exclude(self, config: PruningConfig) -> None:
        """Never propose this configuration: a stored trial of a resumed study has it."""
        self.seen.add(self._digest(config))

    def tell(  # noqa: B027 - a sampler need not make use of results
        self, start: int, points: Sequence[Point], values: Sequence[float | None]
    ) -> None:
        """Report the results of a finished generation, before the next one is proposed.

        A resumed study reports the generations that are stored, in order, without having proposed
        them.

        Args:
            start: Number of the generation's first trial.
            points: As they were proposed, in order of trial number.
            values: Of each point; more is better, None where the trial failed.
        """

    def _digest(self, config: PruningConfig) -> bytes:
        """8 bytes that are the same for configurations that must have the same result.

        A set of them costs a tenth of the memory of what they stand for. Among a million
        configurations two different ones share a digest once in 40 million studies; the second is
        then replaced, in every run alike.
        """
        tokens = token_counts(self.decoder.geometry, config)
        key = method_of(config).identity(config, tokens)
        return hashlib.blake2b(repr(key).encode(), digest_size=8).digest()


class Sampler(Proposer):
    """Proposes the configuration of trial i; a subclass says which point of the unit cube.

    Trial i depends on the seed, the decoder, i, the configurations that are excluded, and the
    results that the sampler was told of before, and on nothing else. What equals an earlier
    configuration is replaced, attempt by attempt.

    To add a sampler, subclass this class (or AdaptiveSampler, where results steer it) in a file of
    its own and name it in SAMPLERS; tests/samplers/test_contract.py then tests it.

    Args:
        decoder: Turns points into configurations that meet the budget.
        seed: Of everything that is drawn at random.
        seen: A set to share with the other samplers of a study.

    Example:
        >>> sampler = MonteCarlo(decoder, seed=0)
        >>> cost_model = decoder.budget.cost_model(decoder.geometry)
        >>> decoder.budget.holds(cost_model.total(sampler.propose(0).config))
        True
    """

    @abstractmethod
    def point(self, index: int, attempt: int) -> Sequence[float]:
        """The point to decode for trial `index`.

        Args:
            index: Number of the trial, from 0.
            attempt: 0, and one more each time that the point was decoded to a configuration that
                is excluded, or to none.

        Returns:
            Coordinates in [0, 1], `decoder.dimensions` of them.
        """

    def propose(self, index: int) -> Proposal | None:
        """The configuration of trial `index`, which is excluded from then on.

        Returns:
            None where MAX_ATTEMPTS points have led to nothing new, as the space seems exhausted.

        Raises:
            BudgetError: Whole numbers of tokens missed the budget at every attempt, and no
                configuration has ever met it.
        """
        missed = 0
        for attempt in range(MAX_ATTEMPTS):
            point = tuple(self.point(index, attempt))
            try:
                config = self.decoder.decode(point)
            except BudgetError:
                missed += 1
                if missed == attempt + 1 == MAX_MISSES and not self.seen:
                    raise
                continue
            digest = self._digest(config)
            if digest not in self.seen:
                self.seen.add(digest)
                return Proposal(config, point)
        return None
