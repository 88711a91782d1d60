"""The study in an Optuna database."""

from ztp_search.study.database import dashboard_storage, redact
from ztp_search.study.rows import StoredTrial
from ztp_search.study.study import Study, list_studies

__all__ = ["StoredTrial", "Study", "dashboard_storage", "list_studies", "redact"]
