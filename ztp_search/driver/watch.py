"""Who is told of a search's events: its progress, and metrics once workers are there."""

from __future__ import annotations

from ztp_search.driver.progress import Progress
from ztp_search.evaluation.pools import Metrics
from ztp_search.events import Event


class Watch:
    """Tells of events.

    Attributes:
        study: the name of the study that is worked on; None outside of any.
    """

    def __init__(self, progress: Progress) -> None:
        self.study: str | None = None
        self._progress = progress
        self._metrics: Metrics | None = None
        self._unrecorded: list[tuple[str, Event]] | None = []  # before workers are there

    def tell(self, event: Event, study: str | None = None) -> None:
        """Tell of an event of a study, by default the one that is worked on."""
        study = study or self.study
        self._progress.event(study, event)
        if study is None:
            return
        if self._metrics is not None:
            self._metrics.record(study, event)
        elif self._unrecorded is not None:
            self._unrecorded.append((study, event))

    def use(self, metrics: Metrics | None) -> None:
        """Workers are there; what was told before is recorded now, where metrics are served."""
        if metrics is not None:
            for study, event in self._unrecorded or ():
                metrics.record(study, event)
        self._metrics, self._unrecorded = metrics, None

    def close(self) -> None:
        """The search has ended."""
        if self._metrics is not None:
            self._metrics.close()
