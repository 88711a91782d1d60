"""Pictures of a study, made for this problem; a new one is a class and a line below.

Each is a `Plot`: `figure(found, theme)` is a Plotly figure of a study as it was read, without
title and caption, which stand beside it (`plot.title`, `plot.caption`); None where the study has
nothing to show, and `lacks(found)` says why.

Example:
    with StudyReader.open("sqlite:///ztp-runs/studies.db") as study:
        found = Found.read(study)
    for name, plot in PLOTS.items():
        figure = plot.figure(found, theme="dark")
"""

from collections.abc import Mapping

from ztp_search.results.plots.accuracy import Accuracy, Budgets
from ztp_search.results.plots.base import Found, Plot
from ztp_search.results.plots.evidence import SearchAndHoldout, Signal
from ztp_search.results.plots.importances import Importances
from ztp_search.results.plots.parameters import Choices, Layers, LayerValues
from ztp_search.results.plots.race import Progress, Survival
from ztp_search.results.plots.theme import THEMES, template
from ztp_search.results.plots.tokens import TokensPerBlock

PLOTS: Mapping[str, Plot] = {
    "accuracy": Accuracy(),
    "budgets": Budgets(),
    "tokens": TokensPerBlock(),
    "holdout": SearchAndHoldout(),
    "progress": Progress(),
    "survival": Survival(),
    "signal": Signal(),
    "layers": Layers(),
    "layer_values": LayerValues(),
    "choices": Choices(),
    "importances": Importances(),
}
"""By name, in the order in which they are shown."""

__all__ = ["PLOTS", "THEMES", "Found", "Plot", "template"]
