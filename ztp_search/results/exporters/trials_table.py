"""All trials of a study as a table, for spreadsheets, pandas and their like.

One row per trial, in order of number. Columns are named as in the configuration file and the
database: layers as `block03.retention` and so on, with their neutral values where no layer stands.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ztp_search.errors import ZtpError
from ztp_search.pruning.methods import method_of
from ztp_search.results.documents import MEASURED
from ztp_search.results.exporters.base import Exported, Exporter, TextExporter, missing
from ztp_search.results.whole_file import in_place_of
from ztp_search.study import StoredTrial, StudyReader
from ztp_search.study.parameters import named_values

STATED = (
    "images", "standard_error", "minus_unpruned", "evaluation_seconds", "fallback_share",
    "hand_set", "enqueued", *MEASURED,
)  # fmt: skip
"""Attributes of a trial that are columns."""


class CsvTable(TextExporter):
    """Comma-separated values, with a header."""

    def text(self, what: Exported) -> str:
        found = rows(what, "csv")
        out = io.StringIO()
        writer = csv.DictWriter(out, list(found[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(found)
        return out.getvalue()


class ParquetTable(Exporter):
    """Apache Parquet, with the types of the values."""

    def export(self, what: Exported, path: Path) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise missing("parquet", "pyarrow") from None
        table = pyarrow.Table.from_pylist(rows(what, "parquet"))
        with in_place_of(path) as temporary:
            pyarrow.parquet.write_table(table, temporary)


def rows(what: Exported, format: str) -> list[dict[str, Any]]:
    """The table; ZtpError where there is no study, or none of its trials."""
    if what.study is None:
        raise ZtpError(f"`format` {format} holds the trials of a study; leave `config` out")
    found = [dict(row(what.study, trial)) for trial in what.study.trials()]
    columns = dict.fromkeys(name for each in found for name in each)
    return [{name: each.get(name) for name in columns} for each in found]


def row(study: StudyReader, trial: StoredTrial) -> Iterator[tuple[str, Any]]:
    """Name and value of each column."""
    stated = named_values(trial.config)
    yield "trial", trial.number
    yield "state", trial.state
    yield study.contract["objective"], trial.value
    for name in STATED:
        yield name, trial.attrs.get(name)
    low, high = trial.attrs.get("minus_unpruned_ci95", (None, None))
    yield "minus_unpruned_ci95_low", low
    yield "minus_unpruned_ci95_high", high
    for name, value in _mapping(trial.attrs.get("gflops")).items():
        yield f"gflops.{name}", value
    yield "tokens", " ".join(str(count) for count in trial.attrs.get("tokens", ()))
    method, depth = method_of(trial.config), study.contract["geometry"]["depth"]
    for block in range(1, depth):
        for name, value in method.neutral.items():
            yield f"block{block:02d}.{name}", stated.pop(f"block{block:02d}.{name}", value)
    yield from stated.items()
    yield "config_sha256", trial.config.digest()


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
