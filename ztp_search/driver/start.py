"""Before torch is imported here: is work left, and Ray workers that import it meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ztp_search.errors import StudyError
from ztp_search.settings import ResolvedSearch
from ztp_search.settings.resolved import DECODER
from ztp_search.study import existing


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
def early_workers(settings: ResolvedSearch) -> Iterator[None]:
    """Start Ray and workers on CPUs where there is work for them, and end Ray when done.

    A Ray session that this process has already is used, and goes on.

    Entered before the driver imports torch, so that the workers import it beside the driver.
    """
    options = settings.workers
    if not work_is_left(settings) or options.workers == 0:
        yield
        return
    from ztp_search.evaluation import ray_cluster as cluster

    connected = cluster.connect(options.address, settings.threads, options.workers)
    try:
        early = []
        if settings.device != "cuda" and not cluster.has_gpu():
            count = cluster.workers_of(settings.threads)
            count = min(count, options.workers or count)
            early = cluster.start_workers(count, num_cpus=settings.threads)
        yield
        del early  # held until here: Ray ends a worker that nobody holds
    finally:
        if connected:
            cluster.disconnect()
