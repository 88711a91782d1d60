"""A report as one HTML file that needs no network: style, script, Plotly and data are within it.

Whatever comes from a study is escaped by the template, or is in base64. A policy in the file's
head lets no other script run than the report's own, and nothing be loaded. Plotly (4.8 MB; there is
no smaller bundle in its package) and the plots' data are compressed, which browsers of 2023 and
later undo.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from typing import Any

import jinja2
import plotly.offline
from markupsafe import Markup
from plotly.graph_objects import Figure

from ztp_search.results.plots import THEMES, template
from ztp_search.results.plots.theme import stated
from ztp_search.results.report.blocks import Drawing, Report
from ztp_search.results.report.pictures import MARKS
from ztp_search.results.shipped import shipped


def html(report: Report) -> str:
    """The report as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(shipped), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"coded": _coded, "base64": _base64}
    style = environment.get_template("report.css.j2").render(**stated(), marks=MARKS)
    script = shipped("report.js")
    figures = _figures(report)
    return environment.get_template("report.html.j2").render(
        report=report,
        style=style,
        script=script,
        script_hash=Markup("'sha256-{}'").format(_base64(hashlib.sha256(script.encode()).digest())),
        library=_packed(plotly.offline.get_plotlyjs()) if figures else "",
        data=_packed(
            json.dumps(
                {"figures": figures, "templates": {theme: template(theme) for theme in THEMES}},
                allow_nan=False, separators=(",", ":"),
            )
        ),
    )  # fmt: skip


def _coded(text: str) -> Markup:
    """What stands between backticks as code."""
    parts = text.split("`")
    if len(parts) % 2 == 0:  # one of them stands alone
        return Markup.escape(text)
    tagged = (
        Markup("<code>{}</code>").format(part) if place % 2 else Markup.escape(part)
        for place, part in enumerate(parts)
    )
    return Markup("").join(tagged)


def _figures(report: Report) -> dict[str, Any]:
    """Plotly's `data` and `layout` by the name of the plot, checked by Plotly."""
    drawings = [
        block for section in report.sections for block in section.blocks
        if isinstance(block, Drawing)
    ]  # fmt: skip
    out: dict[str, Any] = {}
    for each in drawings:
        figure = json.loads(Figure(each.figure).to_json())
        layout = {**figure["layout"], "height": each.height}
        layout.pop("template", None)
        out[each.name] = {"data": figure["data"], "layout": layout}
    return out


def _packed(text: str) -> str:
    return _base64(gzip.compress(text.encode(), 9, mtime=0))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
