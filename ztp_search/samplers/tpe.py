"""Tree-structured Parzen estimator, as Optuna has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ztp_search.samplers.best import Result, best
from ztp_search.samplers.optuna_base import OptunaSampler
from ztp_search.space.decoder import Decoder

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler


class Tpe(OptunaSampler):
    """Tree-structured Parzen estimator (Bergstra et al. 2011, Watanabe 2023).

    Each coordinate has a density of its own: in 31 to 47 dimensions a joint one of some hundred
    points tells good from bad no better than chance does. Points of a generation keep off each
    other (constant liar). Drawing takes time in proportion to the number of results, so of many
    the newest are kept, and of those before them the best, which the good density is made of.
    """

    generation = 32
    """Keeps that many workers busy, and still makes 15 generations of 500 trials."""
    newest = 400
    good = 25
    """As many as Optuna's estimator of good points takes at most."""

    def __init__(self, decoder: Decoder, seed: int, seen: set[bytes] | None = None) -> None:
        super().__init__(decoder, seed, seen)
        self._good: list[Result] = []
        self._newest: list[Result] = []

    def sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import TPESampler

        return TPESampler(
            seed=seed,
            n_startup_trials=self.generation,
            multivariate=False,
            constant_liar=True,
        )

    def study(self, sampler: BaseSampler) -> Study:
        study = self.empty_study(sampler)
        study.add_trials(self.complete_trials(self._good + self._newest))
        return study

    def update(self, results: Sequence[Result]) -> None:
        everything = self._newest + list(results)
        old, self._newest = everything[: -self.newest], everything[-self.newest :]
        self._good = best(self._good + old, self.good)
