"""Covariance matrix adaptation evolution strategy, as Optuna has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ztp_search.samplers.best import Result
from ztp_search.samplers.optuna_base import OptunaSampler, quiet
from ztp_search.space.decoder import Decoder

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


class CmaEs(OptunaSampler):
    """Covariance matrix adaptation evolution strategy (Hansen 2016).

    Its state lives in attributes of Optuna's trials, so the trials of the last two populations
    are kept. A generation that is short is filled up by the next one.
    """

    generation = 16
    """4 + 3 ln(dimensions), which is 14 to 16 for models of 8 to 24 blocks."""

    def __init__(self, decoder: Decoder, seed: int, seen: set[bytes] | None = None) -> None:
        super().__init__(decoder, seed, seen)
        self._kept: list[FrozenTrial] = []

    def sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import CmaEsSampler

        return CmaEsSampler(seed=seed, popsize=self.generation)

    def study(self, sampler: BaseSampler) -> Study:
        study = self.empty_study(sampler)
        # from the first complete trial Optuna learns the space; its value counts for nothing
        centre = ((0.5,) * self.decoder.dimensions, 0.0)
        study.add_trials(self.complete_trials([centre]) + self._kept)
        return study

    def update(self, results: Sequence[Result]) -> None:
        with quiet():
            study = self.study(self.sampler(0))
            self.ask_and_tell(study, results)
            self._kept = study.get_trials(deepcopy=False)[1:][-2 * self.generation :]
