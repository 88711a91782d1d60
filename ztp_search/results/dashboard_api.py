"""The page of a study of ours, answered quickly, in front of optuna-dashboard.

The dashboard asks for all trials of a study as one document, which optuna-dashboard makes anew
each time: four seconds and 50 MB for 5,000 trials. Here a finished trial is serialized once, by
optuna-dashboard's own function, and kept as text. Everything else is optuna-dashboard's own answer;
should a release of it lack the functions that are used here, it answers all by itself.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs

from ztp_search.study.dashboard_storage import DashboardStorage
from ztp_search.study.showing import notes_by_row, plots_of

WSGI = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def can_be_quick() -> bool:
    """Whether this release of optuna-dashboard has what is used here."""
    try:
        from optuna_dashboard._serializer import serialize_frozen_trial, serialize_study_detail
    except ImportError:
        return False
    return callable(serialize_frozen_trial) and callable(serialize_study_detail)


class StudyDocuments:
    """Answers for `/api/studies/N`.

    Args:
        storage: what is looked at.
    """

    def __init__(self, storage: DashboardStorage) -> None:
        import optuna_dashboard._serializer

        self._serializer: Any = optuna_dashboard._serializer
        self._storage = storage
        self._texts: dict[int, tuple[Any, bytes]] = {}  # by row of the trial table
        self._lock = threading.Lock()

    def document(self, study_id: int, after: int = 0) -> bytes:
        """The study with its trials from number `after` on, as JSON."""
        with self._lock:  # who asks at the same time waits, and finds the work done
            study = self._storage.get_study(study_id)
            trials = self._storage.get_all_trials(study_id, deepcopy=False)
            notes = notes_by_row(study.system_attrs)
            texts = [self._text(study_id, trial, notes.get(trial._trial_id, {}))
                     for trial in trials[after:]]  # fmt: skip
        head = _compact(self._head(study, trials))
        before, found, behind = head.partition(b'"trials":[')
        assert found  # the first one: inside a string its quotes would be escaped
        return before + found + b",".join(texts) + behind

    def _head(self, study: Any, trials: Sequence[Any]) -> dict[str, Any]:
        """The document without trials."""
        complete = any(trial.state.name == "COMPLETE" for trial in trials)
        best = [self._storage.get_best_trial(study._study_id)] if complete else []
        space = sorted(trials[0].distributions.items()) if trials else []
        numeric: dict[str, bool] = {}
        for trial in trials:
            for key, value in trial.user_attrs.items():
                number = isinstance(value, int | float) and not isinstance(value, bool)
                numeric[key] = numeric.get(key, True) and number
        document: dict[str, Any] = self._serializer.serialize_study_detail(
            study, best, [], space, space, list(numeric.items()),
            any(trial.intermediate_values for trial in trials), plots_of(study.system_attrs), [],
        )  # fmt: skip
        return document

    def _text(self, study_id: int, trial: Any, note: Mapping[str, Any]) -> bytes:
        """A trial as JSON; of a finished one as it was made before, if nothing has changed."""
        shown = (trial.values, bool(trial.intermediate_values), sorted(trial._system_attrs), note)
        key, text = self._texts.get(trial._trial_id, (None, b""))
        if key == shown and trial.state.is_finished():
            return text
        serialized = self._serializer.serialize_frozen_trial(study_id, trial, note)
        text = _compact(serialized)
        self._texts[trial._trial_id] = shown, text
        return text


def quick(application: WSGI, documents: StudyDocuments, ours: Callable[[int], bool]) -> WSGI:
    """Answer for the pages of our studies; leave everything else to the application."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        number = study_asked_for(environ)
        after = parse_qs(environ.get("QUERY_STRING", "")).get("after", ["0"])[-1]
        if number is None or not after.isdecimal() or not ours(number):
            return application(environ, start_response)
        body = documents.document(number, int(after))
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start_response("200 OK", headers)
        return [body]

    return answer


def study_asked_for(environ: Mapping[str, Any]) -> int | None:
    """The number of the study whose document is asked for; None where something else is."""
    match = re.fullmatch(r"/api/studies/(\d{1,9})/?", environ.get("PATH_INFO", ""))
    return int(match[1]) if match and environ["REQUEST_METHOD"] == "GET" else None


def _compact(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
