"""What a study shows of itself in the Optuna dashboard: its notes and plots, put together."""

from __future__ import annotations

import textwrap
from importlib.util import find_spec

from ztp_search.results.notes import study_note, trial_note
from ztp_search.results.plots import PLOTS, Found, Plot
from ztp_search.study import StoredTrial, StudyReader
from ztp_search.study.showing import Shown, save, state_of

LINE = 72
"""Characters of a caption in one line: plots stand in half of the page."""
HEIGHT = 450
"""In pixels: the dashboard gives each plot as much."""
NOTED, AT_MOST = 20, 50
"""So many of the best trials have notes, and all complete ones if they are not too many."""


def save_shown(study: StudyReader) -> None:
    """Store in the study what there is to be shown of it; plots where plotly is installed."""
    save(study, shown(study))


def shown(study: StudyReader) -> Shown:
    """What there is to be shown of a study by now."""
    state = state_of(study)  # first: what comes in meanwhile is news
    found = Found.read(study)
    plots = PLOTS if find_spec("plotly") else {}
    figures = {name: _titled(plot, found) for name, plot in plots.items()}
    return Shown(
        note=study_note(found),
        trial_notes={trial.number: trial_note(found, trial) for trial in noted(found)},
        plots={name: figure for name, figure in figures.items() if figure is not None},
        best=found.complete[0].number if found.complete else None,
        state=state,
    )


def noted(found: Found) -> list[StoredTrial]:
    """The trials that are worth a note, the best first."""
    return found.standing[: max(NOTED, min(AT_MOST, len(found.complete)))]


def _titled(plot: Plot, found: Found) -> str | None:
    """A figure as JSON, with title and caption in it: nobody else states them there."""
    figure = plot.figure(found)
    if figure is None:
        return None
    lines = textwrap.wrap(plot.caption, LINE)
    if figure.layout.height > HEIGHT:
        figure.update_yaxes(tickfont={"size": 9})  # a row each
    figure.update_layout(
        title={
            "text": f"<b>{plot.title}</b><br><sup>{'<br>'.join(lines)}</sup>",
            "x": 0, "xref": "container", "xanchor": "left", "y": 1, "yref": "container",
            "yanchor": "top", "pad": {"l": 12, "t": 12}, "font": {"size": 16},
        },
        margin={"t": 46 + 20 * len(lines)},
        height=HEIGHT,
    )  # fmt: skip
    text: str = figure.to_json()
    return text
