"""What a user asks for, and what it means. Imports nothing heavy, opens nothing but text files.

`SearchSettings`, `EvaluateSettings` and `ModelSettings` are what a user says; `resolve_…` turn
them into what is run: `ResolvedSearch`, `ResolvedEvaluation`, `ModelSpec`.
"""

from ztp_search.settings.options import EvaluateSettings, ModelSettings, SearchSettings
from ztp_search.settings.resolve_evaluation import (
    expected_weights,
    resolve_evaluation,
    resolve_model,
)
from ztp_search.settings.resolve_search import resolve_search, storage_url
from ztp_search.settings.resolved import (
    DataSpec,
    ModelSpec,
    ResolvedEvaluation,
    ResolvedSearch,
    Sources,
    WorkerOptions,
)

__all__ = [
    "DataSpec",
    "EvaluateSettings",
    "ModelSettings",
    "ModelSpec",
    "ResolvedEvaluation",
    "ResolvedSearch",
    "SearchSettings",
    "Sources",
    "WorkerOptions",
    "expected_weights",
    "resolve_evaluation",
    "resolve_model",
    "resolve_search",
    "storage_url",
]
