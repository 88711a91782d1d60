"""The study in an Optuna database."""

from ztp_search.study.database import dashboard_storage, parse_url, redact
from ztp_search.study.study import Study, check_resume, stored_contract
from ztp_search.study.trial import NewTrial, StoredTrial, Update

__all__ = [
    "NewTrial",
    "StoredTrial",
    "Study",
    "Update",
    "check_resume",
    "dashboard_storage",
    "parse_url",
    "redact",
    "stored_contract",
]
