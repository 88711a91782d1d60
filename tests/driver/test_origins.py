"""What results come from, and how little of them depends on it."""

import os
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import Finished
from helpers.running import SEARCH, argv_of, process, stored

from ztp_search.evaluation.origin import Origin, joined, origins_from_json, origins_to_json
from ztp_search.study.packing import unpack_bits, unpack_losses


def test_origins_are_added_up_and_come_back_as_they_were_stored() -> None:
    cpu, gpu = Origin("CPU (AVX512)", "bf16", 64), Origin("NVIDIA H100", "bf16", 64)
    half = Origin("CPU (AVX512)", "bf16", 32)
    both = joined([{cpu: 64}, {gpu: 10, cpu: 64}, {}, {half: 3}])
    assert both == {cpu: 128, gpu: 10, half: 3}
    assert origins_to_json(both) == [
        {"device": "CPU (AVX512)", "precision": "bf16", "batch_size": 32, "images": 3},
        {"device": "CPU (AVX512)", "precision": "bf16", "batch_size": 64, "images": 128},
        {"device": "NVIDIA H100", "precision": "bf16", "batch_size": 64, "images": 10},
    ]
    assert origins_from_json(origins_to_json(both)) == both


@pytest.mark.slow
@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="needs a CPU with AVX-512"
)
def test_instructions_of_another_cpu_change_next_to_nothing_in_fp32(
    tmp_path: Path, finished: Finished
) -> None:
    older = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
             "ONEDNN_MAX_CPU_ISA": "AVX2"}  # fmt: skip
    with mock.patch.dict(os.environ, older):
        with process(*argv_of({**SEARCH, "workers": 0, "out": tmp_path})) as child:
            assert child.wait() == 0
    pairs = list(zip(stored(tmp_path), stored(finished.out), strict=True))
    assert all(found.config == expected.config for found, expected in pairs)
    devices = [{o["device"] for trial in pair for o in trial.attrs["origins"]} for pair in pairs]
    assert devices == [{"CPU (AVX2)", "CPU (AVX512)"}] * len(pairs)
    correct = np.array([[unpack_bits(t.attrs["correct"], 96) for t in pair] for pair in pairs])
    losses = np.array([[unpack_losses(t.attrs["losses"]) for t in pair] for pair in pairs]) / 65_535
    assert (correct[:, 0] != correct[:, 1]).mean() < 0.005
    assert np.percentile(np.abs(losses[:, 0] - losses[:, 1]), 99) < 0.001
