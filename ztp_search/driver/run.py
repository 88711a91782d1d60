"""The search: sample under the budget, race on workers, store, confirm on holdout.

`run` makes every decision; workers only evaluate. Several budgets are one study each and share
the model, the images, the workers, what these keep, and the unpruned model's results. Read
downward: the flow, then what each step adds.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import time
from contextlib import ExitStack
from typing import Any

from ztp_search.data import ImageSets
from ztp_search.driver.confirm import confirm, measure_paper_schedule, store_unpruned
from ztp_search.driver.measuring import Measuring
from ztp_search.driver.objective import check_labels
from ztp_search.driver.progress import Progress
from ztp_search.driver.session import Session
from ztp_search.driver.trials import Trials, Wanted
from ztp_search.errors import StudyError
from ztp_search.evaluation.runtime import Runtime, resolve_runtime
from ztp_search.pruning.budget import parse_budget
from ztp_search.racing import RACING
from ztp_search.results.documents import search_document, several_document
from ztp_search.settings import Settings
from ztp_search.space.decoder import Decoder
from ztp_search.study import Study, existing

PACKAGES = ("ztp-search", "torch", "timm", "optuna", "ray", "numpy")


def run(settings: Settings, progress: Progress) -> dict[str, Any]:
    """Search, or resume the search, and confirm the best on holdout.

    Returns the document that `--json` prints: of one study, or of several. Raises ZtpError for
    the user's mistakes, found before any work where they can be, and WorkerError where
    evaluation fails for good.
    """
    began = time.monotonic()
    progress.stage("loading the model")
    session = Session.open(settings.sources)
    decoders = {budget: _decoder(settings, session, budget) for budget in settings.studies}
    runtime = _runtime(settings)
    progress.stage("decoding images")
    images = session.decode(progress.images)
    check_labels(images, settings.objective)
    with ExitStack() as held:
        workers = held.enter_context(session.workers(runtime, settings.workers))
        measuring = Measuring(session, workers, runtime, settings.objective, progress)
        studies = {
            budget: held.enter_context(_open_study(settings, measuring, images, budget, decoder))
            for budget, decoder in decoders.items()
        }
        searching = time.monotonic()
        for done, (budget, study) in enumerate(studies.items()):
            if len(studies) > 1:
                progress.note(f"budget {budget} ({done + 1} of {len(studies)})")
            seconds = None
            if settings.timeout is not None:
                spent = time.monotonic() - searching if done else 0.0
                seconds = max(0.0, settings.timeout - spent) / (len(studies) - done)
            _search(settings, measuring, study, decoders[budget], seconds)
        seconds = time.monotonic() - began
        documents = [search_document(study) for study in studies.values()]
    if len(documents) == 1:
        return documents[0] | {"seconds": seconds}
    return several_document(documents) | {"seconds": seconds}


def _search(
    settings: Settings,
    measuring: Measuring,
    study: Study,
    decoder: Decoder,
    seconds: float | None,
) -> None:
    """One budget: references, trials, confirmation."""
    study.take_turn()
    store_unpruned(measuring, study)
    wanted = Wanted(
        trials=settings.trials,
        sampler=settings.sampler,
        seed=settings.sources.seed,
        racing=settings.racing,
        finalists=settings.candidates,
        refine=settings.refine,
        seconds=seconds,
    )
    Trials(wanted, measuring, study, decoder).run()
    best = study.best(settings.candidates)
    if not best:
        raise StudyError(_nothing_complete(study))
    measure_paper_schedule(measuring, study, decoder.budget)
    if measuring.images("holdout"):
        confirm(measuring, study, best)


def _decoder(settings: Settings, session: Session, budget: str) -> Decoder:
    parsed = parse_budget(budget, session.geometry, settings.tolerance, settings.budget_counts)
    return Decoder(settings.space, session.geometry, parsed)


def _runtime(settings: Settings) -> Runtime:
    """The study's runtime where it exists and "auto" is asked for, else this machine's best.

    A resumed study goes on as it began, on whatever machine.
    """
    device, precision = settings.device, settings.precision
    stored: dict[str, Any] = {}
    for name in settings.studies.values():
        with existing(settings.storage, name) as study:
            if study is not None:
                stored = stored or study.contract.get("runtime", {})
    if device == "auto":
        device = stored.get("device", device)
    if precision == "auto" and device == stored.get("device"):
        precision = stored.get("precision", precision)
    return resolve_runtime(device, precision, settings.batch_size, settings.threads)


def _open_study(
    settings: Settings,
    measuring: Measuring,
    images: ImageSets,
    budget: str,
    decoder: Decoder,
) -> Study:
    """Open the study under the contract that a resume must match."""
    session = measuring.session
    rungs = RACING[settings.racing].rungs(len(images.search), measuring.runtime.batch_size)
    contract = {
        **settings.contract(),
        "geometry": dataclasses.asdict(session.geometry),
        "weights_sha256": session.loaded.weights_sha256,
        "budget": dataclasses.asdict(decoder.budget),
        "racing": {"rule": settings.racing, "rungs": list(rungs)},
        "images": {"count": len(images.search), "sha256": images.search.digest},
        "holdout": {"count": len(images.holdout), "sha256": images.holdout.digest},
        "runtime": dataclasses.asdict(measuring.runtime),
    }
    study = Study.open(
        settings.storage,
        settings.studies[budget],
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


def _nothing_complete(study: Study) -> str:
    reasons = [t.attrs["failure"] for t in study.trials() if t.state == "failed"]
    why = f"; the first failed with: {reasons[0]}" if reasons else ""
    return f"no trial of study {study.name!r} is complete{why}; allow more --trials or --timeout"
