"""Metrics of searches for Prometheus: recorded here, served by the agent that Ray has on each node.

Ray puts `ray_` before their names, and `_total` behind those of counters.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.util import metrics

from ztp_search.events import (
    Begin,
    Best,
    Complete,
    Evaluated,
    Event,
    Failed,
    Pruned,
    Retry,
    Sampled,
    Stored,
)

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Upper bounds of the histogram's buckets."""
REPEAT_SECONDS = 4.0
"""Gauges are set again that often, though nothing may have happened: Ray reports to its agent,
every 10 s, those alone that were set since, and the agent forgets them after 20."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A metric. tags: beside `study`."""

    type: str
    about: str
    tags: tuple[str, ...] = ()

    def make(self, name: str) -> Any:
        options: dict[str, Any] = {"boundaries": SECONDS} if self.type == "Histogram" else {}
        tags = ("study", *self.tags)
        return getattr(metrics, self.type)(name, description=self.about, tag_keys=tags, **options)


METRICS: Mapping[str, Kind] = {
    "ztp_trials": Kind("Gauge", "Trials by state", ("state",)),
    "ztp_queue": Kind(
        "Gauge", "Evaluations of a configuration on a range of images, waiting or running",
        ("state",),
    ),
    "ztp_image_evaluations": Kind("Counter", "Images times configurations evaluated"),
    "ztp_retries": Kind("Gauge", "Tasks given out again as a worker died, in this run"),
    "ztp_database_seconds": Kind("Histogram", "Seconds that the database took to store something"),
    "ztp_best_accuracy": Kind("Gauge", "Accuracy of the best complete trial on search images"),
    "ztp_best_loss": Kind("Gauge", "Mean loss of that trial, total variation by default"),
}  # fmt: skip
ENDS = {Complete: "complete", Pruned: "pruned", Failed: "failed"}


class RayMetrics:
    """What a search tells, as metrics, while Ray runs.

    endpoints: HOST:PORT where each node serves them.
    discovery: of a Ray that is this process's.
    """

    def __init__(
        self, endpoints: Sequence[str], discovery: ServiceDiscovery | None = None
    ) -> None:
        self.endpoints = endpoints
        self._discovery = discovery
        self._gauges: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._metrics = {name: kind.make(name) for name, kind in METRICS.items()}
        self._trials: dict[str, Counter[str]] = {}
        self._retries: Counter[str] = Counter()
        self._repeating = threading.Thread(target=self._repeat, daemon=True)
        self._repeating.start()

    def record(self, study: str, event: Event) -> None:
        """Take in an event of a study."""
        match event:
            case Begin():
                stored = {state: getattr(event, state) for state in ("running", *ENDS.values())}
                self._trials[study] = Counter(stored)
                self._set_trials(study, *stored)
                self._set("ztp_retries", study, 0)
            case Sampled():
                self._count(study, "running", +1)
            case Complete() | Pruned() | Failed():
                self._count(study, "running", -1)
                self._count(study, ENDS[type(event)], +1)
            case Evaluated():
                if event.images:
                    self._metrics["ztp_image_evaluations"].inc(event.images, {"study": study})
                self._set("ztp_queue", study, event.waiting, state="waiting")
                self._set("ztp_queue", study, event.running, state="running")
            case Retry():
                self._retries[study] += event.tasks
                self._set("ztp_retries", study, self._retries[study])
            case Stored():
                self._metrics["ztp_database_seconds"].observe(event.seconds, {"study": study})
            case Best():
                self._set("ztp_best_accuracy", study, event.accuracy)
                self._set("ztp_best_loss", study, event.loss)

    def close(self) -> None:
        """The search has ended."""
        self._closed.set()
        self._repeating.join()
        if self._discovery is not None:
            self._discovery.close()

    def _count(self, study: str, state: str, by: int) -> None:
        self._trials.setdefault(study, Counter())[state] += by
        self._set_trials(study, state)

    def _set_trials(self, study: str, *states: str) -> None:
        for state in states:
            self._set("ztp_trials", study, self._trials[study][state], state=state)

    def _set(self, name: str, study: str, value: float | None, **tags: str) -> None:
        if value is None:
            return
        with self._lock:
            self._gauges[name, (("study", study), *tags.items())] = value
            self._metrics[name].set(value, {"study": study, **tags})

    def _repeat(self) -> None:
        while not self._closed.wait(REPEAT_SECONDS):
            with self._lock:
                for (name, tags), value in self._gauges.items():
                    self._metrics[name].set(value, dict(tags))


class ServiceDiscovery:
    """A file that tells Prometheus where a Ray that this process started serves metrics.

    It lies where `ray start` puts its own, and a pattern over names finds both. Where it cannot be
    written, a search goes on: it needs no metrics.
    """

    def __init__(self, endpoints: Sequence[str]) -> None:
        folder = Path(os.environ.get("RAY_TMPDIR", "/tmp"), "ray")
        self._path = folder / f"prom_metrics_service_discovery_{os.getpid()}.json"
        whole = self._path.with_suffix(".part")
        with contextlib.suppress(OSError):
            whole.write_text(json.dumps([{"labels": {"job": "ray"}, "targets": list(endpoints)}]))
            whole.replace(self._path)  # Prometheus reads it whenever it likes

    def close(self) -> None:
        """Nothing is served any more."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
