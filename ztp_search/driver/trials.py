"""The trials of one study: cohort after cohort, from the samplers to the database.

Which trial numbers form a cohort, and which sampler proposes them, is stored in the study before
the cohort begins ("cohorts"). So a resume finds the same cohorts, and more `trials` or `refine`
only add to them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from ztp_search.driver.cohort import Cohort
from ztp_search.driver.evaluator import Evaluator
from ztp_search.driver.progress import Status
from ztp_search.driver.racing_trial import RacingTrial
from ztp_search.pruning.cost import cost_dict, flops
from ztp_search.racing import RACING, Correct, remaining_evaluations
from ztp_search.samplers import SAMPLERS, HandSet, Refine, Sampler
from ztp_search.settings import ResolvedSearch
from ztp_search.space.decoder import Decoder
from ztp_search.study import NewTrial, StudyDriver

HAND_SET, REFINE = "hand-set", "refine"
CHUNK_PER_WORKER, SMALLEST_CHUNK, LARGEST_CHUNK = 16, 32, 256
"""Trials that are proposed and started at a time: two tenths of a second of the driver at most."""


@dataclass(slots=True)
class CohortPlan:
    """Trials start to stop - 1 are one cohort.

    Attributes:
        sampler: proposes them; "hand-set" the schedules that are known beforehand, "refine" what
            lies around the best.
        start, stop: trial numbers.
        finalists: as it was asked for when the cohort began.
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
        seconds: after which nothing new starts, except the first chunk of a study; None: no limit.
    """

    def __init__(
        self,
        settings: ResolvedSearch,
        evaluator: Evaluator,
        study: StudyDriver,
        decoder: Decoder,
        seconds: float | None,
    ) -> None:
        self.settings = settings
        self.evaluator = evaluator
        self.study = study
        self.seconds = seconds
        self.racing = RACING[settings.racing]
        self.plans = [CohortPlan(**each) for each in study.attributes().get("cohorts", [])]
        seed = settings.sources.seed
        proposed: set[bytes] = set()
        self.schedules = {config: name for name, config in decoder.hand_set().items()}
        hand_set = HandSet(decoder, seed, proposed, list(self.schedules))
        known = min(len(hand_set.configs), settings.trials)
        self.requested = {
            HAND_SET: known, settings.sampler: settings.trials - known, REFINE: settings.refine,
        }  # fmt: skip
        self.samplers: dict[str, Sampler] = {
            HAND_SET: hand_set,
            settings.sampler: SAMPLERS[settings.sampler](decoder, seed, proposed),
            REFINE: Refine(decoder, seed, proposed),
        }
        self.stored = {trial.number: RacingTrial.from_stored(trial) for trial in study.trials()}
        self.complete: dict[int, Correct] = {}
        self.best: tuple[int, float] | None = None
        self.finished = 0
        self._began = time.monotonic()
        self._evaluations_before = evaluator.image_evaluations

    def run(self) -> None:
        """Run until all trials that are asked for are finished, or time is up.

        Raises:
            ZtpError: a configuration needs more memory than there is.
            WorkerError: workers are lost for good.
        """
        for plan in self._cohorts():
            self._race(plan)

    def _cohorts(self) -> Iterator[CohortPlan]:
        """Those that are stored, then those that are missing."""
        yield from list(self.plans)
        while True:
            planned = {
                name: sum(plan.stop - plan.start for plan in self.plans if plan.sampler == name)
                for name in self.samplers
            }
            missing = {name: count - planned[name] for name, count in self.requested.items()}
            exhausted = {plan.sampler for plan in self.plans if plan.exhausted}
            left = [name for name, n in missing.items() if n > 0 and name not in exhausted]
            if not left or (self.plans and self._seconds_left() == 0.0):
                return
            size = self.samplers[left[0]].generation or missing[left[0]]
            start = self.plans[-1].stop if self.plans else 0
            stop = start + min(size, missing[left[0]])
            self.plans.append(CohortPlan(left[0], start, stop, self.settings.candidates))
            self._store_plans()
            yield self.plans[-1]

    def _race(self, plan: CohortPlan) -> None:
        numbers = range(plan.start, plan.stop)
        trials = [trial for number, trial in sorted(self.stored.items()) if number in numbers]
        for trial in trials:
            self.samplers[plan.sampler].exclude(trial.config)
        cohort = Cohort(
            self.evaluator, self.study, self.racing, dict(self.complete), plan.finalists,
            len(numbers), trials,
        )  # fmt: skip
        if len(trials) < len(numbers) or cohort.running:
            for complete in cohort.run(self._proposals(plan, plan.start + len(trials), cohort)):
                for trial in complete:
                    self._note_best(trial)
                self._report(cohort)
        self._learn(plan, [cohort.trials[number] for number in sorted(cohort.trials)])

    def _proposals(
        self, plan: CohortPlan, first: int, cohort: Cohort
    ) -> Iterator[list[RacingTrial]]:
        """New trials from number `first` on, stored as running, some at a time."""
        sampler = self.samplers[plan.sampler]
        share = self.racing.share_of_first_rung(cohort.rungs) if sampler.generation is None else 1.0
        size = CHUNK_PER_WORKER * self.evaluator.pool().workers
        size = min(max(size, SMALLEST_CHUNK), LARGEST_CHUNK)
        self.evaluator.progress.stage("trials")
        for start in range(first, plan.stop, size):
            if self._seconds_left(share) == 0.0 and start > plan.start:
                return self._end_early(plan, start)
            chunk = []
            for number in range(start, min(start + size, plan.stop)):
                proposal = sampler.propose(number)
                if proposal is None:
                    plan.exhausted = True
                    self.evaluator.progress.note(
                        f"the space holds no configuration beyond the first {number} at this budget"
                    )
                    break
                chunk.append(RacingTrial(number, proposal.config, proposal.point))
            self.study.start([self._new(trial) for trial in chunk])
            if chunk:
                yield chunk
            if plan.exhausted:
                return self._end_early(plan, start + len(chunk))

    def _new(self, trial: RacingTrial) -> NewTrial:
        attrs = cost_dict(flops(self.evaluator.geometry, trial.config))
        attrs["point"] = list(trial.point)
        if not trial.point:
            attrs["hand_set"] = self.schedules[trial.config]
        return NewTrial(trial.number, trial.config, attrs)

    def _end_early(self, plan: CohortPlan, stop: int) -> None:
        """End a cohort before its planned number of trials: time is up, or the space exhausted."""
        plan.stop = stop
        self._store_plans()

    def _learn(self, plan: CohortPlan, trials: Sequence[RacingTrial]) -> None:
        """Give the samplers what came of a finished cohort."""
        if not trials:
            return
        drawn = [trial for trial in trials if trial.point]
        points, values = [t.point for t in drawn], [t.sampler_value for t in drawn]
        start = plan.start if drawn else plan.stop  # those behind begin there
        for name in self.samplers if not drawn else {plan.sampler, REFINE}:
            self.samplers[name].tell(start, points, values)
        for trial in trials:
            self.finished += 1
            if trial.state == "complete":
                self.complete[trial.number] = trial.correct
                self._note_best(trial)

    def _note_best(self, trial: RacingTrial) -> None:
        """Take a trial that has seen all images for the best so far, if it is."""
        value = trial.value
        assert value is not None  # as it is complete
        if self.best is None or (-value, trial.number) < (-self.best[1], self.best[0]):
            self.best = trial.number, value

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
        total = max(sum(self.requested.values()), done)
        images = cohort.remaining_images()
        later = max(0, total - self.finished - len(cohort.trials))
        images += remaining_evaluations(later, cohort.rungs, 0, self.racing.halving)
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
