"""PyTorch as it comes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from ztp_search.evaluation.engines.base import Engine, Forward
from ztp_search.evaluation.runtime import DTYPES, Runtime


class Eager(Engine):
    """The model as it is, which is also what searches and evaluations run."""

    def __init__(self, model: nn.Module, runtime: Runtime) -> None:
        self._device, self._dtype = runtime.device, DTYPES[runtime.precision]
        self._model: Callable[..., object] = model.to(self._device, self._dtype)

    def bind(self, images: Tensor) -> Forward:
        return partial(self._model, images.to(self._device, self._dtype))
