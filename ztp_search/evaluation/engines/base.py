"""What every engine offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor, nn

from ztp_search.evaluation.runtime import Runtime

Forward: TypeAlias = Callable[[], object]
"""One forward pass of a batch that is there already; nothing else is timed."""


class Engine(ABC):
    """A model made ready to run.

    Whatever an engine raises means that it cannot run here: that is reported, and nothing fails.
    """

    @abstractmethod
    def __init__(self, model: nn.Module, runtime: Runtime) -> None:
        """Make `model` ready, with its tokens reduced or not, as it is. It may be changed.

        Args:
            model: in evaluation mode, in any precision and on any device.
            runtime: device, precision and threads that are asked for.
        """

    @staticmethod
    def precision(runtime: Runtime) -> str:
        """What it computes in, if `runtime` is asked for: that of the runtime if it can."""
        return runtime.precision

    @abstractmethod
    def bind(self, images: Tensor) -> Forward:
        """What runs the model once on these images, (B, C, H, W), float32 on the CPU.

        They are brought to the device, and to its precision, beforehand.
        """

    def close(self) -> None:
        """Give back what it holds beside the model; called once, when all is measured."""
        return None
