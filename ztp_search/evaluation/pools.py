"""The pool of workers that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

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


class Metrics(Protocol):
    """Whatever makes metrics of what a search tells.

    endpoints: HOST:PORT where each node serves them.
    """

    endpoints: Sequence[str]

    def record(self, study: str, event: Event) -> None:
        """Take in an event of a study."""

    def close(self) -> None:
        """The search has ended."""


def open_metrics(workers: int | None, address: str | None) -> Metrics | None:
    """Metrics that Ray serves, of a pool that is open; None where it serves none."""
    if workers == 0:
        return None
    from ztp_search.evaluation.ray_cluster import metrics_endpoints
    from ztp_search.evaluation.ray_metrics import RayMetrics, ServiceDiscovery

    endpoints = metrics_endpoints()
    if not endpoints:
        return None
    return RayMetrics(endpoints, ServiceDiscovery(endpoints) if address is None else None)
