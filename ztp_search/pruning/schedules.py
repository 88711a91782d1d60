"""Hand-set schedules, solved to a budget: what a search has to beat.

The paper's (Zero-TPrune): five pruning layers after blocks 1, 3, 6, 9 and 11 of 12 (at the same
relative depth elsewhere), 10 of 196 tokens by similarity in each, 30 / 5 / 5 / 1 / 1 WPR
iterations, and an I-stage in the three middle layers with a constant or a uniformly declining rate
(0.9, 0.8, 0.7 at 3.08 GFLOPs).

ToMe's (Bolya et al., ICLR 2023): r tokens merged behind every block (but the last, where it saves
nothing), each into its most similar one at the other places of the sequence, by keys, sizes
tracked; r the same everywhere or declining from twice its mean to none. Merged after the block
rather than within it, and by whole keys rather than their mean over heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ztp_search.pruning.budget import Budget
from ztp_search.pruning.config import RETENTION_UNIT, PruningConfig, PruningLayer
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.methods import method_of
from ztp_search.pruning.rounding import round_half_up

PLACES = (1 / 12, 3 / 12, 6 / 12, 9 / 12, 11 / 12)
ITERATIONS = (30, 5, 5, 1, 1)
S_SHARE = 10 / 196
SHAPES: Mapping[str, tuple[int, ...]] = {
    "declining": (0, 1, 2, 3, 0),
    "constant": (0, 1, 1, 1, 0),
}
"""How many times the step each layer's rate lies below 1."""


PAPER = PruningConfig()
TOME = PruningConfig(similar="merge", sizes="track", partition="position", features="key")
R_UNIT = 1_000


@dataclass(frozen=True, slots=True)
class Baseline:
    """A hand-set schedule that a search has to beat.

    Attributes:
        title: what it is, as in a sentence.
        label: what tables call it.
        about: what it is, as below a table.
        shapes: the forms it comes in; the one that does best on the search images stands for it.
        schedule: (geometry, budget, shape) -> the schedule solved to the budget, or None.
    """

    title: str
    label: str
    about: str
    shapes: tuple[str, ...]
    schedule: Callable[[Geometry, Budget, str], PruningConfig | None]

    def schedules(self, geometry: Geometry, budget: Budget) -> dict[str, PruningConfig]:
        """The schedules that fit the model and the budget, by shape."""
        solved = {shape: self.schedule(geometry, budget, shape) for shape in self.shapes}
        return {shape: config for shape, config in solved.items() if config is not None}


def paper_schedule(geometry: Geometry, budget: Budget, shape: str) -> PruningConfig | None:
    """The schedule of that shape with the highest rates that keep the budget.

    The rates fall in one step size, found by bisection; single tokens of the last I-stage use up
    what is left. Where 10 of 196 tokens per S-stage are more than a generous budget leaves to
    prune, s is lowered first. None where no step size keeps the budget (or the model is too
    shallow for the schedule).
    """

    cost_model = budget.cost_model(geometry)

    def fits(config: PruningConfig | None) -> bool:
        return config is not None and cost_model.total(config) <= budget.macs

    s_tokens = round_half_up(S_SHARE * geometry.patch_tokens)
    while s_tokens and fits(_schedule(geometry, shape, 0, s_tokens)):
        s_tokens -= 1
    low, high = 0, RETENTION_UNIT // max(SHAPES[shape]) - 1
    if not fits(_schedule(geometry, shape, high, s_tokens)):
        return None
    while low < high:
        middle = (low + high) // 2
        if fits(_schedule(geometry, shape, middle, s_tokens)):
            high = middle
        else:
            low = middle + 1
    best = _schedule(geometry, shape, high, s_tokens)
    for extra in range(1, geometry.patch_tokens):
        longer = _schedule(geometry, shape, high, s_tokens, extra)
        if not fits(longer):
            break
        best = longer
    return best


def _schedule(
    geometry: Geometry, shape: str, step: int, s_tokens: int, extra: int = 0
) -> PruningConfig | None:
    """Rates 1 - step (in units) times the shape; `extra` tokens more in the last I-stage."""
    blocks = [min(max(1, round_half_up(p * geometry.depth)), geometry.depth - 1) for p in PLACES]
    if len(set(blocks)) != len(blocks):
        return None
    layers = []
    n = geometry.patch_tokens
    for j, block in enumerate(blocks):
        units = RETENTION_UNIT - SHAPES[shape][j] * step
        if j == 3:  # the last layer with an I-stage
            units = min(RETENTION_UNIT, units + -(-extra * RETENTION_UNIT // n))
        s = min(s_tokens, n // 2)
        layers.append(PruningLayer(block, units / RETENTION_UNIT, s, ITERATIONS[j]))
        n = method_of(PAPER).kept(PAPER, layers[-1], n)
    return PruningConfig(layers=tuple(layers))


def tome_schedule(geometry: Geometry, budget: Budget, shape: str) -> PruningConfig | None:
    """The schedule of that shape that merges the fewest tokens within the budget.

    What r is not a whole number of is made up from block to block. None where half of the tokens
    behind every block are too few.
    """
    cost_model = budget.cost_model(geometry)

    def fits(r: int) -> bool:
        return cost_model.total(tome_with(geometry, shape, r)) <= budget.macs

    low, high = 0, geometry.patch_tokens * R_UNIT
    if not fits(high):
        return None
    if fits(0):
        return tome_with(geometry, shape, 0)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return tome_with(geometry, shape, high)


def tome_with(geometry: Geometry, shape: str, r: int) -> PruningConfig:
    """r / R_UNIT tokens merged behind every block, on average."""
    layers = []
    n, merged = geometry.patch_tokens, 0
    last = geometry.depth - 1
    for block in range(1, last + 1):
        if shape == "declining":  # 2 r - 2 r (block - 1) / (last - 1), summed over the blocks
            share = block * (2.0 - (block - 1) / max(1, last - 1))
        else:
            share = float(block)
        due = round_half_up(share * r / R_UNIT) - merged
        merged += due
        s = min(due, n // 2)
        if s:
            layers.append(PruningLayer(block, s_tokens=s))
        n -= s
    return replace(TOME, layers=tuple(layers))


BASELINES: Mapping[str, Baseline] = {
    "paper_schedule": Baseline(
        title="the paper's schedule",
        label="paper's",
        about="its hand-set schedule, {shape} retention",
        shapes=tuple(SHAPES),
        schedule=paper_schedule,
    ),
    "tome": Baseline(
        title="ToMe's schedule",
        label="ToMe's",
        about="r tokens merged behind every block, {shape} r",
        shapes=("declining", "constant"),
        schedule=tome_schedule,
    ),
}
"""By the name under which results are stored and reported."""

OPPONENT = "paper_schedule"
"""The baseline that a configuration file's `paired_ci95` is about."""
