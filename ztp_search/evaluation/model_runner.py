"""The model on one worker: configurations evaluated on a range of images."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ztp_search.backbones import ActivationCache, pruner_of
from ztp_search.data import normalise
from ztp_search.evaluation.image_range import ImageRange
from ztp_search.evaluation.origin import Origin, origin_of
from ztp_search.evaluation.runtime import DTYPES, Runtime
from ztp_search.objectives import Distributions, Objective, Predictions
from ztp_search.objectives.signals import distribution, losses
from ztp_search.pruning.config import PruningConfig
from ztp_search.racing import Losses


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
class RangeResult:
    """What one configuration gave on a range of images.

    Attributes:
        predictions: what the objective reads off the logits of each image, (images,): int32, the
            predicted class, -1 where a logit was not finite.
        fallbacks: images for which the head filter left no head in some pruning layer.
        seconds: time of loading and forward passes on the device that does them. Blocks that
            several configurations share count for the first of them.
        origin: what the results come from.
        losses: where the runner has targets for these images, (images,).
        distributions: of the unpruned model, where they are asked for, (images, classes).
    """

    predictions: Predictions
    fallbacks: int
    seconds: float
    origin: Origin
    losses: Losses | None = None
    distributions: Distributions | None = None


class ModelRunner:
    """A model and its images, held once; `run` is a pure function of its arguments.

    Args:
        model: moved to the runtime's device and precision, in place.
        images: uint8 (images, channels, height, width) by name of the image set, typically
            memory-mapped.
        mean, std: per channel, as in timm's data config.
        runtime: device, precision, batch size and threads.
        objective: says what is kept of the logits.
        distributions: whether the unpruned model's output distributions are kept.
        cache_bytes: how much of the activations that configurations share is kept from one `run`
            to the next.
        batch_size: images per forward where memory is short; None: the runtime's.

    Attributes:
        origin: what results come from; of as many images per forward as there was memory for.
        targets: what outputs are compared with, by name of the image set; see `signals.losses`.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Mapping[str, npt.NDArray[np.uint8]],
        mean: Sequence[float],
        std: Sequence[float],
        runtime: Runtime,
        objective: Objective,
        cache_bytes: int = 0,
        distributions: bool = False,
        batch_size: int | None = None,
    ) -> None:
        self.runtime = runtime
        self.origin = origin_of(runtime, batch_size or runtime.batch_size)
        self.images = images
        self.mean, self.std = tuple(mean), tuple(std)
        self.dtype = DTYPES[runtime.precision]
        self.objective = objective
        self.distributions = distributions
        self.cache_bytes = cache_bytes
        self.targets: dict[str, Distributions] = {}
        torch.set_num_threads(runtime.threads)
        self.model = model.to(runtime.device, self.dtype).eval()
        self.pruner = pruner_of(self.model)
        self._batches: OrderedDict[ImageRange, ActivationCache] = OrderedDict()

    def run(
        self, configs: Sequence[PruningConfig | None], images: ImageRange
    ) -> list[RangeResult]:
        """Evaluate each configuration (None: the unpruned model) on a range of images.

        Batches begin at the start of the range.

        Raises:
            ConfigError: a configuration does not fit the model.
        """
        readings: list[list[Tensor]] = [[] for _ in configs]
        soft: list[list[Tensor]] = [[] for _ in configs]
        whole: list[list[Tensor]] = [[] for _ in configs]
        fallbacks: list[list[Tensor]] = [[] for _ in configs]
        clock = CLOCKS[self.runtime.device]
        loading: list[tuple[Any, Any]] = []
        spans: list[list[tuple[Any, Any]]] = [[] for _ in configs]
        with torch.inference_mode():
            for batch in images.split(self.origin.batch_size):
                began = clock.now()
                activations = self._activations(batch)
                targets = self._targets(batch)
                loaded = clock.now()
                loading.append((began, loaded))
                began = loaded
                try:
                    for index, config in enumerate(configs):
                        logits = activations.logits(config)  # (B, classes)
                        readings[index].append(self.objective.read(logits))
                        if targets is not None:
                            soft[index].append(losses(logits, targets))
                        if config is None and self.distributions:
                            whole[index].append(distribution(logits))
                        if self.pruner.fallbacks:
                            any_layer = torch.stack(self.pruner.fallbacks).any(0)  # (B,)
                            fallbacks[index].append(any_layer.sum())
                        now = clock.now()
                        spans[index].append((began, now))
                        began = now
                finally:
                    self._make_room()
            shared = sum(clock.between(*span) for span in loading) / len(configs)
            return [
                RangeResult(
                    _array(readings[index], np.int32),
                    int(torch.stack(fallbacks[index]).sum()) if fallbacks[index] else 0,
                    shared + sum(clock.between(*span) for span in spans[index]),
                    self.origin,
                    _array(soft[index], np.uint16) if soft[index] else None,
                    _array(whole[index], np.float32) if whole[index] else None,
                )
                for index in range(len(configs))
            ]

    @property
    def cached_bytes(self) -> int:
        """Memory that is kept for the next `run`."""
        return sum(activations.nbytes for activations in self._batches.values())

    def clear_cache(self) -> None:
        """Give back all memory that is kept for the next `run`."""
        self._batches.clear()
        if self.runtime.device == "cuda":
            torch.cuda.empty_cache()

    def halve_batches(self) -> bool:
        """Take half as many images per forward from now on; False where it is one already."""
        half = self.origin.batch_size // 2
        if half:
            self.origin = replace(self.origin, batch_size=half)
        return half > 0

    def _activations(self, batch: ImageRange) -> ActivationCache:
        """The batch, as far through the blocks as earlier configurations have taken it."""
        if batch not in self._batches:
            images = self.images[batch.image_set]
            pixels = torch.from_numpy(np.array(images[batch.start : batch.stop]))
            pixels = pixels.to(self.runtime.device)
            x = normalise(pixels, self.mean, self.std).to(self.dtype)  # (B, C, H, W)
            self._batches[batch] = ActivationCache(self.pruner, x)
        self._batches.move_to_end(batch)
        return self._batches[batch]

    def _targets(self, batch: ImageRange) -> Tensor | None:
        """What the outputs of a batch are compared with, (B, classes), on the device."""
        targets = self.targets.get(batch.image_set)
        if targets is None:
            return None
        mine = torch.from_numpy(np.array(targets[batch.start : batch.stop]))
        return mine.to(self.runtime.device)

    def _make_room(self) -> None:
        """Drop the batches that were not used for longest until the rest keeps to the bound."""
        held = self.cached_bytes
        while held > self.cache_bytes:
            _, activations = self._batches.popitem(last=False)
            held -= activations.nbytes


def _array(batches: Sequence[Tensor], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """What was read of each batch, joined, on the host."""
    return torch.cat(list(batches)).cpu().numpy().astype(dtype)
