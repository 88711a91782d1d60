"""How much results differ between what they may come from: instructions, batch size, precision.

    python benchmarks/origins.py [--trials 28] [--images 1000] [--budget 50%]

The same trials of the digits space, all evaluated in full, once per origin: on a CPU with AVX-512
and one without, in batches of 64, 32 and 8 images, in fp32 and bf16. Of each pair, over all images
of all trials: the share whose verdict, right or wrong, differs; how far total variations lie apart,
on average and at most; how far the trials' accuracies do.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from common import record
from searching import Searched, search

from ztp_search.study.packing import unpack_bits, unpack_losses

WITHOUT_AVX512 = {
    "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}  # fmt: skip
ORIGINS: dict[str, tuple[dict[str, str], str, int]] = {
    "fp32": ({}, "fp32", 64),
    "fp32, batches of 32": ({}, "fp32", 32),
    "fp32, batches of 8": ({}, "fp32", 8),
    "fp32, AVX2": (WITHOUT_AVX512, "fp32", 64),
    "bf16": ({}, "bf16", 64),
    "bf16, batches of 32": ({}, "bf16", 32),
    "bf16, AVX2": (WITHOUT_AVX512, "bf16", 64),
}
"""Environment, precision, batch size; with AVX-512 where the CPU has it."""
PAIRS = (
    ("fp32", "fp32, batches of 32"), ("fp32", "fp32, batches of 8"), ("fp32", "fp32, AVX2"),
    ("bf16", "bf16, batches of 32"), ("bf16", "bf16, AVX2"), ("fp32", "bf16"),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=28)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--budget", default="50%")
    args = parser.parse_args()
    found = {name: evaluated(args, *origin) for name, origin in ORIGINS.items()}
    rows = [compared(first, other, found[first], found[other]) for first, other in PAIRS]
    origins = {name: each.trials[0].attrs["origins"] for name, each in found.items()}
    record("origins", {"arguments": vars(args), "origins": origins, "rows": rows})


def evaluated(
    args: argparse.Namespace, environment: dict[str, str], precision: str, batch_size: int
) -> Searched:
    with tempfile.TemporaryDirectory() as out, mock.patch.dict(os.environ, environment):
        return search(
            Path(out), "--budget", args.budget, "--trials", args.trials, "--images", args.images,
            "--holdout", 0, "--racing", "off", "--workers", 0, "--speed", "off",
            "--precision", precision, "--batch-size", batch_size,
        )  # fmt: skip


def compared(first: str, other: str, one: Searched, two: Searched) -> dict[str, Any]:
    """Every image of every trial."""
    pairs = list(zip(one.trials, two.trials, strict=True))
    assert all(a.config == b.config for a, b in pairs)
    correct, losses = (
        np.array([[unpack(trial.attrs) for trial in pair] for pair in pairs])
        for unpack in (_correct, _losses)
    )  # (trials, 2, images)
    apart = np.abs(losses[:, 0] - losses[:, 1])
    accuracy = 100 * np.abs(np.diff(correct.mean(2))).max()
    row: dict[str, Any] = {
        "first": first,
        "other": other,
        "evaluations": int(apart.size),
        "verdicts_that_differ": float((correct[:, 0] != correct[:, 1]).mean()),
        "total_variation_apart_mean": float(apart.mean()),
        "total_variation_apart_99th": float(np.percentile(apart, 99)),
        "total_variation_apart_most": float(apart.max()),
        "accuracy_apart_most_points": float(accuracy),
    }
    print(f"{first} and {other}: {100 * row['verdicts_that_differ']:.3f} % of verdicts differ, "
          f"total variation {apart.mean():.5f} apart (99th percentile "
          f"{row['total_variation_apart_99th']:.5f}, most {apart.max():.3f}), accuracy at most "
          f"{accuracy:.2f} points")  # fmt: skip
    return row


def _correct(attrs: dict[str, Any]) -> np.ndarray[Any, Any]:
    return unpack_bits(attrs["correct"], attrs["images"])


def _losses(attrs: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.asarray(unpack_losses(attrs["losses"]) / 65_535)


if __name__ == "__main__":
    main()
