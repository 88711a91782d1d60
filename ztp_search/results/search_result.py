"""What a search has found, out of the database alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import RenderableType

from ztp_search.pruning.config_file import ConfigFile
from ztp_search.results.documents import config_file, holdout_table
from ztp_search.results.shown import Shown
from ztp_search.results.tables import search_tables
from ztp_search.study import StoredTrial, StudyReader


@dataclass(frozen=True, slots=True)
class TrialCounts:
    """How many trials ended in which way.

    Attributes:
        complete: seen all images.
        pruned: stopped by racing, as not among the best.
        failed: could not be evaluated.
        running: not at their end.
    """

    complete: int
    pruned: int
    failed: int
    running: int


@dataclass(frozen=True, slots=True, repr=False)
class SearchResult(Shown):
    """What a search under one budget has found.

    Attributes:
        study: its name.
        storage: URL of its database, without a password.
        trials: how many ended in which way.
        image_evaluations: of all trials, references and finalists, over all runs of the study.
        racing: its rule and rungs, and image evaluations `in_full` and as they were.
        winner: the best configuration with its evidence, None while no trial is complete.
        holdout: the comparison on images that chose nothing (`unpruned`, `paper_schedule`,
            `candidates`, `verdict`), None without holdout images.
        seconds: of this run; None where the study was only read.
    """

    study: str
    storage: str
    trials: TrialCounts
    image_evaluations: int
    racing: Mapping[str, Any]
    winner: ConfigFile | None
    holdout: Mapping[str, Any] | None
    seconds: float | None = None

    @property
    def finalists(self) -> tuple[Mapping[str, Any], ...]:
        """The best few as measured on holdout images, the winner first."""
        return tuple(self.holdout["candidates"]) if self.holdout else ()

    def to_dict(self) -> dict[str, Any]:
        """The document that `ztp-search --json` prints."""
        document = {
            "study": self.study,
            "storage": self.storage,
            "trials": asdict(self.trials),
            "image_evaluations": self.image_evaluations,
            "racing": dict(self.racing),
            "best": None if self.winner is None else self.winner.to_dict(),
            "holdout": self.holdout,
        }
        return document if self.seconds is None else document | {"seconds": self.seconds}

    def __rich__(self) -> RenderableType:
        return search_tables(self.to_dict())


def search_result(study: StudyReader, seconds: float | None = None) -> SearchResult:
    """What the study has found so far; seconds: of the run that ends here."""
    trials = study.trials()
    states = Counter(trial.state for trial in trials)
    attributes = study.attributes()
    evaluations = sum(trial.attrs.get("images", 0) for trial in trials)
    for part in ("reference", "holdout"):
        evaluations += attributes.get(part, {}).get("image_evaluations", 0)
    best = study.best(1)
    return SearchResult(
        study=study.name,
        storage=study.storage,
        trials=TrialCounts(
            states["complete"], states["pruned"], states["failed"], states["running"]
        ),
        image_evaluations=evaluations,
        racing=_racing(study, trials),
        winner=config_file(study, best[0]) if best else None,
        holdout=holdout_table(study),
        seconds=seconds,
    )


def _racing(study: StudyReader, trials: Sequence[StoredTrial]) -> dict[str, Any]:
    """How many image evaluations the trials took, beside those of evaluating each in full."""
    taken = sum(trial.attrs.get("images", 0) for trial in trials)
    in_full = sum(trial.state != "failed" for trial in trials) * study.contract["images"]["count"]
    return {**study.contract["racing"], "image_evaluations": taken, "in_full": in_full}
