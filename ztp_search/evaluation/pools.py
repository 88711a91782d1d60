"""The pool of workers that is asked for."""

from __future__ import annotations

from collections.abc import Callable

from ztp_search.evaluation.local_pool import LocalPool
from ztp_search.evaluation.tasks import Job, Pool
from ztp_search.events import Event


def open_pool(
    job: Job,
    workers: int | None,
    *,
    gpus_per_worker: float = 1.0,
    address: str | None = None,
    tell: Callable[[Event], object] = lambda _: None,
) -> Pool:
    """Open the pool that `workers` asks for: 0 evaluates in this process, else Ray actors do.

    tell: told where work is given out again.
    """
    if workers == 0:
        return LocalPool(job)
    from ztp_search.evaluation.ray_pool import RayPool

    return RayPool(job, workers, gpus_per_worker=gpus_per_worker, address=address, tell=tell)
