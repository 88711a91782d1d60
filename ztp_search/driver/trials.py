"""The trials of one study: cohort after cohort, from the samplers to the database.

Which trial numbers form a cohort, and which sampler proposes them, is stored in the study before
the cohort begins ("cohorts"), so a resume finds the same cohorts, and more --trials or --refine
only add to them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from ztp_search.driver.cohort import Cohort, Entry
from ztp_search.driver.measuring import Measuring
from ztp_search.driver.progress import Status
from ztp_search.pruning.cost import cost_dict, flops
from ztp_search.racing import RACING, Correct, cost_to_come
from ztp_search.samplers import SAMPLERS, Refine, Sampler, Seen
from ztp_search.space.decoder import Decoder
from ztp_search.study import NewTrial, Study

REFINE = "refine"
CHUNK_PER_WORKER, LEAST_CHUNK, MOST_CHUNK = 16, 32, 256
"""Trials that are proposed and started at a time: two tenths of a second of the driver at most."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a study.

    trials: proposed by `sampler`; refine: more of them around the best. racing: a name of RACING.
    finalists: how many of the best halving never stops. seconds: after which nothing new starts,
    but for the first chunk of a study.
    """

    trials: int
    sampler: str
    seed: int
    racing: str
    finalists: int
    refine: int = 0
    seconds: float | None = None


@dataclass(slots=True)
class Planned:
    """Trials start to stop - 1 are one cohort, proposed by `sampler` ("refine": around the best).

    finalists: as they were asked for when it began. exhausted: it ended because the sampler found
    no further configuration, and so is not asked again.
    """

    sampler: str
    start: int
    stop: int
    finalists: int
    exhausted: bool = False


class Trials:
    """Runs what is missing of a study; `run` returns when all that is wanted is finished."""

    def __init__(
        self, wanted: Wanted, measuring: Measuring, study: Study, decoder: Decoder
    ) -> None:
        self.wanted = wanted
        self.measuring = measuring
        self.study = study
        self.decoder = decoder
        self.racing = RACING[wanted.racing]
        self.plan = [Planned(**each) for each in study.attributes().get("cohorts", [])]
        seen = Seen()
        self.samplers: dict[str, Sampler] = {
            wanted.sampler: SAMPLERS[wanted.sampler](decoder, wanted.seed, seen),
            REFINE: Refine(decoder, wanted.seed, seen),
        }
        self.stored = {trial.number: Entry.of(trial) for trial in study.trials()}
        self.complete: dict[int, Correct] = {}
        self.best: tuple[int, float] | None = None
        self.finished = 0
        self.began = time.monotonic()
        self.before = measuring.image_evaluations

    def run(self) -> None:
        """Raises what `Cohort.run` raises."""
        for planned in self._cohorts():
            self._race(planned)

    def _cohorts(self) -> Iterator[Planned]:
        """Those that are stored, then those that are missing."""
        yield from list(self.plan)
        while True:
            have = {name: sum(p.stop - p.start for p in self.plan if p.sampler == name)
                    for name in self.samplers}  # fmt: skip
            missing = {self.wanted.sampler: self.wanted.trials, REFINE: self.wanted.refine}
            missing = {name: n - have[name] for name, n in missing.items()}
            exhausted = {planned.sampler for planned in self.plan if planned.exhausted}
            left = [name for name, n in missing.items() if n > 0 and name not in exhausted]
            if not left or (self.plan and self._seconds_left() == 0.0):
                return
            size = self.samplers[left[0]].generation or missing[left[0]]
            start = self.plan[-1].stop if self.plan else 0
            stop = start + min(size, missing[left[0]])
            self.plan.append(Planned(left[0], start, stop, self.wanted.finalists))
            self._store_plan()
            yield self.plan[-1]

    def _race(self, planned: Planned) -> None:
        numbers = range(planned.start, planned.stop)
        entries = [entry for number, entry in sorted(self.stored.items()) if number in numbers]
        for entry in entries:
            self.samplers[planned.sampler].remember(entry.config)
        cohort = Cohort(
            self.measuring, self.study, self.racing, dict(self.complete), planned.finalists,
            len(numbers), entries,
        )  # fmt: skip
        cohort.tell = lambda: self._tell(cohort)
        cohort.completed = self._completed
        if len(entries) < len(numbers) or any(entry.state == "running" for entry in entries):
            cohort.run(self._proposals(planned, planned.start + len(entries), cohort))
        self._learn(planned, [cohort.entries[number] for number in sorted(cohort.entries)])

    def _proposals(self, planned: Planned, first: int, cohort: Cohort) -> Iterator[list[Entry]]:
        """New trials from number `first` on, stored as running, some at a time."""
        sampler = self.samplers[planned.sampler]
        share = self.racing.share_of_first_rung(cohort.rungs) if sampler.generation is None else 1.0
        size = CHUNK_PER_WORKER * self.measuring.pool().workers
        self.measuring.progress.stage("trials")
        size = min(max(size, LEAST_CHUNK), MOST_CHUNK)
        for start in range(first, planned.stop, size):
            if self._seconds_left(share) == 0.0 and start > planned.start:
                return self._cut(planned, start)
            chunk = []
            for number in range(start, min(start + size, planned.stop)):
                proposal = sampler.propose(number)
                if proposal is None:
                    planned.exhausted = True
                    self.measuring.progress.note(
                        f"the space holds no configuration beyond the first {number} at this budget"
                    )
                    break
                chunk.append(Entry(number, proposal.config, proposal.point))
            self.study.start([self._new(entry) for entry in chunk])
            if chunk:
                yield chunk
            if planned.exhausted:
                return self._cut(planned, start + len(chunk))

    def _new(self, entry: Entry) -> NewTrial:
        attrs = cost_dict(flops(self.measuring.session.geometry, entry.config))
        return NewTrial(entry.number, entry.config, attrs | {"point": list(entry.point)})

    def _cut(self, planned: Planned, stop: int) -> None:
        """A cohort ends early: time is up, or the space is exhausted."""
        planned.stop = stop
        self._store_plan()

    def _learn(self, planned: Planned, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        points, values = [e.point for e in entries], [e.told for e in entries]
        for name in {planned.sampler, REFINE}:
            self.samplers[name].learn(planned.start, points, values)
        for entry in entries:
            self.finished += 1
            if entry.state == "complete":
                self.complete[entry.number] = entry.correct
                self._completed(entry)

    def _completed(self, entry: Entry) -> None:
        """A trial has seen all images: it may be the best so far."""
        assert entry.value is not None
        if self.best is None or (-entry.value, entry.number) < (-self.best[1], self.best[0]):
            self.best = entry.number, entry.value

    def _store_plan(self) -> None:
        self.study.set_attribute("cohorts", [asdict(each) for each in self.plan])

    def _seconds_left(self, share: float = 1.0) -> float:
        """Until nothing new may start; infinite without a limit."""
        if self.wanted.seconds is None:
            return float("inf")
        return max(0.0, share * self.wanted.seconds - (time.monotonic() - self.began))

    def _tell(self, cohort: Cohort) -> None:
        elapsed = time.monotonic() - self.began
        speed = (self.measuring.image_evaluations - self.before) / elapsed if elapsed else 0.0
        done = self.finished + len(cohort.entries) - cohort.running
        total = max(self.wanted.trials + self.wanted.refine, done)
        images = cohort.images_to_come()
        later = max(0, total - self.finished - len(cohort.entries))
        images += cost_to_come(later, cohort.rungs, 0, self.racing.halving)
        left = images / speed if speed > 0 else None
        if left is not None and self.wanted.seconds is not None:
            left = min(left, self._seconds_left())
        self.measuring.progress.trials(
            Status(
                done=done, total=total, running=cohort.running, rung=cohort.rung + 1,
                rungs=len(cohort.rungs), images_per_second=speed, best=self.best,
                seconds_left=left,
            )  # fmt: skip
        )
