"""Which parameters decide how far a trial comes, block by block."""

from __future__ import annotations

from typing import Any

import numpy as np

from ztp_search.results.plots.base import Found, Plot
from ztp_search.results.plots.marks import axis
from ztp_search.results.plots.parameters import parameters_of
from ztp_search.results.plots.theme import colour

ENOUGH = 60
MOST = 2_000
"""Trials that are looked at, evenly spread over the standing: more cost time and change little."""
SHUFFLES = 3


class Importances(Plot):
    """What is lost when a block's parameters are shuffled among trials."""

    title = "Importances by block"
    caption = (
        "How much of the standing of unseen trials a forest of trees can no longer "
        "predict when all parameters of a block, or one choice, are shuffled."
    )

    def lacks(self, found: Found) -> str | None:
        there = len(found.standing)
        if there >= ENOUGH:
            return None
        return f"{there} trials have been evaluated, and importances need {ENOUGH}"

    def draw(self, found: Found) -> dict[str, Any]:
        shares, explained = importances(found)
        names = list(shares)[::-1]
        return {
            "data": [
                {"type": "bar", "orientation": "h", "y": names, "x": [shares[n] for n in names],
                 "marker": {"color": colour("best")}, "showlegend": False,
                 "hovertemplate": "%{y}: %{x}<extra></extra>"}
            ],
            "layout": {
                "height": max(self.height, 22 * len(names) + 90),
                "xaxis": axis(f"variance lost, % (all together predict {explained:.0f} %)"),
                "yaxis": {"type": "category", "dtick": 1},
            },
        }  # fmt: skip


def importances(found: Found) -> tuple[dict[str, float], float]:
    """By block or choice: drop of R² in %, on trials left out; and R² itself, 0 where negative."""
    from sklearn.ensemble import ExtraTreesRegressor

    there = found.standing
    picked = np.unique(np.linspace(0, len(there) - 1, min(MOST, len(there))).astype(int))
    trials = [there[place] for place in picked]
    names, x = parameters_of(trials, int(found.contract["geometry"]["depth"]))
    y = np.linspace(1.0, 0.0, len(trials))  # the standing itself: the best first
    rng = np.random.default_rng(0)
    order = rng.permutation(len(trials))
    tested, fitted = order[: len(order) // 3], order[len(order) // 3 :]
    forest = ExtraTreesRegressor(100, min_samples_leaf=3, random_state=0)
    forest.fit(x[fitted], y[fitted])

    def explained(values: Any) -> float:
        residuals = y[tested] - forest.predict(values)
        return 100 * (1 - float((residuals**2).mean() / y[tested].var()))

    whole = explained(x[tested])
    groups: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        group = name.partition(".")[0].replace("block0", "block ").replace("block1", "block 1")
        groups.setdefault(group, []).append(column)
    shares = {}
    for group, columns in groups.items():
        if (x[:, columns] == x[0, columns]).all():
            continue  # nothing was chosen there
        drops = []
        for _ in range(SHUFFLES):
            shuffled = x[tested].copy()
            shuffled[:, columns] = shuffled[rng.permutation(len(tested))][:, columns]
            drops.append(whole - explained(shuffled))
        shares[group] = round(float(np.mean(drops)), 2)
    return shares, max(0.0, whole)
