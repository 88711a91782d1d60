"""What happens in a search, as plain records: decisions, which are logged, and measures.

A `Decision` is told once, in the order in which a search makes them. But for numbers of seconds it
depends on what the search is alone, not on how fast it went or on which workers. A `Measure` says
how it goes, and is for metrics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Event:
    """Something that has happened. Its fields are JSON values.

    name: what logs call it.
    """

    name: ClassVar[str] = ""

    @property
    def note(self) -> str | None:
        """A line on it for people, where they should read one."""
        return None


class Measure(Event):
    """How a search goes; decides nothing."""

    __slots__ = ()


class Decision(Event):
    """What a search has decided, found or met with."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Its fields; None in place of numbers that JSON does not have."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }


# ---- a study, from its beginning -----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin(Decision):
    """A study is begun or resumed.

    Attributes:
        storage: URL of its database, without a password.
        budget: as it was asked for.
        trials: how many are asked for.
        complete, pruned, failed, running: how many are stored; `running` is what a driver that
            died has left.
    """

    name: ClassVar[str] = "begin"
    storage: str
    budget: str
    trials: int
    complete: int
    pruned: int
    failed: int
    running: int


@dataclass(frozen=True, slots=True)
class Unpruned(Decision):
    """The unpruned model's accuracy on the search images is known."""

    name: ClassVar[str] = "unpruned"
    images: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class Cohort(Decision):
    """Trials `start` to `stop` - 1 are to race together, as `sampler` proposes them.

    rungs: how many images a trial has seen after each rung.
    """

    name: ClassVar[str] = "cohort"
    sampler: str
    start: int
    stop: int
    rungs: Sequence[int]


@dataclass(frozen=True, slots=True)
class Exhausted(Decision):
    """The space holds no configuration beyond the first `trials`."""

    name: ClassVar[str] = "exhausted"
    sampler: str
    trials: int

    @property
    def note(self) -> str:
        return f"the space holds no configuration beyond the first {self.trials} at this budget"


# ---- a trial -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sampled(Decision):
    """A trial is proposed, and stored as running."""

    name: ClassVar[str] = "sampled"
    trial: int
    sampler: str
    gflops: float
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rung(Decision):
    """A trial's results on a rung are stored.

    Attributes:
        trial: its number.
        rung: from 0.
        images: that it has seen by now.
        accuracy, standard_error: the estimate from all of these.
        loss: their mean loss, by which it races; None where right and wrong alone count.
    """

    name: ClassVar[str] = "rung"
    trial: int
    rung: int
    images: int
    accuracy: float
    standard_error: float
    loss: float | None


@dataclass(frozen=True, slots=True)
class Pruned(Decision):
    """Racing stops a trial behind a rung.

    Attributes:
        trial: its number.
        rung, images: where.
        rules: "halving", "evidence" or both, each of which would stop it.
        rank: among the cohort's on this rung, from 1.
        promoted: how many of these halving lets go on.
        incumbent: the trial that is best on this rung.
        evidence: logarithm of the evidence that it is worse than the incumbent; None without the
            rule.
        evidence_needed: the evidence that stops it.
    """

    name: ClassVar[str] = "pruned"
    trial: int
    rung: int
    images: int
    rules: Sequence[str]
    rank: int
    promoted: int
    incumbent: int
    evidence: float | None
    evidence_needed: float | None


@dataclass(frozen=True, slots=True)
class Complete(Decision):
    """A trial is complete.

    settled: it has not seen all images, as more would not tell the finalists apart.
    """

    name: ClassVar[str] = "complete"
    trial: int
    images: int
    accuracy: float
    settled: bool


@dataclass(frozen=True, slots=True)
class Failed(Decision):
    """A trial cannot be evaluated."""

    name: ClassVar[str] = "failed"
    trial: int
    reason: str

    @property
    def note(self) -> str:
        return f"trial {self.trial} failed: {self.reason}"


# ---- what it ends in -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finalists(Decision):
    """The trials that are to be confirmed on holdout images, the winner first."""

    name: ClassVar[str] = "finalists"
    trials: Sequence[int]


@dataclass(frozen=True, slots=True)
class Confirmed(Decision):
    """What holdout images say of a finalist, or of what finalists are compared with.

    Attributes:
        trial: None for the unpruned model and hand-set schedules.
        what: "finalist", "unpruned", or the name of a hand-set schedule.
        images: how many.
        accuracy, standard_error: on them.
        minus_unpruned, minus_unpruned_ci95: the paired difference and its interval; None for the
            unpruned model.
    """

    name: ClassVar[str] = "confirmed"
    trial: int | None
    what: str
    images: int
    accuracy: float
    standard_error: float
    minus_unpruned: float | None
    minus_unpruned_ci95: Sequence[float] | None


@dataclass(frozen=True, slots=True)
class Winner(Decision):
    """The winner of a study.

    digest: of its configuration; accuracy: on the search images.
    """

    name: ClassVar[str] = "winner"
    trial: int
    gflops: float
    accuracy: float
    digest: str


@dataclass(frozen=True, slots=True)
class End(Decision):
    """A study's search has ended. seconds: of the run so far, all budgets."""

    name: ClassVar[str] = "end"
    complete: int
    pruned: int
    failed: int
    running: int
    image_evaluations: int
    seconds: float


# ---- what it meets with --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Retry(Decision):
    """A worker has died, and what it had in hand is given out again.

    Attributes:
        trial: the first whose evaluation is repeated; None where none is a trial.
        tasks: how many are given out again.
        worker: which has died, from 0.
        deaths: how many workers the first of these tasks has taken with it.
        reason: what Ray says.
    """

    name: ClassVar[str] = "retry"
    trial: int | None
    tasks: int
    worker: int
    deaths: int
    reason: str


@dataclass(frozen=True, slots=True)
class Joined(Decision):
    """A worker has come: in place of a dead one, with a node that joined the cluster, or as the
    search's share of it grew.

    Attributes:
        worker: from 0.
        workers: how many there are with it.
    """

    name: ClassVar[str] = "joined"
    worker: int
    workers: int


@dataclass(frozen=True, slots=True)
class Shared(Decision):
    """This search's share of a cluster's workers has changed, as searches came or ended.

    Attributes:
        workers: how many it may have; none where it waits for another search to end.
        room: how many such workers the cluster has room for.
        searches: how many share it, this one included.
    """

    name: ClassVar[str] = "shared"
    workers: int
    room: int
    searches: int

    @property
    def note(self) -> str:
        if self.searches == 1:
            return f"{self.workers} of {self.room} workers: no other search uses the cluster now"
        waiting = "" if self.workers else "; waiting for one to end"
        return (
            f"{self.workers} of {self.room} workers: {self.searches} searches share the cluster"
            + waiting
        )


@dataclass(frozen=True, slots=True)
class Restarted(Decision):
    """Ray has died and was started again. tasks: how many are given out again."""

    name: ClassVar[str] = "restarted"
    tasks: int
    reason: str

    @property
    def note(self) -> str:
        return f"Ray was started again ({self.reason}); nothing is lost"


@dataclass(frozen=True, slots=True)
class Halved(Decision):
    """A worker has run out of memory, and takes fewer images per forward from now on.

    asked: the study's images per forward.
    """

    name: ClassVar[str] = "halved"
    batch_size: int
    asked: int

    @property
    def note(self) -> str:
        return (
            f"memory is short: batches of {self.batch_size} in place of {self.asked} images; "
            "results may differ in their last bits"
        )


@dataclass(frozen=True, slots=True)
class Outage(Decision):
    """The study database is away, and is waited for. patience: seconds, at most."""

    name: ClassVar[str] = "outage"
    reason: str
    patience: float

    @property
    def note(self) -> str:
        long = f"{self.patience / 60:g} minutes" if self.patience > 60 else f"{self.patience:g} s"
        return f"{self.reason}; trying again for {long} (Ctrl-C ends the search)"


@dataclass(frozen=True, slots=True)
class Back(Decision):
    """The study database is back. seconds: for which it was waited for."""

    name: ClassVar[str] = "back"
    seconds: float

    @property
    def note(self) -> str:
        return f"the study database is back after {self.seconds:.0f} s"


# ---- measures ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Evaluated(Measure):
    """Results have come in.

    Attributes:
        images: image evaluations.
        waiting, running: evaluations of a configuration on a range of images that no worker has
            been given yet, and that workers have.
    """

    images: int
    waiting: int
    running: int


@dataclass(frozen=True, slots=True)
class Stored(Measure):
    """The database has stored something. seconds: how long it took."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Best(Measure):
    """A trial has become the best so far of those that are complete.

    loss: its mean loss; None where there are no losses.
    """

    trial: int
    accuracy: float
    loss: float | None


DECISIONS: tuple[type[Decision], ...] = (
    Begin, Unpruned, Cohort, Exhausted, Sampled, Rung, Pruned, Complete, Failed, Finalists,
    Confirmed, Winner, End, Retry, Joined, Shared, Restarted, Halved, Outage, Back,
)  # fmt: skip
