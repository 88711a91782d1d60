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
    """Multiply-adds of one configuration.

    Attributes:
        cost: as the cost model counts them, block by block.
        fvcore_macs: as fvcore counts the model that runs.
    """

    cost: Cost
    fvcore_macs: int

    @property
    def gflops(self) -> dict[str, float]:
        """GFLOPs per image by the names total, backbone, overhead and unpruned."""
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

    Attributes:
        images, image_set: how many, and of which set.
        top1, unpruned_top1: accuracies, fractions of one; None where the images have no labels.
        agreement: share of images of which both predict the same class.
        gflops: total, backbone, overhead, unpruned.
        runtime: device, precision, batch_size, threads.
        speed: machine, device, threads, `promised_speedup` by GFLOPs, and `measured`: a row per
            engine and batch size (see `evaluation.speed.measure_speed`); None where it was not
            asked for.
    """

    images: int
    image_set: str
    top1: float | None
    agreement: float
    unpruned_top1: float | None
    gflops: Mapping[str, float]
    runtime: Mapping[str, Any]
    speed: Mapping[str, Any] | None = None

    @property
    def images_per_second(self) -> float | None:
        """Of the pruned model, in the first engine at the largest batch; None: not measured."""
        row = throughput(self.speed)
        return None if row is None else float(row["pruned"]["images_per_second"])

    @property
    def unpruned_images_per_second(self) -> float | None:
        """Of the unpruned model, likewise."""
        row = throughput(self.speed)
        return None if row is None else float(row["unpruned"]["images_per_second"])

    def to_dict(self) -> dict[str, Any]:
        """The document that `ztp-search evaluate --json` prints."""
        return {
            **asdict(self),
            "images_per_second": self.images_per_second,
            "unpruned_images_per_second": self.unpruned_images_per_second,
        }

    def __rich__(self) -> RenderableType:
        return evaluation_table(self.to_dict())


def throughput(speed: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Of what was measured of speed, the row of the first engine at its largest batch size.

    Args:
        speed: the record; None: there is none.
    """
    rows = [row for row in (speed or {}).get("measured", ()) if "failed" not in row]
    rows = [row for row in rows if row["engine"] == rows[0]["engine"]]
    return max(rows, key=lambda row: int(row["batch_size"]), default=None)
