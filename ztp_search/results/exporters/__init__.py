"""Formats that `ztp-search export --format` writes; a new one is a file here and a line below.

They are named without importing them, as a format may need a library that not everybody has.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from ztp_search.errors import ZtpError
from ztp_search.results.exporters.base import Exported, Exporter, TextExporter

EXPORTERS: Mapping[str, str] = {
    "json": "config_files:JsonFile",
    "yaml": "config_files:YamlFile",
    "csv": "trials_table:CsvTable",
    "parquet": "trials_table:ParquetTable",
    "python": "python_module:PythonModule",
    "onnx": "onnx_model:OnnxModel",
    "torch-export": "torch_program:TorchProgram",
    "huggingface": "hugging_face:HuggingFaceFolder",
    "tome": "schedules:TomeList",
    "diffrate": "schedules:DiffRateCounts",
}
"""Module (of this package) and class of each format, the default first."""


def load_exporter(name: str) -> Exporter:
    """The exporter of a format; ZtpError where there is none of that name."""
    if name not in EXPORTERS:
        raise ZtpError(f"`format` must be one of {', '.join(EXPORTERS)}, but got {name!r}")
    module, _, cls = EXPORTERS[name].partition(":")
    exporter: Exporter = getattr(importlib.import_module(f"{__name__}.{module}"), cls)()
    return exporter


__all__ = ["EXPORTERS", "Exported", "Exporter", "TextExporter", "load_exporter"]
