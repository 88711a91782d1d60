"""What Optuna's samplers share here, on the unit cube.

Each generation is drawn from a new study in memory, which holds what the algorithm needs of the
results so far and nothing else, by a sampler seeded from (seed, start). So there is no state that
a resumed study could lack. Optuna is imported where it is used: `--help` does without.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ztp_search.samplers.adaptive import AdaptiveSampler
from ztp_search.samplers.base import Point
from ztp_search.samplers.best import Result

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial


class OptunaSampler(AdaptiveSampler):
    """A sampler of Optuna; a subclass says which one, and which results it is given."""

    @abstractmethod
    def sampler(self, seed: int) -> BaseSampler:
        """Optuna's sampler, which draws one generation."""

    @abstractmethod
    def study(self, sampler: BaseSampler) -> Study:
        """A new study that holds the results so far."""

    def draw(self, start: int) -> list[list[float]]:
        with quiet():
            study = self.study(self.sampler(self._seed_of(start)))
            trials = [study.ask(self.distributions()) for _ in range(self.generation)]
            return [[trial.params[name] for name in self.decoder.names] for trial in trials]

    def empty_study(self, sampler: BaseSampler) -> Study:
        """A study in memory without any trial."""
        import optuna

        return optuna.create_study(
            storage=optuna.storages.InMemoryStorage(), sampler=sampler, direction="maximize"
        )

    def distributions(self) -> dict[str, BaseDistribution]:
        """The unit cube, as Optuna has it."""
        from optuna.distributions import FloatDistribution

        return {name: FloatDistribution(0.0, 1.0) for name in self.decoder.names}

    def complete_trials(self, results: Sequence[Result]) -> list[FrozenTrial]:
        """Results as trials to add to a study, for samplers that keep nothing of their own."""
        from optuna.trial import create_trial

        distributions = self.distributions()
        return [
            create_trial(params=self._params(point), distributions=distributions, value=value)
            for point, value in results
        ]

    def ask_and_tell(self, study: Study, results: Sequence[Result]) -> None:
        """Enter results as if the study's sampler had drawn them: it notes what it needs."""
        distributions = self.distributions()
        for point, value in results:
            study.enqueue_trial(self._params(point))
            trial = study.ask(distributions)
            trial.relative_params  # noqa: B018 - the sampler's turn, which fixed points skip
            study.tell(trial, value)

    def _params(self, point: Point) -> dict[str, float]:
        return dict(zip(self.decoder.names, point, strict=True))

    def _seed_of(self, start: int) -> int:
        """32 bits, as Optuna's samplers take them."""
        return int(np.random.SeedSequence([self.seed, start]).generate_state(1)[0])


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna reports each study it makes; not in here."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
