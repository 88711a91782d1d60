"""The best trials of a study, with their evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import RenderableType

from ztp_search.pruning.config_file import ConfigFile
from ztp_search.results.documents import config_file
from ztp_search.results.shown import Shown
from ztp_search.results.tables import best_table, layer_table
from ztp_search.study import StoredTrial, StudyReader


@dataclass(frozen=True, slots=True, repr=False)
class RankedTrial(Shown):
    """One of the best trials.

    Attributes:
        number: of the trial.
        value: its accuracy on the search images, a fraction of one.
        file: what `export` writes of it.
        tokens: what each block computes on, and what leaves the last one.
        gflops: total, backbone, overhead, unpruned.
    """

    number: int
    value: float
    file: ConfigFile
    tokens: tuple[int, ...]
    gflops: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Its part of the document."""
        return {
            "trial": self.number,
            "config": self.file.config.to_dict(),
            "tokens": list(self.tokens),
            "gflops": self.gflops,
            "evidence": dict(self.file.evidence),
        }

    def __rich__(self) -> RenderableType:
        document = {**self.to_dict(), "provenance": {"trial": self.number}}
        return layer_table(document, "Configuration")

@dataclass(frozen=True, slots=True, repr=False)
class BestTrials(Shown):
    """The best complete trials of a study.

    Attributes:
        study: its name.
        storage: URL of its database, without a password.
        objective: what `value` is of.
        trials: the best first.
    """

    study: str
    storage: str
    objective: str
    trials: tuple[RankedTrial, ...]

    def to_dict(self) -> dict[str, Any]:
        """The document that `ztp-search best --json` prints."""
        return {
            "study": self.study,
            "storage": self.storage,
            "objective": self.objective,
            "trials": [trial.to_dict() for trial in self.trials],
        }

    def __rich__(self) -> RenderableType:
        return best_table(self.to_dict())


def best_trials(study: StudyReader, n: int) -> BestTrials:
    """The n best complete trials: highest value, then fewest GFLOPs, then lowest number."""
    return BestTrials(
        study=study.name,
        storage=study.storage,
        objective=study.contract["objective"],
        trials=tuple(_ranked(study, trial) for trial in study.best(n)),
    )


def _ranked(study: StudyReader, trial: StoredTrial) -> RankedTrial:
    assert trial.value is not None  # it is complete
    return RankedTrial(
        number=trial.number,
        value=trial.value,
        file=config_file(study, trial),
        tokens=tuple(trial.attrs["tokens"]),
        gflops=trial.attrs["gflops"],
    )
