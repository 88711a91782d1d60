"""One cohort of trials racing up the rungs.

Nothing here depends on how many workers there are, in which order they finish, or how often the
driver died: a rung's decisions wait for all of its results, and a resume repeats them from the
results that are stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ztp_search.driver.evaluator import Evaluator
from ztp_search.driver.racing_trial import RacingTrial
from ztp_search.evaluation.image_range import ImageRange
from ztp_search.evaluation.scheduler import Configs, Outcome
from ztp_search.evaluation.tasks import Failure
from ztp_search.events import Complete, Failed, Pruned, Rung
from ztp_search.racing import Racing, Results, shown_equal, stopped
from ztp_search.study import StudyDriver, Update

KIND = "trial"
DECIDED_PER_UPDATE = 64
"""Trials whose end is stored together with the next results: a few milliseconds."""


class Wave(NamedTuple):
    """New trials: about how many, and their starts, some at a time as workers have time."""

    trials: int
    starts: Iterator[Sequence[RacingTrial]]


class Cohort:
    """Trials that race against one another and against those that were complete before.

    Args:
        evaluator: evaluates them.
        study: stores what comes of them.
        racing: the rules that say who goes on.
        rungs: images that a trial has seen after each rung.
        complete: results of trials that were complete before this cohort, by number.
        finalists: so many of the study's best trials are never stopped by halving.
        trials: those that were started before (of a resumed study).

    Attributes:
        trials: by number.
        rung: the rung that is being climbed, from 0.
        running: trials that are still racing.
        climbed: of those running, how many have seen this rung's images.
        failed: trials that could not be evaluated.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        study: StudyDriver,
        racing: Racing,
        rungs: Sequence[int],
        complete: Mapping[int, Results],
        finalists: int,
        trials: Iterable[RacingTrial] = (),
    ) -> None:
        self.evaluator = evaluator
        self.study = study
        self.racing = racing
        self.complete = complete
        self.finalists = finalists
        self.rungs = rungs
        self.trials = {trial.number: trial for trial in trials}
        self.rung = 0
        self.running = sum(trial.state == "running" for trial in self.trials.values())
        self.climbed = 0
        self.failed = sum(trial.state == "failed" for trial in self.trials.values())
        self._decided: list[Update] = []  # at the last decision, and not stored yet

    def run(self, waves: Iterator[Wave]) -> Iterator[list[RacingTrial]]:
        """Race all trials, and those that `waves` start.

        Args:
            waves: Of new trials. The next one is asked for when all trials before it have been on
                the first rung.

        Yields:
            The trials that have become complete since the last time (often none), each time that
            results were stored.

        Raises:
            WorkerError: workers are lost for good.
        """
        for wave in waves:
            yield from self._climb(0, wave)
        for rung in range(1, len(self.rungs)):
            if self._settled(self._stop_losers(rung - 1)):
                break
            yield from self._climb(rung, Wave(0, iter(())))
            yield from self._store_decided()
        yield from self._store_decided()

    def remaining_images(self) -> float:
        """Image evaluations that the trials still need, if halving alone decides."""
        images = self.rungs[self.rung] - self._images_before(self.rung)
        climbing = self.running / (self.racing.kept_of if self.racing.halving else 1)
        later = self.racing.remaining_evaluations(climbing, self.rungs, self.rung + 1)
        return max(0, self.running - self.climbed) * images + later

    def _images_before(self, rung: int) -> int:
        return self.rungs[rung - 1] if rung else 0

    def _climb(self, rung: int, wave: Wave) -> Iterator[list[RacingTrial]]:
        """Evaluate all that are still running on the images of a rung, and a wave of new ones."""
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

        def source() -> Iterator[Configs]:
            yield waiting
            for trials in wave.starts:
                self.trials.update((trial.number, trial) for trial in trials)
                self.running += len(trials)
                yield {(KIND, trial.number): trial.config for trial in trials}

        expected = len(waiting) + wave.trials
        for completed in self.evaluator.evaluate(source(), images, expected):
            if not completed.outcomes:
                continue
            updates = [
                self._take(self.trials[number], rung, outcome)
                for (_, number), outcome in completed.outcomes.items()
            ]
            decided = self._some_decided()
            self.study.update([*updates, *decided])
            for update in updates:
                self._tell(update)
            yield self._complete_of([*updates, *decided])

    def _take(self, trial: RacingTrial, rung: int, outcome: Outcome | Failure) -> Update:
        """Take in what a trial gave on a rung, and say what is stored of it."""
        if isinstance(outcome, Failure):
            return self._fail(trial, outcome.reason)
        if broken := self._not_finite(trial, outcome):
            return self._fail(trial, f"outputs that are no finite numbers, on {broken} images")
        correct = self.evaluator.score("search", outcome.predictions, trial.images_seen)
        unpruned = self.evaluator.score("search", self.evaluator.unpruned("search"))
        attrs = trial.add(outcome, correct, unpruned) | {"rung": rung}
        if trial.results.losses is not None:
            attrs |= self.evaluator.signal.measured(trial.results.loss)
        if rung == len(self.rungs) - 1:
            trial.state = "complete"
            self.running -= 1
        else:
            self.climbed += 1
        return Update(trial.number, trial.state, trial.value, attrs, trial.images_seen)

    def _fail(self, trial: RacingTrial, reason: str) -> Update:
        trial.fail()
        self.running -= 1
        self.failed += 1
        return Update(trial.number, "failed", None, {"failure": reason}, None)

    def _not_finite(self, trial: RacingTrial, outcome: Outcome) -> int:
        """On how many images an output is not finite, where the unpruned model's is."""
        unpruned = self.evaluator.unpruned("search")[trial.images_seen :]
        unpruned = unpruned[: len(outcome.predictions)]
        return int(((outcome.predictions < 0) & (unpruned >= 0)).sum())

    def _tell(self, update: Update) -> None:
        """Tell what came of a trial on a rung, as it is stored."""
        number, attrs = update.number, update.attrs
        if update.value is None:
            self.evaluator.watch.tell(Failed(number, attrs["failure"]))
            return
        images = attrs["images"]
        self.evaluator.watch.tell(
            Rung(
                number, attrs["rung"], images, update.value, attrs["standard_error"],
                attrs.get("loss"),
            )
        )  # fmt: skip
        if update.state == "complete":
            self.evaluator.watch.tell(Complete(number, images, update.value, settled=False))

    def _stop_losers(self, rung: int) -> list[RacingTrial]:
        """Stop the trials that do not go on from a rung, and return those that do.

        That they are stopped is stored while the next rung runs, so that workers need not wait;
        should it be lost, it follows from the results.
        """
        images = self.rungs[rung]
        reached = {
            number: trial.results.first(images)
            for number, trial in self.trials.items()
            if trial.images_seen >= images
        }
        quota = self.racing.quota(len(self.trials), rung)
        stops = stopped(
            self.racing, reached, self.complete, quota, self.finalists,
            max(self.trials, default=0),
        )  # fmt: skip
        for number, stop in sorted(stops.items()):
            if self._end(self.trials[number], images, "pruned"):
                self.evaluator.watch.tell(
                    Pruned(
                        number, rung, images, stop.rules, stop.rank, quota, stop.incumbent,
                        stop.evidence, stop.needed,
                    )
                )  # fmt: skip
        return [self.trials[number] for number in sorted(reached.keys() - stops.keys())]

    def _settled(self, surviving: Sequence[RacingTrial]) -> bool:
        """Whether only finalists are left and more images would not tell them apart.

        Then they are complete on the images that they have seen.
        """
        if not self.racing.halving or not 1 < len(surviving) <= self.finalists:
            return False
        images = self.rungs[self.rung]
        finalists = [trial.results.first(images) for trial in surviving]
        if not shown_equal(finalists, looks=len(self.rungs) - 1):
            return False
        for trial in surviving:
            if self._end(trial, images, "complete"):
                assert trial.value is not None  # as it has seen images
                self.evaluator.watch.tell(Complete(trial.number, images, trial.value, settled=True))
        return True

    def _end(self, trial: RacingTrial, images: int, state: str) -> bool:
        """End a trial on a rung of so many images, unless it was ended before, or went on."""
        if trial.state != "running" or trial.images_seen != images:
            return False
        trial.state = state
        self.running -= 1
        self._decided.append(Update(trial.number, state, trial.value, {}, None))
        return True

    def _store_decided(self) -> Iterator[list[RacingTrial]]:
        while self._decided:
            updates = self._some_decided()
            self.study.update(updates)
            yield self._complete_of(updates)

    def _some_decided(self) -> list[Update]:
        some = self._decided[:DECIDED_PER_UPDATE]
        self._decided = self._decided[DECIDED_PER_UPDATE:]
        return some

    def _complete_of(self, updates: Iterable[Update]) -> list[RacingTrial]:
        return [self.trials[each.number] for each in updates if each.state == "complete"]
