"""The trials of one study: cohort after cohort, from the samplers to the database.

Which trial numbers form a cohort, and which sampler proposes them, is stored in the study before
the cohort begins ("cohorts"). So a resume finds the same cohorts, and more `trials` or `refine`
only add to them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from ztp_search.driver.cohort import Cohort, Wave
from ztp_search.driver.evaluator import Evaluator
from ztp_search.driver.known import known_configs
from ztp_search.driver.progress import Status
from ztp_search.driver.racing_trial import RacingTrial
from ztp_search.errors import WorkerError
from ztp_search.evaluation.origin import joined
from ztp_search.events import Best, Exhausted, Sampled
from ztp_search.events import Cohort as Planned
from ztp_search.pruning.cost import cost_dict, flops
from ztp_search.racing import FINALISTS, RACING, Results, predicted_differences
from ztp_search.samplers import SAMPLERS, Known, Proposer, Refine
from ztp_search.settings import ResolvedSearch
from ztp_search.space.decoder import Decoder
from ztp_search.study import NewTrial, StudyDriver

KNOWN, REFINE = "known", "refine"
CHUNK_PER_WORKER, SMALLEST_CHUNK, LARGEST_CHUNK = 16, 32, 256
"""Trials that are proposed and started at a time: two tenths of a second of the driver at most."""

FAILURES = 16
"""Where so many trials have failed and none has not, the others would."""


@dataclass(slots=True)
class CohortPlan:
    """Trials start to stop - 1 are one cohort.

    Attributes:
        sampler: proposes them; "known" what is known beforehand, "refine" what lies around the
            best.
        start, stop: trial numbers.
        finalists: that halving leaves; of what was asked for when the cohort began.
        exhausted: the cohort ended because the sampler found no further configuration, and so is
            not asked again.
    """

    sampler: str
    start: int
    stop: int
    finalists: int
    exhausted: bool = False


class TrialRunner:
    """Runs the trials that a study still lacks.

    Args:
        settings: how many trials, by which sampler, and how they race.
        evaluator: evaluates them.
        study: holds those that were run before, and stores the new ones.
        decoder: turns the samplers' points into configurations that meet the budget.
        rungs: images that a trial has seen after each rung.
        seconds: after which nothing new starts, except the first chunk of a study; None: no limit.
    """

    def __init__(
        self,
        settings: ResolvedSearch,
        evaluator: Evaluator,
        study: StudyDriver,
        decoder: Decoder,
        rungs: Sequence[int],
        seconds: float | None,
    ) -> None:
        self.settings = settings
        self.evaluator = evaluator
        self.study = study
        self.seconds = seconds
        self.racing = RACING[settings.racing].by(losses=evaluator.signal.soft)
        self.rungs = rungs
        self.plans = [CohortPlan(**each) for each in study.attributes().get("cohorts", [])]
        seed = settings.sources.seed
        proposed: set[bytes] = set()
        self.known = known_configs(settings.enqueued, decoder)
        self.queue = Known(decoder, seed, proposed, list(self.known))
        self.samplers: dict[str, Proposer] = {
            KNOWN: self.queue,
            settings.sampler: SAMPLERS[settings.sampler](decoder, seed, proposed),
            REFINE: Refine(decoder, seed, proposed),
        }
        self.stored = {trial.number: RacingTrial.from_stored(trial) for trial in study.trials()}
        evaluator.remember(joined(trial.origins for trial in self.stored.values()))
        self.complete: dict[int, Results] = {}
        self.best: tuple[int, float] | None = None
        self.finished = 0
        self.failed = 0  # of those
        self._began = time.monotonic()
        self._evaluations_before = evaluator.image_evaluations

    def run(self) -> None:
        """Run until all trials that are asked for are finished, or time is up.

        Raises:
            WorkerError: workers are lost for good, or too many trials failed.
        """
        for plan in self._cohorts():
            self._race(plan)
        self._store_scores()

    def _cohorts(self) -> Iterator[CohortPlan]:
        """Those that are stored, then those that are missing."""
        yield from list(self.plans)
        while True:
            missing = self._missing()
            exhausted = {plan.sampler for plan in self.plans if plan.exhausted}
            left = [name for name, n in missing.items() if n > 0 and name not in exhausted]
            if not left or (self.plans and self._seconds_left() == 0.0):
                return
            size = missing[left[0]]
            if left[0] == REFINE:  # a generation's parents are the best of the race before
                size = min(size, Refine.generation)
            start = self.plans[-1].stop if self.plans else 0
            finalists = max(FINALISTS, self.settings.candidates)
            self.plans.append(CohortPlan(left[0], start, start + size, finalists))
            self._store_plans()
            planned = Planned(left[0], start, start + size, list(self.rungs))
            self.evaluator.watch.tell(planned)
            yield self.plans[-1]

    def _missing(self) -> dict[str, int]:
        """How many trials each sampler has yet to propose.

        What is enqueued is always tried; of the hand-set schedules so many as `trials` has room
        for, and the rest of `trials` is the sampler's.
        """
        refined = sum(plan.stop - plan.start for plan in self.plans if plan.sampler == REFINE)
        started = self.plans[-1].stop if self.plans else 0
        room = max(0, self.settings.trials - (started - refined))
        enqueued = sum("enqueued" in self.known[config] for config in self.queue.left)
        known = max(enqueued, min(len(self.queue.left), room))
        return {
            KNOWN: known,
            self.settings.sampler: max(0, room - known),
            REFINE: self.settings.refine - refined,
        }

    def _race(self, plan: CohortPlan) -> None:
        numbers = range(plan.start, plan.stop)
        trials = [trial for number, trial in sorted(self.stored.items()) if number in numbers]
        for trial in trials:
            self.samplers[plan.sampler].exclude(trial.config)
        cohort = Cohort(
            self.evaluator, self.study, self.racing, self.rungs, dict(self.complete),
            plan.finalists, trials,
        )  # fmt: skip
        waves = self._waves(plan, plan.start + len(trials), cohort)
        if len(trials) < len(numbers) or cohort.running:
            self.evaluator.hold_targets()
            self.evaluator.pool()
            self.evaluator.progress.stage("trials")
            for complete in cohort.run(waves):
                for trial in complete:
                    self._note_best(trial)
                self._report(cohort)
                self._check_failures(cohort)
        else:
            for _ in waves:
                pass
        self._learn([cohort.trials[number] for number in sorted(cohort.trials)])

    def _waves(
        self, plan: CohortPlan, first: int, cohort: Cohort
    ) -> Iterator[Wave]:
        """The cohort's trials by the generations of its sampler, which learns from each.

        first: those of lower numbers were started before.
        """
        size = self.samplers[plan.sampler].generation or plan.stop - plan.start
        start = plan.start
        while start < plan.stop:
            stop = min(start + size, plan.stop)
            missing = max(start, first)
            yield Wave(max(0, stop - missing), self._proposals(plan, missing, stop))
            stop = min(stop, plan.stop)  # where it ended early
            self._tell(plan, start, [cohort.trials[number] for number in range(start, stop)])
            start = stop

    def _tell(self, plan: CohortPlan, start: int, trials: Sequence[RacingTrial]) -> None:
        """Give the sampler what a generation did on the first rung, the same images for all.

        Of what is known beforehand every sampler learns only that it takes up numbers. What
        refines learns from the race as a whole (`_learn`).
        """
        if plan.sampler == KNOWN:
            for sampler in self.samplers.values():
                sampler.tell(start + len(trials), [], [])
        if plan.sampler in (KNOWN, REFINE):
            return
        images = self.rungs[0]
        values = [
            -trial.results.first(images).loss if trial.images_seen >= images else None
            for trial in trials
        ]
        self.samplers[plan.sampler].tell(start, [trial.point for trial in trials], values)

    def _proposals(
        self, plan: CohortPlan, first: int, stop: int
    ) -> Iterator[list[RacingTrial]]:
        """New trials from number `first` to `stop` - 1, stored as running, some at a time."""
        sampler = self.samplers[plan.sampler]
        share = self.racing.share_of_first_rung(self.rungs)
        size = CHUNK_PER_WORKER * self.evaluator.pool().workers
        size = min(max(size, SMALLEST_CHUNK), LARGEST_CHUNK)
        for start in range(first, stop, size):
            if self._seconds_left(share) == 0.0 and start > plan.start:
                return self._end_early(plan, start)
            chunk = []
            for number in range(start, min(start + size, stop)):
                proposal = sampler.propose(number)
                if proposal is None:
                    plan.exhausted = True
                    self.evaluator.watch.tell(Exhausted(plan.sampler, number))
                    break
                chunk.append(RacingTrial(number, proposal.config, proposal.point))
            new = [self._new(trial) for trial in chunk]
            self.study.start(new)
            for each in new:
                self.evaluator.watch.tell(
                    Sampled(
                        each.number, plan.sampler, each.attrs["gflops"]["total"],
                        each.config.to_dict(),
                    )
                )  # fmt: skip
            if chunk:
                yield chunk
            if plan.exhausted:
                return self._end_early(plan, start + len(chunk))

    def _new(self, trial: RacingTrial) -> NewTrial:
        attrs = cost_dict(flops(self.evaluator.geometry, trial.config))
        attrs["point"] = list(trial.point)
        if not trial.point:
            attrs |= self.known[trial.config]
        return NewTrial(trial.number, trial.config, attrs)

    def _end_early(self, plan: CohortPlan, stop: int) -> None:
        """End a cohort before its planned number of trials: time is up, or the space exhausted."""
        plan.stop = stop
        self._store_plans()

    def _learn(self, trials: Sequence[RacingTrial]) -> None:
        """Take in a finished cohort: its complete trials, and what there is to refine."""
        drawn = [trial for trial in trials if trial.point]
        if drawn:
            points, values = [t.point for t in drawn], [t.sampler_value for t in drawn]
            self.samplers[REFINE].tell(drawn[0].number, points, values)
        for trial in trials:
            self.finished += 1
            self.failed += trial.state == "failed"
            if trial.state == "complete":
                self.complete[trial.number] = trial.results
                self._note_best(trial)

    def _check_failures(self, cohort: Cohort) -> None:
        """End a search that comes to nothing, and do so soon.

        Raises:
            WorkerError: more trials have failed than may, or all of the first ones.
        """
        failed, most = self.failed + cohort.failed, self.settings.max_failures
        if most is None:
            none_worked = cohort.rung == cohort.climbed == 0 and self.finished == self.failed
            if failed < FAILURES or not none_worked:
                return
        elif failed <= most:
            return
        first = next(each for each in self.study.trials() if each.state == "failed")
        allowed = "all that were evaluated" if most is None else f"`max_failures` is {most}"
        raise WorkerError(
            f"{failed} trials failed ({allowed}); trial {first.number}: {first.attrs['failure']}"
        )

    def _note_best(self, trial: RacingTrial) -> None:
        """Take a trial that has seen all images for the best so far, if it is."""
        value = trial.value
        assert value is not None  # as it is complete
        if self.best is None or (-value, trial.number) < (-self.best[1], self.best[0]):
            self.best = trial.number, value
            loss = None if trial.results.losses is None else trial.results.loss
            self.evaluator.watch.tell(Best(trial.number, value, loss))

    def _store_scores(self) -> None:
        """Rank the complete trials: by what is to be expected of their accuracy."""
        unpruned = self.evaluator.score("search", self.evaluator.unpruned("search"))
        numbers = sorted(self.complete)
        scores = predicted_differences([self.complete[number] for number in numbers], unpruned)
        self.study.set_attribute(
            "scores", {str(n): score for n, score in zip(numbers, scores.tolist(), strict=True)}
        )

    def _store_plans(self) -> None:
        self.study.set_attribute("cohorts", [asdict(plan) for plan in self.plans])

    def _seconds_left(self, share: float = 1.0) -> float:
        """Until nothing new may start; infinite without a limit."""
        if self.seconds is None:
            return float("inf")
        return max(0.0, share * self.seconds - (time.monotonic() - self._began))

    def _report(self, cohort: Cohort) -> None:
        """Say how far the trials are."""
        elapsed = time.monotonic() - self._began
        evaluations = self.evaluator.image_evaluations - self._evaluations_before
        speed = evaluations / elapsed if elapsed else 0.0
        done = self.finished + len(cohort.trials) - cohort.running
        total = max(self.settings.trials + self.settings.refine, self.plans[-1].stop, done)
        images = cohort.remaining_images()
        later = max(0, total - self.finished - len(cohort.trials))
        images += self.racing.remaining_evaluations(later, cohort.rungs, 0)
        left = images / speed if speed > 0 else None
        if left is not None and self.seconds is not None:
            left = min(left, self._seconds_left())
        self.evaluator.progress.trials(
            Status(
                done=done, total=total, running=cohort.running, rung=cohort.rung + 1,
                rungs=len(cohort.rungs), images_per_second=speed, best=self.best,
                seconds_left=left,
            )  # fmt: skip
        )
