"""The study in an Optuna database."""

from ztp_search.study.database import dashboard_storage, parse_url, redact
from ztp_search.study.study import Study, existing
from ztp_search.study.trial import NewTrial, StoredTrial, Update

__all__ = [
    "NewTrial",
    "StoredTrial",
    "Study",
    "Update",
    "dashboard_storage",
    "existing",
    "parse_url",
    "redact",
]
