"""What one configuration costs, and what it does on images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import RenderableType

from ztp_search.pruning.cost import Cost, cost_dict
from ztp_search.results.shown import Shown
from ztp_search.results.tables import cost_table, evaluation_table


@dataclass(frozen=True, slots=True, repr=False)
class CostResult(Shown):
    """Multiply-adds of one configuration. fvcore_macs: fvcore's count of the model as it runs."""

    cost: Cost
    fvcore_macs: int

    @property
    def gflops(self) -> dict[str, float]:
        """total, backbone, overhead and unpruned, in GFLOPs per image."""
        return self.cost.gflops()

    def to_dict(self) -> dict[str, Any]:
        """The document that `ztp-search cost --json` prints."""
        return {
            **cost_dict(self.cost),
            "fvcore_gflops": self.fvcore_macs / 1e9,
            "blocks": [
                {
                    "block": block.block,
                    "tokens": block.tokens,
                    "backbone": block.backbone / 1e9,
                    "overhead": block.overhead / 1e9,
                    "total": block.total / 1e9,
                }
                for block in self.cost.blocks
            ],
        }

    def __rich__(self) -> RenderableType:
        return cost_table(self.to_dict())


@dataclass(frozen=True, slots=True, repr=False)
class EvaluationResult(Shown):
    """One configuration and the unpruned model, measured on the same images.

    top1, unpruned_top1: None where the images have no labels. agreement: with the unpruned model.
    runtime: device, precision, batch_size, threads.
    """

    images: int
    image_set: str
    top1: float | None
    agreement: float
    unpruned_top1: float | None
    gflops: Mapping[str, float]
    images_per_second: float
    unpruned_images_per_second: float
    runtime: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The document that `ztp-search evaluate --json` prints."""
        return asdict(self)

    def __rich__(self) -> RenderableType:
        return evaluation_table(self.to_dict())
