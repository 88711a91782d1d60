"""A GFLOPs budget: read from text, and what meets it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ztp_search.errors import BudgetError
from ztp_search.pruning.costs import CostModel, Gflops
from ztp_search.pruning.geometry import Geometry


@dataclass(frozen=True, slots=True)
class Budget:
    """What a configuration may cost per image: (1 - tolerance) macs to macs.

    Attributes:
        macs: the most, in the cost model's integer steps (multiply-adds).
        tolerance: how far below it a configuration may stay, as a share of it.
        counts: "total" (what runs) or "backbone" (without what pruning adds, as papers print it).
    """

    macs: int
    tolerance: float = 0.01
    counts: str = "total"

    @property
    def least(self) -> int:
        """The least that a configuration may cost."""
        return math.ceil((1.0 - self.tolerance) * self.macs)

    def cost_model(self, geometry: Geometry) -> CostModel:
        """What costs are counted by on this model."""
        return Gflops(geometry, self.counts)

    def holds(self, cost: int) -> bool:
        """Whether a configuration of this cost meets the budget."""
        return self.least <= cost <= self.macs


NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"
MAX_BUDGETS = 100


def split_budgets(text: str) -> tuple[str, ...]:
    """The budgets of "2.5,3.0,3.5" or "2.5:4.0:6" (from, to, how many), in their shortest form.

    Shares go likewise: "50%,67%" or "50%:80%:4". In the order given, none twice.
    """
    budgets: list[str] = []
    for part in text.split(","):
        budgets += _range(part, text) if ":" in part else [_shortest(part)]
    budgets = list(dict.fromkeys(budgets))
    if len(budgets) > MAX_BUDGETS:
        raise BudgetError(f"`budget` {text} means {len(budgets)} budgets; {MAX_BUDGETS} at most")
    return tuple(budgets)


def _shortest(part: str) -> str:
    """3.0 as 3, so that a budget has one name; what is none stays for `check_budgets`."""
    match = re.fullmatch(rf"\s*({NUMBER})\s*(%?)\s*", part)
    return part.strip() if match is None else f"{float(match[1]):.12g}{match[2]}"


def _range(part: str, text: str) -> list[str]:
    match = re.fullmatch(rf"\s*({NUMBER})(%?):({NUMBER})(%?):([0-9]{{1,4}})\s*", part)
    if match is None or match[2] != match[4] or int(match[5]) < 2:
        raise BudgetError(
            f"`budget` takes a range as FROM:TO:HOW-MANY, two or more (2.5:4.0:6 or 50%:80%:4), "
            f"got {part.strip()!r} in {text!r}"
        )
    low, high, count = float(match[1]), float(match[3]), int(match[5])
    step = (high - low) / (count - 1)
    return [f"{low + i * step:.6g}{match[2]}" for i in range(count)]


def check_budgets(text: str) -> None:
    """Check that budgets are well formed; needs no model.

    Raises:
        BudgetError: one of them is not.
    """
    for budget in split_budgets(text):
        _value(budget)


def parse_budget(
    text: str, geometry: Geometry, tolerance: float = 0.01, counts: str = "total"
) -> Budget:
    """Read one budget.

    Args:
        text: "3.08" (GFLOPs) or "67%" (of the unpruned model).
        geometry: the model's sizes.
        tolerance, counts: of the budget.

    Raises:
        BudgetError: the text is no budget.

    Example:
        >>> parse_budget("50%", geometry).macs
        2304169152
    """
    value, is_share = _value(text)
    model = Gflops(geometry)
    steps = value / 100.0 * model.unpruned() if is_share else value * model.per_unit
    return Budget(math.floor(steps + 1e-6), tolerance, counts)


def _value(text: str) -> tuple[float, bool]:
    match = re.fullmatch(rf"\s*({NUMBER})\s*(%?)\s*", text)
    if match is None or not 0 < float(match[1]) < 1e9:
        raise BudgetError(
            f"`budget` must be GFLOPs (3.08) or a share of the unpruned model (67%), got {text!r}"
        )
    return float(match[1]), bool(match[2])
