"""What changes a result in its last bit: device, precision, batch size, threads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

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
    for name, value, known in (
        ("device", device, ("auto", "cpu", "cuda")), ("precision", precision, ("auto", *DTYPES))
    ):  # fmt: skip
        if value not in known:
            raise ZtpError(f"`{name}` must be one of {', '.join(known)}, but got {value!r}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ZtpError("`device` cuda needs a CUDA device, but PyTorch sees none; use `device` cpu")
    if precision == "auto":
        if device == "cuda":
            precision = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        else:
            precision = "bf16" if _native_bf16() else "fp32"
    if precision == "fp16" and device == "cpu":
        raise ZtpError("`precision` fp16 needs a GPU; on a CPU use bf16 or fp32")
    return Runtime(device, precision, batch_size, threads)


def _native_bf16() -> bool:
    capability = torch.backends.cpu.get_cpu_capability()
    if "AVX512" not in capability and "AMX" not in capability:
        return False
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported()) if supported is not None else False
