"""Per-image results of one configuration on one block of images."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ztp_search.backbones import pruner_of
from ztp_search.config import PruningConfig
from ztp_search.data import normalise
from ztp_search.errors import ZtpError

DTYPES: Mapping[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(frozen=True, slots=True)
class Runtime:
    """What changes a result in its last bit, and so belongs to the study, not to the machine.

    device: "cpu" or "cuda". precision: fp32, bf16 or fp16 (weights and activations).
    batch_size: images per forward. threads: CPU threads of one worker.
    """

    device: str
    precision: str
    batch_size: int
    threads: int = 1


def resolve_runtime(device: str, precision: str, batch_size: int, threads: int) -> Runtime:
    """Turn "auto" into what this machine is best at: its GPU, and bf16 where that is native."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ZtpError("--device cuda needs a CUDA device, but PyTorch sees none; use --device cpu")
    if precision == "auto":
        if device == "cuda":
            precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        else:
            precision = "bf16" if _native_bf16() else "fp32"
    if precision == "fp16" and device == "cpu":
        raise ZtpError("--precision fp16 needs a GPU; on a CPU use bf16 or fp32")
    return Runtime(device, precision, batch_size, threads)


@dataclass(frozen=True, slots=True)
class BlockResult:
    """What one configuration gave on images start to stop.

    predictions: int32 (images,), the class of the highest logit; -1 where a logit was not finite.
    fallbacks: images for which the head filter left no head in some pruning layer.
    seconds: time the forward passes took.
    """

    predictions: npt.NDArray[np.int32]
    fallbacks: int
    seconds: float


class Evaluator:
    """A model and its images, held once; `run` is a pure function of its arguments.

    images: uint8 (images, channels, height, width) by name of the set, typically memory-mapped.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Mapping[str, npt.NDArray[np.uint8]],
        mean: Sequence[float],
        std: Sequence[float],
        runtime: Runtime,
    ) -> None:
        self.runtime = runtime
        self.images = images
        self.mean, self.std = tuple(mean), tuple(std)
        self.dtype = DTYPES[runtime.precision]
        torch.set_num_threads(runtime.threads)
        self.model = model.to(runtime.device, self.dtype).eval()
        self.pruner = pruner_of(self.model)

    def run(
        self, config: PruningConfig | None, image_set: str, start: int, stop: int
    ) -> BlockResult:
        """Predictions for images start to stop of a set, in batches that begin at `start`."""
        self.pruner.set(config)
        images = self.images[image_set]
        predictions = np.empty(stop - start, np.int32)
        fallbacks = 0
        began = time.perf_counter()
        with torch.inference_mode():
            for first in range(start, stop, self.runtime.batch_size):
                last = min(first + self.runtime.batch_size, stop)
                batch = torch.from_numpy(np.array(images[first:last])).to(self.runtime.device)
                x = normalise(batch, self.mean, self.std)
                logits = self.model(x.to(self.dtype))  # (B, classes)
                finite = torch.isfinite(logits).all(-1)
                classes = torch.where(finite, logits.argmax(-1), -1)
                predictions[first - start : last - start] = classes.cpu().numpy()
                if self.pruner.fallbacks:
                    fallbacks += int(torch.stack(self.pruner.fallbacks).any(0).sum())
        return BlockResult(predictions, fallbacks, time.perf_counter() - began)


def _native_bf16() -> bool:
    capability = torch.backends.cpu.get_cpu_capability()
    if "AVX512" not in capability and "AMX" not in capability:
        return False
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported()) if supported is not None else False
