"""One cohort of trials racing up the rungs.

Nothing here depends on how many workers there are, in which order they finish, or how often the
driver died: a rung's decisions wait for all of its results, and a resume replays them from the
results that are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ztp_search.driver.measuring import Measuring, failed
from ztp_search.driver.objective import pack, unpack_bits
from ztp_search.evaluation.scheduler import Outcome, play
from ztp_search.evaluation.tasks import Failure
from ztp_search.pruning.config import PruningConfig
from ztp_search.racing import (
    Correct,
    Racing,
    cost_to_come,
    estimate,
    go_on,
    paired_difference,
    quota_after,
)
from ztp_search.study import StoredTrial, Study, Update

KIND = "trial"
STOPPED_AT_A_TIME = 64
"""Trials whose end is stored with the next results: a few milliseconds."""


@dataclass(slots=True)
class Entry:
    """A trial of a cohort as far as it has come.

    state: running, complete, pruned or failed. correct: per image seen. value: its estimate.
    told: what samplers learn of it, one standard error below the estimate: trials that were
    stopped early look better by chance than those that were not.
    """

    number: int
    config: PruningConfig
    point: tuple[float, ...]
    state: str = "running"
    value: float | None = None
    told: float | None = None
    correct: Correct = field(default_factory=lambda: np.zeros(0, np.bool_))
    fallbacks: int = 0
    seconds: float = 0.0

    @classmethod
    def of(cls, trial: StoredTrial) -> Entry:
        """A trial as the database has it."""
        entry = cls(trial.number, trial.config, tuple(trial.attrs["point"]), trial.state)
        images = trial.attrs.get("images", 0)
        if images:
            entry.correct = unpack_bits(trial.attrs["correct"], images)
            entry.fallbacks = round(trial.attrs["fallback_share"] * images)
            entry.seconds = trial.attrs["evaluation_seconds"]
            entry.value = trial.rungs[images] if trial.value is None else trial.value
            entry.told = entry.value - trial.attrs["standard_error"]
        if trial.state == "failed":
            entry.value = entry.told = None
        return entry

    @property
    def seen(self) -> int:
        """Images seen so far."""
        return len(self.correct)


class Cohort:
    """Trials that race against one another and against what was complete before.

    complete: results of trials that were complete before this cohort. finalists: so many of the
    study's best are never stopped by halving. planned: how many trials are to race. `entries`
    grows to that while the first rung runs.
    """

    def __init__(
        self,
        measuring: Measuring,
        study: Study,
        racing: Racing,
        complete: Mapping[int, Correct],
        finalists: int,
        planned: int,
        entries: Iterable[Entry] = (),
    ) -> None:
        self.measuring = measuring
        self.study = study
        self.racing = racing
        self.complete = complete
        self.finalists = finalists
        self.planned = planned
        self.rungs = racing.rungs(measuring.images("search"), measuring.runtime.batch_size)
        self.entries = {entry.number: entry for entry in entries}
        self.rung = 0
        self.running = sum(entry.state == "running" for entry in self.entries.values())
        self._stopped: list[Update] = []  # by the last decision, and not stored yet
        self.climbed = 0  # of those running, how many have seen this rung's images
        self.tell: Callable[[], None] = lambda: None
        self.completed: Callable[[Entry], None] = lambda _entry: None
        self.note: Callable[[str], None] = measuring.progress.note

    def run(self, more: Iterator[Sequence[Entry]]) -> None:
        """Race all entries, and those that `more` starts as workers have time for them.

        Raises ZtpError where a configuration needs more memory than there is, and WorkerError
        where workers are lost for good.
        """
        self._climb(0, more)
        for rung in range(1, len(self.rungs)):
            self._decide(rung - 1)
            self._climb(rung, iter(()))
            self._store_stopped()

    def images_to_come(self) -> float:
        """Image evaluations that are left to the trials here, if halving alone decides."""
        images = self.rungs[self.rung] - self._before(self.rung)
        climbing = self.running / (2 if self.racing.halving else 1)
        later = cost_to_come(climbing, self.rungs, self.rung + 1, self.racing.halving)
        return max(0, self.running - self.climbed) * images + later

    def _before(self, rung: int) -> int:
        return self.rungs[rung - 1] if rung else 0

    def _climb(self, rung: int, more: Iterator[Sequence[Entry]]) -> None:
        """Evaluate all that are still running on the images of a rung."""
        start, stop = self._before(rung), self.rungs[rung]
        self.rung = rung
        self.climbed = sum(
            entry.state == "running" and entry.seen >= stop for entry in self.entries.values()
        )

        waiting = {
            (KIND, entry.number): entry.config
            for entry in self.entries.values()
            if entry.state == "running" and entry.seen == start
        }
        through = len(self.entries) - len(waiting)

        def source() -> Iterator[dict[tuple[str, int], PruningConfig]]:
            yield waiting
            for entries in more:
                self.entries.update((entry.number, entry) for entry in entries)
                self.running += len(entries)
                yield {(KIND, entry.number): entry.config for entry in entries}

        def finished(results: Mapping[tuple[str, int], Outcome | Failure]) -> None:
            updates = [
                self._taken(self.entries[number], rung, result)
                for (_, number), result in results.items()
            ]
            self.study.update(updates + self._some_stopped())
            self.tell()

        def images_done(count: int) -> None:
            self.measuring.image_evaluations += count

        play(
            self.measuring.pool, source(), "search", start, stop,
            self.measuring.runtime.batch_size, finished, images_done,
            self.planned - through if rung == 0 else 0,
        )  # fmt: skip

    def _taken(self, entry: Entry, rung: int, result: Outcome | Failure) -> Update:
        """Take in what a trial gave on a rung; what is stored of it."""
        if isinstance(result, Failure):
            if result.out_of_memory:
                raise failed(result, f"trial {entry.number}")
            entry.state, entry.value, entry.told = "failed", None, None
            self.running -= 1
            self.note(f"trial {entry.number} failed: {result.reason}")
            return Update(entry.number, "failed", None, {"failure": result.reason}, None)
        correct = self.measuring.judge("search", result.predictions, entry.seen)
        entry.correct = np.concatenate([entry.correct, correct])
        entry.fallbacks += result.fallbacks
        entry.seconds += result.seconds
        attrs = self._evidence(entry) | {"rung": rung}
        value = entry.value = attrs.pop("estimate")
        entry.told = value - attrs["standard_error"]
        self.climbed += 1
        if rung == len(self.rungs) - 1:
            entry.state = "complete"
            self.running -= 1
            self.climbed -= 1
            self.completed(entry)
        return Update(entry.number, entry.state, entry.value, attrs, entry.seen)

    def _evidence(self, entry: Entry) -> dict[str, Any]:
        """What is stored of a trial's results so far."""
        measuring = self.measuring
        unpruned = measuring.judge("search", measuring.unpruned("search"))
        estimated = estimate(entry.correct, unpruned)
        difference = paired_difference(entry.correct, unpruned[: entry.seen])
        return {
            "estimate": estimated.value,
            "images": entry.seen,
            "standard_error": estimated.standard_error,
            "minus_unpruned": difference.difference,
            "minus_unpruned_ci95": list(difference.ci95),
            "fallback_share": entry.fallbacks / entry.seen,
            "evaluation_seconds": entry.seconds,
            "correct": pack(entry.correct),
        }

    def _decide(self, rung: int) -> None:
        """Stop those that do not go on from a rung; nothing to do where that has been done.

        That they are stopped is stored while the next rung runs: workers need not wait for it,
        and should it be lost, it follows from the results.
        """
        images = self.rungs[rung]
        reached = {n: e.correct[:images] for n, e in self.entries.items() if e.seen >= images}
        going = go_on(
            self.racing, reached, self.complete, quota_after(len(self.entries), rung),
            self.finalists, max(self.entries, default=0),
        )  # fmt: skip
        for number in reached.keys() - going:
            entry = self.entries[number]
            if entry.state == "running" and entry.seen == images:
                entry.state = "pruned"
                self.running -= 1
                self._stopped.append(Update(number, "pruned", entry.value, {}, None))

    def _some_stopped(self) -> list[Update]:
        some, self._stopped = self._stopped[:STOPPED_AT_A_TIME], self._stopped[STOPPED_AT_A_TIME:]
        return some

    def _store_stopped(self) -> None:
        while self._stopped:
            self.study.update(self._some_stopped())
            self.tell()
