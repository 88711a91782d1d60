"""What a user asks for, and what it means. Imports nothing heavy, opens nothing but text files.

`SearchSettings`, `EvaluateSettings`, `VisualizeSettings` and `ModelSettings` are what a user says;
`resolve_…` turn them into what is run: `ResolvedSearch`, `ResolvedEvaluation`,
`ResolvedVisualization`, `ModelSpec`.
"""

from ztp_search.settings.options import (
    EvaluateSettings,
    ModelSettings,
    SearchSettings,
    VisualizeSettings,
)
from ztp_search.settings.resolve_evaluation import (
    resolve_evaluation,
    resolve_model,
    stored_preprocessing,
    weights_sha256_of,
)
from ztp_search.settings.resolve_search import resolve_search, storage_url
from ztp_search.settings.resolve_visualization import resolve_visualization
from ztp_search.settings.resolved import (
    DataSetImages,
    DataSpec,
    ModelSpec,
    ResolvedEvaluation,
    ResolvedSearch,
    ResolvedVisualization,
    Sources,
    SpeedOptions,
    WorkerOptions,
)

__all__ = [
    "DataSetImages",
    "DataSpec",
    "EvaluateSettings",
    "ModelSettings",
    "ModelSpec",
    "ResolvedEvaluation",
    "ResolvedSearch",
    "ResolvedVisualization",
    "SearchSettings",
    "Sources",
    "SpeedOptions",
    "VisualizeSettings",
    "WorkerOptions",
    "resolve_evaluation",
    "resolve_model",
    "resolve_search",
    "resolve_visualization",
    "storage_url",
    "stored_preprocessing",
    "weights_sha256_of",
]
