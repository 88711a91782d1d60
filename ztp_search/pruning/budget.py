"""A GFLOPs budget: read from text, and what meets it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from ztp_search.errors import BudgetError
from ztp_search.pruning.cost import Cost, Geometry, unpruned_macs


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
        raise BudgetError(f"--budget {text} means {len(budgets)} budgets; {MAX_BUDGETS} at most")
    return tuple(budgets)


def _shortest(part: str) -> str:
    """3.0 as 3, so that a budget has one name; what is none stays for `check_budgets`."""
    match = re.fullmatch(rf"\s*({NUMBER})\s*(%?)\s*", part)
    return part.strip() if match is None else f"{float(match[1]):.12g}{match[2]}"


def _range(part: str, text: str) -> list[str]:
    match = re.fullmatch(rf"\s*({NUMBER})(%?):({NUMBER})(%?):([0-9]{{1,4}})\s*", part)
    if match is None or match[2] != match[4] or int(match[5]) < 2:
        raise BudgetError(
            f"--budget takes a range as FROM:TO:HOW-MANY, two or more (2.5:4.0:6 or 50%:80%:4), "
            f"got {part.strip()!r} in {text!r}"
        )
    low, high, count = float(match[1]), float(match[3]), int(match[5])
    step = (high - low) / (count - 1)
    return [f"{low + i * step:.6g}{match[2]}" for i in range(count)]


def check_budgets(text: str) -> None:
    """BudgetError where --budget is not well formed; needs no model."""
    for budget in split_budgets(text):
        _value(budget)


def parse_budget(
    text: str, geometry: Geometry, tolerance: float = 0.01, counts: str = "total"
) -> Budget:
    """Read "3.08" (GFLOPs) or "67%" (of the unpruned model)."""
    value, is_share = _value(text)
    macs = value / 100.0 * unpruned_macs(geometry) if is_share else value * 1e9
    return Budget(math.floor(macs + 1e-6), tolerance, counts)


def _value(text: str) -> tuple[float, bool]:
    match = re.fullmatch(rf"\s*({NUMBER})\s*(%?)\s*", text)
    if match is None or not 0 < float(match[1]) < 1e9:
        raise BudgetError(
            f"--budget must be GFLOPs (3.08) or a share of the unpruned model (67%), got {text!r}"
        )
    return float(match[1]), bool(match[2])
