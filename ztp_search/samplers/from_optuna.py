"""Optuna's samplers on the unit cube: TPE, CMA-ES and NSGA-II.

Each generation is asked from a new study in memory, which holds what the algorithm needs of the
history and nothing else, by a sampler seeded from (seed, start). So there is no state that a
resumed study could lack. Optuna is imported where it is used: `--help` does without.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ztp_search.samplers.base import Point
from ztp_search.samplers.best import Result, best
from ztp_search.samplers.learning import Learning
from ztp_search.samplers.seen import Seen
from ztp_search.space.decoder import Decoder

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


class _FromOptuna(Learning):
    """A sampler of Optuna; a subclass says which one, and what of the history it is given."""

    @abstractmethod
    def sampler(self, seed: int) -> BaseSampler:
        """The sampler that asks for one generation."""

    @abstractmethod
    def study(self, sampler: BaseSampler) -> Study:
        """A new study with the history in it."""

    def ask(self, start: int) -> list[list[float]]:
        with _quiet():
            study = self.study(self.sampler(self._seed(start)))
            trials = [study.ask(self._distributions()) for _ in range(self.generation)]
            return [[trial.params[name] for name in self.decoder.names] for trial in trials]

    def _seed(self, start: int) -> int:
        """32 bits, as Optuna's samplers take them."""
        return int(np.random.SeedSequence([self.seed, start]).generate_state(1)[0])

    def _distributions(self) -> dict[str, BaseDistribution]:
        from optuna.distributions import FloatDistribution

        return {name: FloatDistribution(0.0, 1.0) for name in self.decoder.names}

    def _empty(self, sampler: BaseSampler) -> Study:
        import optuna

        return optuna.create_study(
            storage=optuna.storages.InMemoryStorage(), sampler=sampler, direction="maximize"
        )

    def _trials(self, results: Sequence[Result]) -> list[FrozenTrial]:
        """Complete trials that no sampler has to know as its own."""
        from optuna.trial import create_trial

        distributions = self._distributions()
        return [
            create_trial(params=self._params(point), distributions=distributions, value=value)
            for point, value in results
        ]

    def _tell(self, study: Study, results: Sequence[Result]) -> None:
        """Complete trials that the sampler takes for its own: it notes with each what it needs."""
        distributions = self._distributions()
        for point, value in results:
            study.enqueue_trial(self._params(point))
            trial = study.ask(distributions)
            trial.relative_params  # noqa: B018 - the sampler's turn, which fixed points skip
            study.tell(trial, value)

    def _params(self, point: Point) -> dict[str, float]:
        return dict(zip(self.decoder.names, point, strict=True))


class Tpe(_FromOptuna):
    """Tree-structured Parzen estimator (Bergstra et al. 2011, Watanabe 2023).

    Each coordinate has a density of its own: in 31 to 47 dimensions a joint one of some hundred
    points tells good from bad no better than chance does. Points of a generation keep off each
    other (constant liar). Asking takes time in proportion to the history, so of a long one the
    newest trials are told and the best of those before, which the good density is made of.
    """

    generation = 32
    """Keeps that many workers busy, and still makes 15 generations of 500 trials."""
    newest = 400
    good = 25
    """As many as Optuna's estimator of good points takes at most."""

    def __init__(self, decoder: Decoder, seed: int, seen: Seen | None = None) -> None:
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
        study = self._empty(sampler)
        study.add_trials(self._trials(self._good + self._newest))
        return study

    def tell(self, results: Sequence[Result]) -> None:
        history = self._newest + list(results)
        old, self._newest = history[: -self.newest], history[-self.newest :]
        self._good = best(self._good + old, self.good)


class CmaEs(_FromOptuna):
    """Covariance matrix adaptation evolution strategy (Hansen 2016).

    Its state lives in attributes of Optuna's trials, so the trials of the last two populations
    are kept. A generation that is short is filled up by the next one.
    """

    generation = 16
    """4 + 3 ln(dimensions), which is 14 to 16 for models of 8 to 24 blocks."""

    def __init__(self, decoder: Decoder, seed: int, seen: Seen | None = None) -> None:
        super().__init__(decoder, seed, seen)
        self._kept: list[FrozenTrial] = []

    def sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import CmaEsSampler

        return CmaEsSampler(seed=seed, popsize=self.generation)

    def study(self, sampler: BaseSampler) -> Study:
        study = self._empty(sampler)
        # from the first complete trial Optuna knows the space; its value counts for nothing
        study.add_trials(self._trials([((0.5,) * self.decoder.dimensions, 0.0)]) + self._kept)
        return study

    def tell(self, results: Sequence[Result]) -> None:
        with _quiet():
            study = self.study(self.sampler(0))
            self._tell(study, results)
            self._kept = study.get_trials(deepcopy=False)[1:][-2 * self.generation :]


class Nsga2(_FromOptuna):
    """NSGA-II (Deb et al. 2002): a genetic algorithm that keeps the best.

    With one objective the parents are simply the best of all so far; they are told as the
    generation before.
    """

    generation = 32
    """As TPE; 16 to 48 do equally well on 500 trials."""

    def __init__(self, decoder: Decoder, seed: int, seen: Seen | None = None) -> None:
        super().__init__(decoder, seed, seen)
        self._parents: list[Result] = []

    def sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(seed=seed, population_size=self.generation)

    def study(self, sampler: BaseSampler) -> Study:
        study = self._empty(sampler)
        self._tell(study, self._parents)
        return study

    def tell(self, results: Sequence[Result]) -> None:
        self._parents = best([*self._parents, *results], self.generation)


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna reports each study it makes; not here."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
