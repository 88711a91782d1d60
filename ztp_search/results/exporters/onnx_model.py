"""An ONNX model with its weights in it, for ONNX Runtime and what else reads ONNX."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

from ztp_search.pruning.config_file import ConfigFile
from ztp_search.results.exporters.base import Exported, Exporter, missing
from ztp_search.results.exporters.traced import (
    INPUT,
    OUTPUT,
    free_batch,
    metadata,
    pruned_model,
    quiet,
)
from ztp_search.results.whole_file import in_place_of

if TYPE_CHECKING:
    import torch

LIBRARIES = ("onnx", "onnxscript")


class OnnxModel(Exporter):
    """`images` (batch, C, H, W), float32, to `logits` (batch, classes); the batch size is free."""

    def export(self, what: Exported, path: Path) -> None:
        _check_libraries()
        with in_place_of(path) as temporary:
            model, images, data_config = pruned_model(what)
            program = onnx_program(model, images)
            program.model.metadata_props.update(metadata(what, data_config))
            program.save(temporary, external_data=False)

    def omits(self, file: ConfigFile) -> str | None:
        return "ONNX knows no stable sort: tokens of exactly equal rank fall as the runtime likes"


def onnx_program(model: torch.nn.Module, images: torch.Tensor) -> torch.onnx.ONNXProgram:
    """A model as an ONNX program, its tokens reduced or not, as it is; the batch size is free.

    Args:
        model: in float32 on the CPU.
        images: two, to trace it with, (2, C, H, W).

    Raises:
        ZtpError: a library is not installed.
    """
    _check_libraries()
    import torch

    with quiet(), contextlib.redirect_stdout(io.StringIO()):  # its steps, which are no result
        program = torch.onnx.export(
            model, (images,), dynamo=True, dynamic_shapes=free_batch(),
            input_names=[INPUT], output_names=[OUTPUT], verbose=False,
        )  # fmt: skip
    assert program is not None
    return program


def _check_libraries() -> None:
    for library in LIBRARIES:
        try:
            __import__(library)
        except ImportError:
            raise missing("onnx", " and ".join(LIBRARIES)) from None
