"""The search: sample under the budget, race on workers, store, confirm on holdout.

`run` makes every decision; workers only evaluate. Several budgets are one study each, and share
the model, the images, the workers with their caches, and the unpruned model's results. Read
downward: the flow, then what each step adds.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import platform
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial
from typing import Any

from ztp_search.backbones import geometry_of
from ztp_search.backbones.loading import load_model
from ztp_search.driver.confirm import confirm_finalists, evaluate_baselines, evaluate_unpruned
from ztp_search.driver.evaluator import Evaluator, check_labels, decode_images
from ztp_search.driver.known import check_enqueued
from ztp_search.driver.progress import Progress
from ztp_search.driver.speed import measure_winner
from ztp_search.driver.trials import TrialRunner
from ztp_search.errors import StudyError
from ztp_search.evaluation.runtime import Runtime, resolve_runtime
from ztp_search.events import Begin, End, Finalists, Winner
from ztp_search.objectives import OBJECTIVES, SIGNALS
from ztp_search.results.front_result import FrontResult
from ztp_search.results.search_result import SearchResult, search_result
from ztp_search.results.showing import save_shown
from ztp_search.settings import ResolvedSearch
from ztp_search.space.decoder import Decoder
from ztp_search.study import StoredTrial, StudyDriver, existing, is_read_only, opened, redact

PACKAGES = ("ztp-search", "torch", "timm", "optuna", "ray", "numpy")


def run(settings: ResolvedSearch, progress: Progress) -> SearchResult | FrontResult:
    """Search, or resume the search, and confirm the finalists on holdout.

    Returns:
        What the study has found, or under several budgets what all of them have.

    Raises:
        ZtpError: the user's mistake, found before any work where it can be.
        WorkerError: evaluation fails for good.
    """
    began = time.monotonic()
    if is_read_only(settings.storage):
        return _as_stored(settings, progress, began)
    progress.stage("loading the model")
    sources = settings.sources
    loaded = load_model(sources.model, data_overrides=sources.data_overrides)
    geometry = geometry_of(loaded.model)
    decoders = {budget: settings.decoder(geometry, budget) for budget in settings.studies}
    check_enqueued(settings.enqueued, list(decoders.values()))
    runtime = opened(lambda: _runtime(settings), partial(progress.event, None))
    images = decode_images(sources, loaded, progress)
    check_labels(images, OBJECTIVES[settings.objective], SIGNALS[settings.racing_signal])
    with ExitStack() as held:
        evaluator = held.enter_context(
            Evaluator(
                sources, loaded, images, runtime, settings.objective, settings.workers, progress,
                settings.racing_signal,
            )
        )
        studies = {
            budget: held.enter_context(_open_study(settings, evaluator, budget, decoder))
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
            _search(settings, evaluator, study, budget, decoders[budget], seconds)
        progress.stage("writing its notes")
        for study in studies.values():
            save_shown(study)
        seconds = time.monotonic() - began
        results = [search_result(study, seconds) for study in studies.values()]
        for result in results:
            counts = dataclasses.asdict(result.trials)
            evaluator.watch.tell(
                End(**counts, image_evaluations=result.image_evaluations, seconds=seconds),
                result.study,
            )
    return _joined(results, seconds)


def _joined(results: list[SearchResult], seconds: float) -> SearchResult | FrontResult:
    """Of one study what it has found, of several what all of them have."""
    return results[0] if len(results) == 1 else FrontResult(tuple(results), seconds)


def _as_stored(
    settings: ResolvedSearch, progress: Progress, began: float
) -> SearchResult | FrontResult:
    """What finished studies have found that cannot be written to.

    Raises:
        StudyError: something is missing.
    """
    results = []
    seconds = time.monotonic() - began
    for name in settings.studies.values():
        with existing(settings.storage, name) as study:
            done = study.finished() if study is not None else 0
            wanted = settings.trials + settings.refine
            if study is None or done < wanted or not study.best(1):
                raise StudyError(
                    f"study {name!r} has {done} of {wanted} trials, but its database "
                    f"{redact(settings.storage)} is read-only; make the file and its folder "
                    "writable, or search in another `out` folder"
                )
            results.append(search_result(study, seconds))
    progress.note("the study database is read-only: this is what it holds")
    return _joined(results, seconds)


def _search(
    settings: ResolvedSearch,
    evaluator: Evaluator,
    study: StudyDriver,
    budget: str,
    decoder: Decoder,
    seconds: float | None,
) -> None:
    """One budget: references, trials, confirmation, the winner's speed."""
    evaluator.watch.study = study.name
    study.take_turn()
    _tell_begin(settings, evaluator, study, budget)
    evaluate_unpruned(evaluator, study)
    rungs = evaluator.rungs(settings.racing)
    TrialRunner(settings, evaluator, study, decoder, rungs, seconds).run()
    finalists = study.best(settings.candidates)
    if not finalists:
        raise StudyError(_nothing_complete(study))
    evaluator.watch.tell(Finalists([trial.number for trial in finalists]))
    evaluate_baselines(evaluator, study, decoder.budget)
    if evaluator.image_count("holdout"):
        confirm_finalists(evaluator, study, finalists)
    _tell_winner(evaluator, finalists[0])
    measure_winner(evaluator, study, finalists[0], settings.speed)


def _tell_begin(
    settings: ResolvedSearch, evaluator: Evaluator, study: StudyDriver, budget: str
) -> None:
    states = Counter(study.states())
    evaluator.watch.tell(
        Begin(
            study.storage, budget, settings.trials + settings.refine,
            complete=states["complete"], pruned=states["pruned"], failed=states["failed"],
            running=states["running"],
        )
    )  # fmt: skip


def _tell_winner(evaluator: Evaluator, winner: StoredTrial) -> None:
    assert winner.value is not None  # as it is complete
    gflops = winner.attrs["gflops"]["total"]
    evaluator.watch.tell(Winner(winner.number, gflops, winner.value, winner.config.digest()))


def _runtime(settings: ResolvedSearch) -> Runtime:
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
    settings: ResolvedSearch, evaluator: Evaluator, budget: str, decoder: Decoder
) -> StudyDriver:
    """Open the study under the contract that a resume must match."""
    loaded, images = evaluator.loaded, evaluator.images
    contract = {
        **settings.contract(),
        "geometry": dataclasses.asdict(evaluator.geometry),
        "weights_sha256": loaded.weights_sha256,
        "budget": dataclasses.asdict(decoder.budget),
        "racing": {
            "rule": settings.racing,
            "signal": settings.racing_signal,
            "rungs": list(evaluator.rungs(settings.racing)),
        },
        "images": {"count": len(images.search), "sha256": images.search.digest},
        "holdout": {"count": len(images.holdout), "sha256": images.holdout.digest},
        "runtime": dataclasses.asdict(evaluator.runtime),
    }
    study = StudyDriver.open(
        settings.storage,
        settings.studies[budget],
        contract,
        blocks=[block.block for block in decoder.blocks],
        ranges=decoder.parameter_ranges(),
        tell=partial(evaluator.watch.tell, study=settings.studies[budget]),
    )
    sources = settings.sources
    study.set_attribute(
        "about",
        {
            "space": settings.space.name,
            "model": dataclasses.asdict(sources.model),
            "data": {
                **dataclasses.asdict(sources.data),
                "config": loaded.data_config,
                "seed": sources.seed,
                "skip_unreadable": sources.skip_unreadable,
                "unreadable": images.unreadable,
            },
            "asked": {
                "candidates": settings.candidates,
                "enqueue": list(settings.enqueued),
                "preprocessing": dict(sources.data_overrides),
            },
            "versions": {
                "python": platform.python_version(),
                **{name: importlib.metadata.version(name) for name in PACKAGES},
            },
        },
    )
    return study


def _nothing_complete(study: StudyDriver) -> str:
    reasons = [t.attrs["failure"] for t in study.trials() if t.state == "failed"]
    why = f"; the first failed with: {reasons[0]}" if reasons else ""
    return f"no trial of study {study.name!r} is complete{why}; allow more `trials` or `timeout`"
