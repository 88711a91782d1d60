"""The model through `torch.compile`."""

from __future__ import annotations

import torch
from torch import nn

from ztp_search.evaluation.engines.eager import Eager
from ztp_search.evaluation.runtime import Runtime


class Compiled(Eager):
    """Compiled in one piece for each batch size; on a CPU that takes a C++ compiler and minutes."""

    def __init__(self, model: nn.Module, runtime: Runtime) -> None:
        super().__init__(model, runtime)
        # In one piece: what falls back to eager in part, or for good, is not what was asked for.
        self._model = torch.compile(self._model, fullgraph=True, dynamic=False)

    def close(self) -> None:
        torch.compiler.reset()  # it compiles the same code only so many times
