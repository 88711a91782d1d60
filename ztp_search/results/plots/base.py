"""What every plot of a study offers, and the study as plots see it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from ztp_search.errors import ZtpError
from ztp_search.pruning.schedules import BASELINES
from ztp_search.results.documents import config_file, find_trial, holdout_table
from ztp_search.results.front_result import budget_point, marked_front
from ztp_search.results.plots.theme import template
from ztp_search.study import StoredTrial, StudyReader
from ztp_search.study.trial import rank

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

DOTS = 500
"""Trials that a plot draws beside the complete ones: more make a page slow and hide each other."""
TOP = 10
"""Of the evaluated trials one in so many is among the top ones, and at least so many are."""


@dataclass(frozen=True)
class Found:
    """A study as it was read at one moment: what plots and notes are made of.

    Attributes:
        study: its name.
        storage: URL of its database, without the password.
        contract: what a resume must find unchanged.
        attributes: results of the study as a whole.
        trials: all of them, by number.
        holdout: the comparison on holdout images, None before it is there.
        budgets: the winner of each budget of the same search, this one's too, by GFLOPs; as a
            search under several budgets prints them as its "front".
        ids: Optuna's numbers of the studies of these, by name.
    """

    study: str
    storage: str
    contract: Mapping[str, Any]
    attributes: Mapping[str, Any]
    trials: Sequence[StoredTrial]
    holdout: Mapping[str, Any] | None
    budgets: Sequence[Mapping[str, Any]]
    ids: Mapping[str, int]

    @classmethod
    def read(cls, study: StudyReader) -> Found:
        """Read a study, whether it has ended, is being searched, or has not begun."""
        attributes = study.attributes()
        search = [study, *study.siblings()]
        return cls(
            study=study.name,
            storage=study.storage,
            contract=study.contract,
            attributes=attributes,
            trials=study.trials(),
            holdout=_holdout(study),
            budgets=marked_front([point for each in search if (point := _point(each))]),
            ids={each.name: each.id for each in search},
        )

    @property
    def objective(self) -> str:
        """What the accuracies are of: top1 or agreement."""
        return str(self.contract.get("objective", "accuracy"))

    @property
    def unpruned(self) -> float | None:
        """The unpruned model's accuracy on all search images, None before it is known."""
        reference = self.attributes.get("reference", {}).get("unpruned")
        return None if reference is None else float(reference[self.objective])

    @property
    def baselines(self) -> dict[str, Mapping[str, Any]]:
        """What the hand-set schedules that fit did on the search images, by name."""
        reference = self.attributes.get("reference", {})
        return {name: reference[name] for name in BASELINES if reference.get(name)}

    @cached_property
    def complete(self) -> list[StoredTrial]:
        """The complete trials, the best first."""
        scores = self.attributes.get("scores", {})
        done = [trial for trial in self.trials if trial.state == "complete"]
        return sorted(done, key=lambda trial: rank(trial, scores))

    @cached_property
    def standing(self) -> list[StoredTrial]:
        """All trials that were evaluated, the best first.

        Those that are not complete come in the order in which the race left them: by images seen,
        then by their mean loss on these, or where racing goes without losses by their estimate.
        """
        others = [
            trial
            for trial in self.trials
            if trial.state in ("pruned", "running") and estimate_of(trial) is not None
        ]
        return self.complete + sorted(others, key=_left_by_the_race)

    @cached_property
    def places(self) -> dict[int, int]:
        """Where each evaluated trial stands, from 0, by number."""
        return {trial.number: place for place, trial in enumerate(self.standing)}

    @cached_property
    def others(self) -> list[StoredTrial]:
        """Trials that were evaluated and are not complete, as many as are drawn: evenly spread
        over the standing, the best first."""
        there = self.standing[len(self.complete) :]
        if len(there) <= DOTS:
            return there
        return [there[place * len(there) // DOTS] for place in range(DOTS)]

    @property
    def others_name(self) -> str:
        """What a legend calls these."""
        there = len(self.standing) - len(self.complete)
        return "stopped or running" + (f" ({DOTS:,} of {there:,})" if there > DOTS else "")

    @property
    def top(self) -> list[StoredTrial]:
        """The top tenth of `standing`, or its first ten."""
        return self.standing[: max(TOP, math.ceil(len(self.standing) / TOP))]


def estimate_of(trial: StoredTrial) -> float | None:
    """The estimate of a trial's accuracy on the images it has seen; None where there is none."""
    if trial.value is not None or trial.state == "failed" or not trial.rungs:
        return trial.value
    return trial.rungs[max(trial.rungs)]


def interval_of(trial: StoredTrial) -> tuple[float, float]:
    """The 95 % interval of the difference from the unpruned model, laid about the estimate."""
    value = estimate_of(trial) or 0.0
    low, high = trial.attrs["minus_unpruned_ci95"]
    difference = trial.attrs["minus_unpruned"]
    return max(0.0, value + low - difference), min(1.0, value + high - difference)


def images_of(trial: StoredTrial) -> int:
    """How many images a trial was evaluated on."""
    return int(trial.attrs.get("images", 0))


class Plot(ABC):
    """One picture of a study.

    Attributes:
        title: what it shows.
        caption: how to read it, one sentence.
        height: in pixels, of a width that is the reader's.
    """

    title: ClassVar[str]
    caption: ClassVar[str]
    height: ClassVar[int] = 420

    @abstractmethod
    def lacks(self, found: Found) -> str | None:
        """What a study has yet to give for there to be anything to show; None: nothing."""

    @abstractmethod
    def draw(self, found: Found) -> dict[str, Any]:
        """`data` and `layout` of Plotly's, as JSON, of a study that lacks nothing."""

    def figure(self, found: Found, theme: str = "light") -> Figure | None:
        """The plot, without title and caption; None where `lacks` says why there is none.

        theme: light or dark. Raises ZtpError without plotly.
        """
        if self.lacks(found) is not None:
            return None
        try:
            import plotly.graph_objects
        except ImportError:
            raise ZtpError(
                "plots need plotly; install it with: pip install 'ztp-search[dashboard]'"
            ) from None
        drawn = self.draw(found)
        layout = {"template": template(theme), "height": self.height, **drawn["layout"]}
        return plotly.graph_objects.Figure(data=drawn["data"], layout=layout)


def _left_by_the_race(trial: StoredTrial) -> tuple[int, float, int]:
    estimate = estimate_of(trial)
    assert estimate is not None
    return -images_of(trial), trial.attrs.get("loss", -estimate), trial.number


def _holdout(study: StudyReader) -> Mapping[str, Any] | None:
    """The comparison, where all of it is there."""
    stored = study.attributes().get("holdout")
    if stored is None or "unpruned" not in stored or not stored["candidates"]:
        return None
    table = holdout_table(study)
    return table if table and table["candidates"] else None


def _point(study: StudyReader) -> dict[str, Any] | None:
    """The winner of a study beside those of other budgets; None before it is confirmed."""
    holdout, best = _holdout(study), study.best(1)
    if holdout is not None:
        winner = find_trial(study, holdout["candidates"][0]["trial"])
    elif best and study.contract["holdout"]["count"] == 0:
        winner = best[0]
    else:
        return None
    return budget_point(study.name, config_file(study, winner).to_dict(), holdout)
