"""The directive `benchmark`: a table out of the results that the benchmarks have recorded.

    ```{benchmark} samplers
    ```
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
WAYS = {
    "unpruned": "unpruned", "any": "search", "zero-tprune": "dropping", "merge": "merging",
    "paper_schedule": "paper's", "tome": "ToMe's",
}  # fmt: skip


class Benchmark(SphinxDirective):
    """A table of recorded results."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in TABLES:
            raise self.error(f"{name!r} is no table; there are {', '.join(TABLES)}")
        path = RESULTS / f"{name}.json"
        self.env.note_dependency(str(path))
        recorded = json.loads(path.read_text(encoding="utf-8"))
        first, *rows = TABLES[name](recorded["rows"])
        lines = [first, ["---"] * len(first), *rows]
        text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        about = f"`benchmarks/results/{name}.json`, {recorded['date']}."
        return self.parse_text_to_nodes(f"{text}\n\n{about}\n")


def samplers(rows: list[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Difference from Monte Carlo, a row per sampler and a column per budget."""
    budgets = list(dict.fromkeys(row["budget"] for row in rows))
    found = {(row["way"], row["budget"]): row for row in rows}
    yield ["sampler", *budgets]
    for way in dict.fromkeys(row["way"] for row in rows):
        cells = []
        for budget in budgets:
            row = found[way, budget]
            if "minus_monte_carlo" in row:
                mean, low, high = row["minus_monte_carlo"]
                cells.append(f"{mean + 0.0:+.2f} [{low:+.2f}, {high:+.2f}]")
            else:
                cells.append(f"{row['holdout_top1']:.2f} %")
        yield [way, *cells]


def methods(rows: list[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Accuracy, a row per model and budget and a column per way."""
    yield ["model", "GFLOPs", *WAYS.values()]
    for row in rows:
        cells = [f"{100 * row['accuracy'][way]:.1f}" for way in WAYS]
        yield [Path(row["space"]).stem, row["budget"], *cells]


def kills(rows: list[Mapping[str, Any]]) -> Iterator[list[str]]:
    """A row per kind of what was killed."""
    counts = ("kills", "survived", "searches", "lost", "doubled")
    yield ["killed", "kills", "survived", "in searches", "trials lost", "trials doubled"]
    for row in rows:
        yield [row["kind"], *(str(row[name]) for name in counts)]
    yield ["together", *(str(sum(row[name] for row in rows)) for name in counts)]


TABLES = {"samplers": samplers, "methods": methods, "kills": kills}


def setup(app: Sphinx) -> ExtensionMetadata:
    app.add_directive("benchmark", Benchmark)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
