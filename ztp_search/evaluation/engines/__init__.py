"""What runs a model when its speed is measured; a new one is a file here and a line below.

They are named without importing them, as an engine may need a library that not everybody has.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ztp_search.errors import ZtpError

if TYPE_CHECKING:
    from ztp_search.evaluation.engines.base import Engine

ENGINES: Mapping[str, str] = {
    "eager": "eager:Eager",
    "compiled": "compiled:Compiled",
    "onnxruntime": "onnx_runtime:OnnxRuntime",
}
"""Module (of this package) and class of each engine, the default first."""


def check_engines(names: tuple[str, ...]) -> None:
    """Refuse a name that is no engine's with a ZtpError."""
    for name in names:
        if name not in ENGINES:
            known = ", ".join(ENGINES)
            raise ZtpError(f"`speed` must be off, or some of {known}, but got {name!r}")


def load_engine(name: str) -> type[Engine]:
    """The engine of a name; an error of any kind where a library is not installed."""
    module, _, cls = ENGINES[name].partition(":")
    engine: type[Engine] = getattr(importlib.import_module(f"{__name__}.{module}"), cls)
    return engine
