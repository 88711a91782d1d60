"""The study in an Optuna database: read by any number of processes, driven by one."""

from ztp_search.study.driver import StudyDriver
from ztp_search.study.reader import StudyReader, existing
from ztp_search.study.trial import NewTrial, StoredTrial, Update
from ztp_search.study.url import parse_url, redact

__all__ = [
    "NewTrial",
    "StoredTrial",
    "StudyDriver",
    "StudyReader",
    "Update",
    "existing",
    "parse_url",
    "redact",
]
