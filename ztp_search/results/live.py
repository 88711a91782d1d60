"""What studies show, kept up to date while they are looked at."""

from __future__ import annotations

import threading
import time
from importlib.util import find_spec

from ztp_search.results.showing import shown
from ztp_search.study.dashboard_storage import DashboardStorage
from ztp_search.study.showing import is_saved, state_of

PATIENCE = 1.5
"""Seconds that a page waits for notes and plots; the next one has them."""
RARELY = 10
"""Between two renewals so many times as long as one takes."""


class Live:
    """Renews notes and plots of studies in the background, where there is news.

    Args:
        storage: over whose studies they are put.
    """

    def __init__(self, storage: DashboardStorage) -> None:
        self._storage = storage
        self._states: dict[int, str] = {}
        self._not_before: dict[int, float] = {}
        self._renewing: dict[int, threading.Thread] = {}
        self._lock = threading.Lock()

    def look(self, study_id: int) -> None:
        """Somebody looks at a study: if it is one of ours, renew what it shows, and wait for a
        little."""
        if not self._storage.ours(study_id):
            return
        with self._lock:
            thread = self._renewing.get(study_id)
            if thread is None or not thread.is_alive():
                if time.monotonic() < self._not_before.get(study_id, 0.0):
                    return
                thread = threading.Thread(target=self.renew, args=(study_id,), daemon=True)
                self._renewing[study_id] = thread
                thread.start()
        if study_id not in self._states:
            thread.join(PATIENCE)

    def renew(self, study_id: int) -> None:
        """Renew what a study of ours shows, if there is news of it."""
        began = time.monotonic()
        try:
            self._renew(study_id)
        finally:
            now = time.monotonic()
            self._not_before[study_id] = now + RARELY * (now - began)

    def _renew(self, study_id: int) -> None:
        study = self._storage.reader(study_id)
        if study is None:
            return  # it was deleted meanwhile
        state = state_of(study)
        if state == self._states.get(study_id):
            return
        stored = self._storage.get_study_system_attrs(study_id)
        if not is_saved(stored, state, plots=find_spec("plotly") is not None):
            self._storage.show(study_id, shown(study))
        self._states[study_id] = state
