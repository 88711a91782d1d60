"""One cohort of trials racing up the rungs.

Nothing here depends on how many workers there are, in which order they finish, or how often the
driver died: a rung's decisions wait for all of its results, and a resume repeats them from the
results that are stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ztp_search.driver.evaluator import Evaluator, failure_error
from ztp_search.driver.racing_trial import RacingTrial
from ztp_search.evaluation.image_range import ImageRange
from ztp_search.evaluation.scheduler import Configs, Outcome
from ztp_search.evaluation.tasks import Failure
from ztp_search.racing import Correct, Racing, promotion_quota, remaining_evaluations, survivors
from ztp_search.study import StudyDriver, Update

KIND = "trial"
STOPPED_PER_UPDATE = 64
"""Stopped trials that are stored together with the next results: a few milliseconds."""


class Cohort:
    """Trials that race against one another and against those that were complete before.

    Args:
        evaluator: evaluates them.
        study: stores what comes of them.
        racing: the rules that say who goes on.
        complete: scores of trials that were complete before this cohort, by number.
        finalists: so many of the study's best trials are never stopped by halving.
        planned: how many trials are to race; `trials` grows to that during the first rung.
        trials: those that were started before (of a resumed study).

    Attributes:
        trials: by number.
        rungs: images that a trial has seen after each rung.
        rung: the rung that is being climbed, from 0.
        running: trials that are still racing.
        climbed: of those running, how many have seen this rung's images.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        study: StudyDriver,
        racing: Racing,
        complete: Mapping[int, Correct],
        finalists: int,
        planned: int,
        trials: Iterable[RacingTrial] = (),
    ) -> None:
        self.evaluator = evaluator
        self.study = study
        self.racing = racing
        self.complete = complete
        self.finalists = finalists
        self.planned = planned
        self.rungs = racing.rungs(evaluator.image_count("search"), evaluator.runtime.batch_size)
        self.trials = {trial.number: trial for trial in trials}
        self.rung = 0
        self.running = sum(trial.state == "running" for trial in self.trials.values())
        self.climbed = 0
        self._stopped: list[Update] = []  # by the last decision, and not stored yet

    def run(self, more: Iterator[Sequence[RacingTrial]]) -> Iterator[list[RacingTrial]]:
        """Race all trials, and those that `more` starts as workers have time for them.

        Yields:
            The trials that have become complete since the last time (often none), each time that
            results were stored.

        Raises:
            ZtpError: a configuration needs more memory than there is.
            WorkerError: workers are lost for good.
        """
        yield from self._climb(0, more)
        for rung in range(1, len(self.rungs)):
            self._stop_losers(rung - 1)
            yield from self._climb(rung, iter(()))
            while self._stopped:
                self.study.update(self._some_stopped())
                yield []

    def remaining_images(self) -> float:
        """Image evaluations that the trials still need, if halving alone decides."""
        images = self.rungs[self.rung] - self._images_before(self.rung)
        climbing = self.running / (2 if self.racing.halving else 1)
        later = remaining_evaluations(climbing, self.rungs, self.rung + 1, self.racing.halving)
        return max(0, self.running - self.climbed) * images + later

    def _images_before(self, rung: int) -> int:
        return self.rungs[rung - 1] if rung else 0

    def _climb(
        self, rung: int, more: Iterator[Sequence[RacingTrial]]
    ) -> Iterator[list[RacingTrial]]:
        """Evaluate all that are still running on the images of a rung."""
        images = ImageRange("search", self._images_before(rung), self.rungs[rung])
        self.rung = rung
        self.climbed = sum(
            trial.state == "running" and trial.images_seen >= images.stop
            for trial in self.trials.values()
        )
        waiting = {
            (KIND, trial.number): trial.config
            for trial in self.trials.values()
            if trial.state == "running" and trial.images_seen == images.start
        }
        through = len(self.trials) - len(waiting)

        def source() -> Iterator[Configs]:
            yield waiting
            for trials in more:
                self.trials.update((trial.number, trial) for trial in trials)
                self.running += len(trials)
                yield {(KIND, trial.number): trial.config for trial in trials}

        expected = self.planned - through if rung == 0 else 0
        for completed in self.evaluator.evaluate(source(), images, expected):
            if not completed.outcomes:
                continue
            updates = [
                self._take(self.trials[number], rung, outcome)
                for (_, number), outcome in completed.outcomes.items()
            ]
            self.study.update(updates + self._some_stopped())
            yield [self.trials[each.number] for each in updates if each.state == "complete"]

    def _take(self, trial: RacingTrial, rung: int, outcome: Outcome | Failure) -> Update:
        """Take in what a trial gave on a rung, and say what is stored of it."""
        if isinstance(outcome, Failure):
            if outcome.out_of_memory:
                raise failure_error(outcome, f"trial {trial.number}")
            trial.fail()
            self.running -= 1
            self.evaluator.progress.note(f"trial {trial.number} failed: {outcome.reason}")
            return Update(trial.number, "failed", None, {"failure": outcome.reason}, None)
        correct = self.evaluator.score("search", outcome.predictions, trial.images_seen)
        unpruned = self.evaluator.score("search", self.evaluator.unpruned("search"))
        attrs = trial.add(outcome, correct, unpruned) | {"rung": rung}
        if rung == len(self.rungs) - 1:
            trial.state = "complete"
            self.running -= 1
        else:
            self.climbed += 1
        return Update(trial.number, trial.state, trial.value, attrs, trial.images_seen)

    def _stop_losers(self, rung: int) -> None:
        """Stop the trials that do not go on from a rung; those of a resumed study are stopped.

        That they are stopped is stored while the next rung runs, so that workers need not wait;
        should it be lost, it follows from the results.
        """
        images = self.rungs[rung]
        reached = {
            number: trial.correct[:images]
            for number, trial in self.trials.items()
            if trial.images_seen >= images
        }
        surviving = survivors(
            self.racing, reached, self.complete, promotion_quota(len(self.trials), rung),
            self.finalists, max(self.trials, default=0),
        )  # fmt: skip
        for number in reached.keys() - surviving:
            trial = self.trials[number]
            if trial.state == "running" and trial.images_seen == images:
                trial.state = "pruned"
                self.running -= 1
                self._stopped.append(Update(number, "pruned", trial.value, {}, None))

    def _some_stopped(self) -> list[Update]:
        some = self._stopped[:STOPPED_PER_UPDATE]
        self._stopped = self._stopped[STOPPED_PER_UPDATE:]
        return some
