"""How many tokens are left, block by block."""

from __future__ import annotations

from typing import Any

from ztp_search.pruning.cost import flops
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.methods import parse_config
from ztp_search.results.plots.base import Found, Plot
from ztp_search.results.plots.marks import axis, label, line
from ztp_search.results.plots.theme import colour

SHOWN = 10
"""So many of the best trials."""


class TokensPerBlock(Plot):
    """The schedules of the best trials beside the hand-set ones."""

    title = "Tokens per block"
    caption = (
        "How many tokens each block computes on: the best trials, the best of all in "
        "bold, and hand-set schedules of the same cost."
    )

    def lacks(self, found: Found) -> str | None:
        return None if found.standing else "no trial has been evaluated yet"

    def draw(self, found: Found) -> dict[str, Any]:
        best = found.standing[:SHOWN]
        blocks = list(range(1, len(best[0].attrs["tokens"])))
        style = {"shape": "hvh"}
        data = []
        for place, trial in reversed(list(enumerate(best))):
            tokens = trial.attrs["tokens"][:-1]
            trace = line(f"trial {trial.number}", blocks, tokens, "best", width=1.2, **style)
            trace |= {"opacity": 0.75 - 0.5 * place / SHOWN, "showlegend": place < 2}
            if place == 1:
                trace |= {"name": f"next {len(best) - 1}", "legendrank": 2}
            if place == 0:
                trace |= {"name": f"best, trial {trial.number}", "legendrank": 1, "opacity": 1.0}
                trace["line"] |= {"color": colour("winner"), "width": 3.5}
            trace["hovertemplate"] = f"trial {trial.number}: %{{y}} tokens<extra></extra>"
            data.append(trace)
        geometry = Geometry(**found.contract["geometry"])
        for name, record in found.baselines.items():
            counts = flops(geometry, parse_config(record["config"])).tokens[:-1]
            data.append(line(label(name), blocks, counts, name, dash="dash", **style))
        return {
            "data": data,
            "layout": {
                "xaxis": axis("block", dtick=1 if len(blocks) < 25 else 4,
                              range=[0.8, len(blocks) + 0.2]),
                "yaxis": axis("tokens", rangemode="tozero"),
            },
        }  # fmt: skip
