"""What the benchmarks share: the machine they ran on, and where results are kept."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import ztp_search.evaluation.machine

RESULTS = Path(__file__).resolve().parent / "results"
CACHE = Path(__file__).resolve().parent / ".cache"
"""Images and truths that the next run uses again; not kept in the repository."""


def machine() -> dict[str, Any]:
    """Processor, cores and versions."""
    return {
        **ztp_search.evaluation.machine.machine(),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in ("ray", "optuna")},
    }


def record(name: str, result: dict[str, Any]) -> None:
    """Keep the last result beside the scripts, with date, machine and load."""
    RESULTS.mkdir(exist_ok=True)
    document = {
        "benchmark": name,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        **result,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(f"recorded in {path.relative_to(RESULTS.parent.parent)}")
