"""The study in an Optuna database: read by any number of processes, driven by one."""

from ztp_search.study.driver import StudyDriver
from ztp_search.study.outage import opened
from ztp_search.study.reader import StudyReader, existing
from ztp_search.study.trial import NewTrial, StoredTrial, Update
from ztp_search.study.url import is_read_only, parse_url, redact

__all__ = [
    "NewTrial",
    "StoredTrial",
    "StudyDriver",
    "StudyReader",
    "Update",
    "existing",
    "is_read_only",
    "opened",
    "parse_url",
    "redact",
]
