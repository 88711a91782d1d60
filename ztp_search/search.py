"""The search: sample under the budget, evaluate on workers, store, confirm on holdout.

`run` is the one loop and makes every decision; workers only evaluate. Read downward: the flow,
then what each step adds.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ztp_search.budget import parse_budget
from ztp_search.config import PruningConfig
from ztp_search.confirm import confirm, measure_paper_schedule, measure_unpruned
from ztp_search.cost import cost_dict, flops
from ztp_search.data import ImageSets
from ztp_search.decode import Decoder
from ztp_search.errors import StudyError
from ztp_search.evaluate import Runtime, resolve_runtime
from ztp_search.progress import Progress, Status
from ztp_search.racing import accuracy, paired_difference, standard_error
from ztp_search.report import search_document
from ztp_search.samplers import SAMPLERS
from ztp_search.session import (
    Gather,
    Outcome,
    Predictions,
    Session,
    Sources,
    WorkerOptions,
    Workers,
    check_labels,
    failed,
    judge,
    pack,
)
from ztp_search.space import SearchSpace
from ztp_search.study import Study
from ztp_search.workers import Failure, Task

PACKAGES = ("ztp-search", "torch", "timm", "optuna", "ray", "numpy")


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a search is told. precision and device may be "auto"; timeout is in seconds.

    candidates: how many of the best are measured again on holdout.
    """

    space: SearchSpace
    sources: Sources
    workers: WorkerOptions
    budget: str
    storage: str
    study: str
    trials: int
    batch_size: int
    tolerance: float = 0.01
    budget_counts: str = "total"
    objective: str = "top1"
    sampler: str = "monte-carlo"
    precision: str = "auto"
    device: str = "auto"
    threads: int = 1
    timeout: float | None = None
    candidates: int = 5


def run(settings: Settings, progress: Progress) -> dict[str, Any]:
    """Search, or resume the search, and confirm the best on holdout.

    Returns the document that `--json` prints. Raises ZtpError for the user's mistakes, found
    before any work where they can be, and WorkerError where evaluation fails for good.
    """
    began = time.monotonic()
    progress.stage("loading the model")
    session = Session.open(settings.sources)
    budget = parse_budget(
        settings.budget, session.geometry, settings.tolerance, settings.budget_counts
    )
    decoder = Decoder(settings.space, session.geometry, budget)
    runtime = _runtime(settings)
    progress.stage("decoding images")
    images = session.decode(progress.images)
    check_labels(images, settings.objective)
    with (
        _open_study(settings, session, images, decoder, runtime) as study,
        session.workers(runtime, settings.workers) as workers,
    ):
        unpruned = measure_unpruned(
            workers, study, session, settings.objective, runtime, progress
        )
        _Trials(settings, session, decoder, study, workers, unpruned, progress).run()
        best = study.best(settings.candidates)
        if not best:
            raise StudyError(_nothing_complete(study))
        measure_paper_schedule(
            workers, study, session, settings.objective, budget, runtime, progress
        )
        if len(images.holdout):
            confirm(workers, study, session, settings.objective, best, runtime, progress)
        return search_document(study) | {"seconds": time.monotonic() - began}


def _runtime(settings: Settings) -> Runtime:
    """The study's runtime where it exists and "auto" is asked for, else this machine's best.

    A resumed study goes on as it began, on whatever machine.
    """
    device, precision = settings.device, settings.precision
    stored = _stored_contract(settings).get("runtime", {})
    if device == "auto":
        device = stored.get("device", device)
    if precision == "auto" and device == stored.get("device"):
        precision = stored.get("precision", precision)
    return resolve_runtime(device, precision, settings.batch_size, settings.threads)


def _stored_contract(settings: Settings) -> dict[str, Any]:
    try:
        with Study.load(settings.storage, settings.study) as study:
            return study.contract
    except StudyError:  # no such study yet; what else is wrong, opening it will say
        return {}


def _open_study(
    settings: Settings,
    session: Session,
    images: ImageSets,
    decoder: Decoder,
    runtime: Runtime,
) -> Study:
    """Open the study under the contract that a resume must match."""
    contract = {
        "space": settings.space.sha256,
        "geometry": dataclasses.asdict(session.geometry),
        "model": {
            "name": settings.sources.model.name,
            "kwargs": dict(settings.sources.model.kwargs),
            "num_classes": settings.sources.model.num_classes,
        },
        "weights_sha256": session.loaded.weights_sha256,
        "budget": dataclasses.asdict(decoder.budget),
        "objective": settings.objective,
        "sampler": settings.sampler,
        "seed": settings.sources.seed,
        "images": {"count": len(images.search), "sha256": images.search.digest},
        "holdout": {"count": len(images.holdout), "sha256": images.holdout.digest},
        "runtime": dataclasses.asdict(runtime),
    }
    study = Study.open(
        settings.storage,
        settings.study,
        contract,
        blocks=[block.block for block in decoder.blocks],
        ranges=decoder.parameter_ranges(),
    )
    sources = settings.sources
    study.set_attribute(
        "about",
        {
            "space": settings.space.name,
            "model": dataclasses.asdict(sources.model),
            "data": {
                **dataclasses.asdict(sources.data),
                "config": session.loaded.data_config,
                "seed": sources.seed,
                "skip_unreadable": sources.skip_unreadable,
                "unreadable": images.unreadable,
            },
            "versions": {
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in PACKAGES},
            },
        },
    )
    return study


class _Trials:
    """The loop over trials of one run."""

    def __init__(
        self,
        settings: Settings,
        session: Session,
        decoder: Decoder,
        study: Study,
        workers: Workers,
        unpruned: Predictions,
        progress: Progress,
    ) -> None:
        self.settings = settings
        self.session = session
        self.decoder = decoder
        self.study = study
        self.workers = workers
        self.unpruned = unpruned
        self.progress = progress
        assert session.images is not None
        self.gather = Gather("search", len(session.images.search), settings.batch_size)
        self.queue: deque[Task] = deque()
        self.running: dict[int, PruningConfig] = {}
        self.began = time.monotonic()
        self.images_done = 0
        self.done = 0
        self.best: tuple[int, float] | None = None

    def run(self) -> None:
        """Evaluate what is missing up to `trials`; what is running when time is up is finished."""
        todo = self._todo()
        if not self._fill(todo):
            return
        self.progress.stage("starting workers")
        pool = self.workers.pool()
        self.began = time.monotonic()
        in_flight = 0
        while True:
            while self._fill(todo) and pool.room > 0:
                pool.submit(self.queue.popleft())
                in_flight += 1
            if not in_flight:
                return
            task, result = pool.next()
            in_flight -= 1
            self._take(task, result)
            self.progress.trials(self._status())

    def _todo(self) -> Iterator[tuple[int, PruningConfig]]:
        """Numbers and configurations to evaluate: what a dead driver left, then new ones."""
        sampler = SAMPLERS[self.settings.sampler](self.decoder, self.settings.sources.seed)
        left = []
        stored = self.study.trials()
        for trial in stored:
            sampler.remember(trial.config)
            if trial.state == "running":
                left.append((trial.number, trial.config))
            else:
                self._count(trial.number, trial.value)
        yield from left
        for number in range(len(stored), self.settings.trials):
            config = sampler.propose(number)
            if config is None:
                self.progress.note(
                    f"the space holds no configuration beyond the first {number} at this budget"
                )
                return
            yield number, config

    def _fill(self, todo: Iterator[tuple[int, PruningConfig]]) -> bool:
        """Whether a task is queued; starts the next trial where none is."""
        if not self.queue and not self._out_of_time():
            number, config = next(todo, (-1, None))
            if config is not None:
                attrs = cost_dict(flops(self.session.geometry, config))
                self.study.start(number, config, attrs)
                self.running[number] = config
                self.queue.extend(self.gather.tasks(("trial", number), config))
        return bool(self.queue)

    def _out_of_time(self) -> bool:
        timeout = self.settings.timeout
        return timeout is not None and time.monotonic() - self.began > timeout

    def _take(self, task: Task, result: Any) -> None:
        number = task.key[1]
        if number not in self.running:
            return  # another block of it has failed
        if isinstance(result, Failure):
            if result.out_of_memory:
                raise failed(result, f"trial {number}")
            self.queue = deque(t for t in self.queue if t.key != task.key)
            self.gather.forget(task.key)
            self.study.fail(number, result.reason)
            del self.running[number]
            self._count(number, None)
            self.progress.note(f"trial {number} failed: {result.reason}")
            return
        self.images_done += task.stop - task.start
        outcome = self.gather.add(task, result)
        if outcome is not None:
            value, attrs = self._evidence(outcome)
            self.study.complete(number, value, attrs)
            del self.running[number]
            self._count(number, value)

    def _evidence(self, outcome: Outcome) -> tuple[float, dict[str, Any]]:
        """The objective's estimate and what is stored beside it."""
        labels, unpruned = self.session.labels("search"), self.unpruned
        objective = self.settings.objective
        correct = judge(objective, outcome.predictions, labels, unpruned)
        difference = paired_difference(correct, judge(objective, unpruned, labels, unpruned))
        return accuracy(correct), {
            "images": len(correct),
            "standard_error": standard_error(correct),
            "minus_unpruned": difference.difference,
            "minus_unpruned_ci95": list(difference.ci95),
            "fallback_share": outcome.fallbacks / len(correct),
            "evaluation_seconds": outcome.seconds,
            "correct": pack(correct),
        }

    def _count(self, number: int, value: float | None) -> None:
        self.done += 1
        if value is not None and (
            self.best is None or (-value, number) < (-self.best[1], self.best[0])
        ):
            self.best = (number, value)

    def _status(self) -> Status:
        elapsed = time.monotonic() - self.began
        speed = self.images_done / elapsed if elapsed > 0 else 0.0
        missing = (self.settings.trials - self.done) * self.gather.images
        missing -= sum(self.gather.taken(("trial", number)) for number in self.running)
        left = missing / speed if speed > 0 else None
        if left is not None and self.settings.timeout is not None:
            left = min(left, max(0.0, self.settings.timeout - elapsed))
        return Status(
            self.done, max(self.settings.trials, self.done), len(self.running), speed,
            self.best, left,
        )  # fmt: skip


def _nothing_complete(study: Study) -> str:
    reasons = [t.attrs["failure"] for t in study.trials() if t.state == "failed"]
    why = f"; the first failed with: {reasons[0]}" if reasons else ""
    return f"no trial of study {study.name!r} is complete{why}; allow more --trials or --timeout"
