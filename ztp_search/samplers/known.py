"""Configurations that are known beforehand: enqueued files and hand-set schedules."""

from __future__ import annotations

from collections.abc import Sequence

from ztp_search.pruning.config import PruningConfig
from ztp_search.samplers.base import Proposal, Proposer
from ztp_search.space.decoder import Decoder


class Known(Proposer):
    """Proposes given configurations, one after the other; they have no point.

    Args:
        configs: in order; of those that must have the same result only the first counts.
    """

    def __init__(
        self,
        decoder: Decoder,
        seed: int,
        seen: set[bytes] | None = None,
        configs: Sequence[PruningConfig] = (),
    ) -> None:
        super().__init__(decoder, seed, seen)
        self._first: dict[bytes, PruningConfig] = {}
        for config in configs:
            self._first.setdefault(self._digest(config), config)

    @property
    def configs(self) -> list[PruningConfig]:
        """All of them, in order."""
        return list(self._first.values())

    @property
    def left(self) -> list[PruningConfig]:
        """Those that are neither proposed nor excluded."""
        return [config for digest, config in self._first.items() if digest not in self.seen]

    def propose(self, index: int) -> Proposal | None:
        for config in self.left[:1]:
            self.exclude(config)
            return Proposal(config, ())
        return None
