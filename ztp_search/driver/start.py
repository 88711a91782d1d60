"""Before torch is imported here: what is asked, what work is left, workers that import it too."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from functools import partial

from ztp_search.driver.progress import Progress
from ztp_search.errors import StudyError, ZtpError
from ztp_search.objectives import OBJECTIVES, SIGNALS
from ztp_search.racing import RACING
from ztp_search.samplers import SAMPLERS
from ztp_search.settings import ResolvedSearch, SearchSettings, resolve_search
from ztp_search.settings.resolved import DECODER
from ztp_search.study import existing, opened


def resolved(settings: SearchSettings) -> ResolvedSearch:
    """What a search with these settings does, the names of its parts checked as well.

    Raises:
        ZtpError: what the settings alone show to be wrong.
    """
    _check_name("sampler", settings.sampler, SAMPLERS)
    _check_name("racing", settings.racing, RACING)
    _check_name("racing_signal", settings.racing_signal, SIGNALS)
    _check_name("objective", settings.objective, OBJECTIVES)
    return resolve_search(settings)


def _check_name(setting: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise ZtpError(f"`{setting}` must be one of {', '.join(known)}, but got {name!r}")


def work_is_left(settings: ResolvedSearch) -> bool:
    """Whether there are trials to evaluate, as far as is known before the model is.

    Raises StudyError where a study was made with other settings.
    """
    left = False
    for name in settings.studies.values():
        with existing(settings.storage, name) as study:
            if study is not None:
                if study.finished() and study.contract.get("decoder", 1) != DECODER:
                    raise StudyError(
                        f"study {name!r} was made by another version of ztp-search, which drew "
                        "other configurations; it can be read and exported, but to search on, use "
                        "another `study` name"
                    )
                study.check(settings.contract())
            left |= study is None or study.finished() < settings.trials + settings.refine
            if study is not None and settings.enqueued:
                known = {trial.config for trial in study.trials()}
                left |= any(config not in known for config in settings.enqueued.values())
    return left


@contextlib.contextmanager
def early_workers(settings: ResolvedSearch, progress: Progress) -> Iterator[None]:
    """Start Ray and workers on CPUs where there is work for them, and end Ray when done.

    A Ray session that this process has already is used, and goes on.

    Entered before the driver imports torch, so that the workers import it beside the driver. A
    database server that is away is waited for, for a minute.

    progress: told of that.
    """
    options = settings.workers
    tell = partial(progress.event, None)
    if not opened(lambda: work_is_left(settings), tell, first=True) or options.workers == 0:
        yield
        return
    from ztp_search.evaluation import ray_cluster as cluster

    connected = cluster.connect(options.address, settings.threads, options.workers)
    try:
        if options.metrics:
            cluster.check_metrics()
        early = []
        if settings.device != "cuda" and not cluster.has_gpu():
            alone = options.address is None
            count = (cluster.workers_of if alone else cluster.free_workers_of)(settings.threads)
            count = min(count, options.workers or count)
            early = cluster.start_workers(count, num_cpus=settings.threads)
        yield
        del early  # held until here: Ray ends a worker that nobody holds
    finally:
        if connected:
            cluster.disconnect()
