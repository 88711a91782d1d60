"""An ONNX model with its weights in it, for ONNX Runtime and what else reads ONNX."""

from __future__ import annotations

import contextlib
import io
import logging
from pathlib import Path

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

LIBRARIES = ("onnx", "onnxscript")


class OnnxModel(Exporter):
    """`images` (batch, C, H, W), float32, to `logits` (batch, classes); the batch size is free."""

    def export(self, what: Exported, path: Path) -> None:
        for library in LIBRARIES:
            try:
                __import__(library)
            except ImportError:
                raise missing("onnx", " and ".join(LIBRARIES)) from None
        import torch

        with in_place_of(path) as temporary, quiet():
            model, images, data_config = pruned_model(what)
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            with contextlib.redirect_stdout(io.StringIO()):  # its steps, which are no result
                program = torch.onnx.export(
                    model, (images,), dynamo=True, dynamic_shapes=free_batch(),
                    input_names=[INPUT], output_names=[OUTPUT], verbose=False,
                )  # fmt: skip
            assert program is not None
            program.model.metadata_props.update(metadata(what, data_config))
            program.save(temporary, external_data=False)

    def omits(self, file: ConfigFile) -> str | None:
        return "ONNX knows no stable sort: tokens of exactly equal rank fall as the runtime likes"
