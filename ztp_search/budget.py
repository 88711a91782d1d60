"""A GFLOPs budget: read from text, and what meets it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ztp_search.cost import Cost, Geometry, unpruned_macs
from ztp_search.errors import BudgetError


@dataclass(frozen=True, slots=True)
class Budget:
    """Multiply-adds per image that a configuration may cost: (1 - tolerance) macs to macs.

    counts: "total" (what runs) or "backbone" (without what pruning adds, as papers print it).
    """

    macs: int
    tolerance: float = 0.01
    counts: str = "total"

    @property
    def least(self) -> int:
        return math.ceil((1.0 - self.tolerance) * self.macs)

    def of(self, cost: Cost) -> int:
        """The part of a cost that this budget bounds."""
        return cost.total if self.counts == "total" else cost.backbone

    def holds(self, cost: Cost) -> bool:
        return self.least <= self.of(cost) <= self.macs


def parse_budget(
    text: str, geometry: Geometry, tolerance: float = 0.01, counts: str = "total"
) -> Budget:
    """Read "3.08" (GFLOPs) or "67%" (of the unpruned model)."""
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?)\s*(%?)\s*", text)
    if match is None or not 0 < float(match[1]) < 1e9:
        raise BudgetError(
            f"--budget must be GFLOPs (3.08) or a share of the unpruned model (67%), got {text!r}"
        )
    value = float(match[1])
    macs = value / 100.0 * unpruned_macs(geometry) if match[2] else value * 1e9
    return Budget(math.floor(macs + 1e-6), tolerance, counts)
