"""The pruned model as `torch.export` sees it: no hooks left, any batch size."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ztp_search.results.exporters.base import Exported

if TYPE_CHECKING:
    import torch

LARGEST_BATCH = 1 << 20
"""The batch size is free up to here."""
INPUT, OUTPUT = "images", "logits"


def pruned_model(what: Exported) -> tuple[torch.nn.Module, torch.Tensor, dict[str, Any]]:
    """The model with its tokens reduced, images (2, C, H, W) to trace it with, its data config."""
    import torch

    from ztp_search.backbones import apply

    loaded = what.load()
    model = apply(loaded.model, what.file.config)
    images = torch.zeros(2, *loaded.data_config["input_size"])
    return model, images, loaded.data_config


def free_batch() -> tuple[dict[int, Any]]:
    """`dynamic_shapes` of the images."""
    import torch

    return ({0: torch.export.Dim("batch", min=1, max=LARGEST_BATCH)},)


def metadata(what: Exported, data_config: dict[str, Any]) -> dict[str, str]:
    """What goes along with the program: the configuration file, and how images are prepared."""
    return {
        "ztp-search.json": what.file.dumps(),
        "data_config.json": json.dumps(data_config) + "\n",
    }


@contextmanager
def quiet() -> Iterator[None]:
    """The tracers' warnings of their own doings are no news to a user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
