"""The model as `ztp-search export --format onnx` writes it, in ONNX Runtime on the CPU."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from ztp_search.backbones import pruner_of
from ztp_search.errors import ZtpError
from ztp_search.evaluation.engines.base import Engine, Forward
from ztp_search.evaluation.runtime import Runtime
from ztp_search.results.exporters.onnx_model import onnx_program
from ztp_search.results.exporters.traced import INPUT


class OnnxRuntime(Engine):
    """Unpruned and pruned models are exported alike, in fp32, with a free batch size."""

    def __init__(self, model: nn.Module, runtime: Runtime) -> None:
        if runtime.device != "cpu":
            raise ZtpError("onnxruntime is measured on CPUs alone; use `device` cpu")
        try:
            import onnxruntime
        except ImportError:
            raise ZtpError(
                "onnxruntime is not installed; install it with: pip install 'ztp-search[speed]'"
            ) from None
        model = model.to("cpu").float()
        program = onnx_program(model, pruner_of(model).backbone.example_input().repeat(2, 1, 1, 1))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = runtime.threads
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            program.save(path, external_data=False)
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )

    @staticmethod
    def precision(runtime: Runtime) -> str:
        return "fp32"

    def bind(self, images: Tensor) -> Forward:
        return partial(self._session.run, None, {INPUT: images.numpy()})
