"""What a report is made of: a study as it was read, and what is said of it in several places."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ztp_search.pruning.schedules import BASELINES
from ztp_search.results.plots import Found
from ztp_search.results.report.blocks import Interval, Pictures
from ztp_search.results.report.tables import gflops_text, interval
from ztp_search.results.resume import resume_command
from ztp_search.results.search_result import SearchResult, search_result
from ztp_search.results.tables import percent
from ztp_search.study import StudyReader


@dataclass(frozen=True)
class Material:
    """A study as it was read, and what else the report is made of.

    command: that resumes the search.
    pictures: images before and after pruning; why there are none; "" where none were asked for.
    plots: whether plots are wanted.
    """

    found: Found
    result: SearchResult
    command: str
    pictures: Pictures | str = ""
    plots: bool = True

    @cached_property
    def winner(self) -> Mapping[str, Any] | None:
        """The winner's configuration file, as a document."""
        return None if self.result.winner is None else self.result.winner.to_dict()

    @cached_property
    def confirmed(self) -> Mapping[str, Any] | None:
        """The winner's record on holdout images; None before it was measured there.

        A study that goes on may have a winner that is none of those that were.
        """
        if self.found.holdout is None or self.winner is None:
            return None
        first: Mapping[str, Any] = self.found.holdout["candidates"][0]
        return first if first["trial"] == self.winner["provenance"]["trial"] else None

    @property
    def trial(self) -> str:
        assert self.winner is not None
        return f"trial {self.winner['provenance']['trial']}"


def material(study: StudyReader, *, plots: bool = True) -> Material:
    """Read a study for a report. plots: whether they are wanted."""
    found = Found.read(study)
    command = resume_command(found.study, found.storage, found.contract, found.attributes)
    return Material(found, search_result(study), command, plots=plots)


def differences(of: Material) -> list[Interval]:
    """The winner on holdout against the unpruned model and the hand-set schedules."""
    assert of.confirmed is not None and of.found.holdout is not None
    holdout, objective = of.found.holdout, of.found.objective
    unpruned = f"{percent(holdout['unpruned'][objective])} %"
    out = [interval(of.confirmed, "unpruned", "the unpruned model", unpruned)]
    for name in BASELINES:
        record = holdout.get(name)
        itself = of.confirmed.get("hand_set", "").split(" ")[0] == name
        if record and f"minus_{name}" in of.confirmed and not itself:
            gflops = gflops_text(record["gflops"]["total"])
            about = f"{percent(record[objective])} % at {gflops} GFLOPs"
            out.append(interval(of.confirmed, name, BASELINES[name].title, about))
    return out


def states(of: Material) -> str:
    """How many trials ended in which way."""
    counts = of.result.trials
    named = {
        "complete": counts.complete, "stopped by racing": counts.pruned, "failed": counts.failed,
        "running or interrupted": counts.running,
    }  # fmt: skip
    return f"Trials: {', '.join(f'{n:,} {state}' for state, n in named.items() if n) or 'none'}."
