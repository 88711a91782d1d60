"""A `torch.export` program (.pt2): runs with torch alone, and is what AOTInductor and ExecuTorch
start from."""

from __future__ import annotations

from pathlib import Path

from ztp_search.results.exporters.base import Exported, Exporter
from ztp_search.results.exporters.traced import free_batch, metadata, pruned_model, quiet
from ztp_search.results.whole_file import in_place_of


class TorchProgram(Exporter):
    """Images (B, C, H, W), float32, to logits (B, classes); the batch size is free."""

    def export(self, what: Exported, path: Path) -> None:
        import torch

        with in_place_of(path) as temporary, quiet():
            model, images, data_config = pruned_model(what)
            program = torch.export.export(model, (images,), dynamic_shapes=free_batch())
            with temporary.open("wb") as file:
                torch.export.save(program, file, extra_files=metadata(what, data_config))
