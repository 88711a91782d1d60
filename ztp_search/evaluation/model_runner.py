"""Per-image results of one configuration on one block of images."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ztp_search.backbones import Trunk, pruner_of
from ztp_search.data import normalise
from ztp_search.evaluation.runtime import DTYPES, Runtime
from ztp_search.pruning.config import PruningConfig


class Clock(NamedTuple):
    """The time of the device that does the work; `between` is known once it has been done."""

    now: Callable[[], Any]
    between: Callable[[Any, Any], float]  # seconds


def _event() -> Any:
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


CLOCKS: Mapping[str, Clock] = {
    "cpu": Clock(time.perf_counter, lambda start, stop: stop - start),
    "cuda": Clock(_event, lambda start, stop: start.elapsed_time(stop) / 1000.0),
}


@dataclass(frozen=True, slots=True)
class BlockResult:
    """What one configuration gave on images start to stop.

    predictions: int32 (images,), the class of the highest logit; -1 where a logit was not finite.
    fallbacks: images for which the head filter left no head in some pruning layer.
    seconds: time of loading and forward passes on the device that does them; blocks that several
        share are the first one's.
    """

    predictions: npt.NDArray[np.int32]
    fallbacks: int
    seconds: float


class Evaluator:
    """A model and its images, held once; `run` is a pure function of its arguments.

    images: uint8 (images, channels, height, width) by name of the set, typically memory-mapped.
    cache_bytes: how much of what configurations share is kept from one `run` to the next.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Mapping[str, npt.NDArray[np.uint8]],
        mean: Sequence[float],
        std: Sequence[float],
        runtime: Runtime,
        cache_bytes: int = 0,
    ) -> None:
        self.runtime = runtime
        self.images = images
        self.mean, self.std = tuple(mean), tuple(std)
        self.dtype = DTYPES[runtime.precision]
        self.cache_bytes = cache_bytes
        torch.set_num_threads(runtime.threads)
        self.model = model.to(runtime.device, self.dtype).eval()
        self.pruner = pruner_of(self.model)
        self._trunks: OrderedDict[tuple[str, int, int], Trunk] = OrderedDict()

    def run(
        self, configs: Sequence[PruningConfig | None], image_set: str, start: int, stop: int
    ) -> list[BlockResult]:
        """Predictions of each configuration (None: unpruned) for images start to stop of a set.

        In batches that begin at `start`; raises ConfigError where one does not fit the model.
        """
        classes: list[list[Tensor]] = [[] for _ in configs]
        fallbacks: list[list[Tensor]] = [[] for _ in configs]
        clock = CLOCKS[self.runtime.device]
        loading: list[tuple[Any, Any]] = []
        spans: list[list[tuple[Any, Any]]] = [[] for _ in configs]
        with torch.inference_mode():
            for first in range(start, stop, self.runtime.batch_size):
                last = min(first + self.runtime.batch_size, stop)
                began = clock.now()
                trunk = self._trunk(image_set, first, last)
                loaded = clock.now()
                loading.append((began, loaded))
                began = loaded
                try:
                    for index, config in enumerate(configs):
                        logits = trunk.logits(config)  # (B, classes)
                        finite = torch.isfinite(logits).all(-1)
                        classes[index].append(torch.where(finite, logits.argmax(-1), -1))
                        if self.pruner.fallbacks:
                            any_layer = torch.stack(self.pruner.fallbacks).any(0)  # (B,)
                            fallbacks[index].append(any_layer.sum())
                        now = clock.now()
                        spans[index].append((began, now))
                        began = now
                finally:
                    self._make_room()
            predictions = [torch.cat(each).cpu().numpy().astype(np.int32) for each in classes]
            shared = sum(clock.between(*span) for span in loading) / len(configs)
            return [
                BlockResult(
                    predictions[index],
                    int(torch.stack(fallbacks[index]).sum()) if fallbacks[index] else 0,
                    shared + sum(clock.between(*span) for span in spans[index]),
                )
                for index in range(len(configs))
            ]

    @property
    def kept_bytes(self) -> int:
        """What is kept for the next `run`."""
        return sum(trunk.nbytes for trunk in self._trunks.values())

    def forget(self) -> None:
        """Give back all memory that is kept for the next `run`."""
        self._trunks.clear()

    def _trunk(self, image_set: str, first: int, last: int) -> Trunk:
        """The batch as far as earlier configurations have taken it."""
        key = image_set, first, last
        if key not in self._trunks:
            images = self.images[image_set]
            batch = torch.from_numpy(np.array(images[first:last])).to(self.runtime.device)
            x = normalise(batch, self.mean, self.std).to(self.dtype)  # (B, C, H, W)
            self._trunks[key] = Trunk(self.pruner, x)
        self._trunks.move_to_end(key)
        return self._trunks[key]

    def _make_room(self) -> None:
        """Forget the batches that were not used for longest until the rest keeps to the bound."""
        held = self.kept_bytes
        while held > self.cache_bytes:
            _, trunk = self._trunks.popitem(last=False)
            held -= trunk.nbytes
