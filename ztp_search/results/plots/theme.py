"""Colours and lettering of the plots, as `dashboards/theme.json` states them.

Data has the same colours in every theme, so that a drawn figure is themed from outside, by its
template alone: `Plotly.relayout(figure, {template: …})` turns a light one dark.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from ztp_search.errors import ZtpError
from ztp_search.results.shipped import shipped

THEMES = ("light", "dark")


@cache
def stated() -> dict[str, Any]:
    """What the file states."""
    theme: dict[str, Any] = json.loads(shipped("theme.json"))
    return theme


def colour(role: str) -> str:
    """Of what a mark stands for: trial, best, winner, unpruned, a baseline's name."""
    colours: dict[str, str] = stated()["colours"]
    return colours.get(role, colours["other"])


def see_through(role: str, opacity: float) -> str:
    """The same colour, for areas."""
    value = colour(role)
    red, green, blue = (int(value[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def template(theme: str) -> dict[str, Any]:
    """Plotly's template of a theme (light or dark), as JSON; ZtpError for any other name."""
    if theme not in THEMES:
        raise ZtpError(f"`theme` must be one of {', '.join(THEMES)}, but got {theme!r}")
    file = stated()
    shades, colours = file[theme], file["colours"]
    axis = {
        "gridcolor": shades["faint"], "linecolor": shades["faint"], "zeroline": False,
        "dividercolor": shades["faint"],
        "showline": True, "ticks": "outside", "tickcolor": shades["faint"], "automargin": True,
        "title": {"standoff": 8, "font": {"size": file["size"]}},
    }  # fmt: skip
    return {
        "layout": {
            "font": {"family": file["font"], "size": file["size"], "color": shades["text"]},
            "paper_bgcolor": shades["background"],
            "plot_bgcolor": shades["background"],
            "colorway": [colours[role] for role in ("best", "winner", "paper_schedule", "tome")],
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {"bgcolor": shades["background"], "font": {"color": shades["text"]}},
            "legend": {"orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yref": "container",
                       "yanchor": "bottom"},
            "title": {"x": 0, "xref": "paper", "xanchor": "left"},
            "margin": {"l": 50, "r": 16, "t": 20, "b": 40},
        }
    }  # fmt: skip
