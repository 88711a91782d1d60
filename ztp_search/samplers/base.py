"""What every sampler is: a source of configurations by index, none of them twice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from ztp_search.errors import BudgetError
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.cost import token_counts
from ztp_search.samplers.seen import Seen
from ztp_search.space.decoder import Decoder

Key = tuple[object, ...]
Point = tuple[float, ...]
MAX_ATTEMPTS = 1_000
MAX_MISSES = 100
"""Attempts at one trial whose points may miss the budget (one token can cost more than 1 %)."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """The configuration of a trial, and the point of the unit cube that `decode` was given."""

    config: PruningConfig
    point: Point


class Sampler(ABC):
    """Proposes the configuration of trial i; a subclass says which point of the unit cube.

    Configurations must be asked for in ascending order of index: those with the same realised
    counts and scoring parameters as an earlier one are replaced, attempt by attempt, so trial i
    depends on the seed, the decoder, i and the generations learned before it alone.

    generation: trials proposed before the results of them are learned; None where the sampler
        learns nothing, so that any number may be.
    seen: what has been proposed, to be shared by the samplers of one study.
    """

    generation: int | None = None

    def __init__(self, decoder: Decoder, seed: int, seen: Seen | None = None) -> None:
        self.decoder = decoder
        self.seed = seed
        self.seen = Seen() if seen is None else seen

    @abstractmethod
    def point(self, index: int, attempt: int) -> Sequence[float]:
        """Coordinates in [0, 1], `decoder.dimensions` of them, for this attempt at trial i."""

    def propose(self, index: int) -> Proposal | None:
        """The configuration of trial `index`; None once the space seems to hold no new one.

        Raises BudgetError where whole numbers of tokens miss the budget at every attempt, and
        there was never a configuration that met it.
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
            if self.seen.add(self._key(config)):
                return Proposal(config, point)
        return None

    def remember(self, config: PruningConfig) -> None:
        """Count a configuration as proposed (those of a resumed study, in order)."""
        self.seen.add(self._key(config))

    def learn(  # noqa: B027 - a sampler may well learn nothing
        self, start: int, points: Sequence[Point], values: Sequence[float | None]
    ) -> None:
        """Take in the results of a finished generation, which began at trial `start`.

        points: those proposed, in order of trial number. values: more is better; None where the
        trial failed. A resumed study learns its generations in order, without proposing them.
        """

    def _key(self, config: PruningConfig) -> Key:
        """What decides a result: iterations only of layers whose I-stage prunes anything."""
        tokens = token_counts(self.decoder.geometry, config)
        layers = []
        for layer in config.layers:
            n_in, n_out = tokens[layer.after_block - 1], tokens[layer.after_block]
            i_stage = n_out < n_in - layer.s_tokens
            iterations = layer.wpr_iterations if i_stage else 0
            if n_out < n_in:
                layers.append((layer.after_block, layer.s_tokens, iterations))
        return (
            tokens, tuple(layers), config.v_min, config.v_max, config.variant, config.partition,
            config.features, config.metric, config.order, config.aggregation,
        )  # fmt: skip
