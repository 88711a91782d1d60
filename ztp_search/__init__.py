"""Zero-TPrune configurations for vision transformers, found under a GFLOPs budget.

`search` finds them, `best`, `evaluate`, `cost`, `visualize`, `report` and `export` look at what was
found, and `apply` prunes a model; `ztp-search` is the same on the command line.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ztp_search.errors import ZtpError

if TYPE_CHECKING:
    from ztp_search.api import (
        best,
        cost,
        evaluate,
        export,
        load_study,
        report,
        search,
        search_front,
        visualize,
    )
    from ztp_search.backbones import apply
    from ztp_search.pruning.config import PruningConfig, PruningLayer
    from ztp_search.pruning.config_file import load_config
    from ztp_search.settings import (
        EvaluateSettings,
        ModelSettings,
        SearchSettings,
        VisualizeSettings,
    )

__all__ = [
    "EvaluateSettings", "ModelSettings", "PruningConfig", "PruningLayer", "SearchSettings",
    "VisualizeSettings", "ZtpError", "apply", "best", "cost", "evaluate", "export", "load_config",
    "load_study", "report", "search", "search_front", "visualize",
]  # fmt: skip

_HOMES = {
    "ztp_search.api": (
        "best", "cost", "evaluate", "export", "load_study", "report", "search", "search_front",
        "visualize",
    ),
    "ztp_search.backbones": ("apply",),
    "ztp_search.pruning.config": ("PruningConfig", "PruningLayer"),
    "ztp_search.pruning.config_file": ("load_config",),
    "ztp_search.settings": (
        "EvaluateSettings", "ModelSettings", "SearchSettings", "VisualizeSettings",
    ),
}  # fmt: skip
"""Imported on first use: torch and timm take seconds, and `--help` must not wait for them."""


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
