"""The real speed of a configuration beside the unpruned model's, measured where something lacks.

It is measured in the driver, when the workers have nothing to do, and decides nothing. The study's
attribute "speed" holds a record by digest of the configuration: `speed_header` and, as `measured`,
the rows of `measure_speed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from ztp_search.driver.evaluator import Evaluator
from ztp_search.driver.progress import Progress
from ztp_search.evaluation.runtime import Runtime
from ztp_search.evaluation.speed import measure_speed, speed_header
from ztp_search.pruning.config import PruningConfig
from ztp_search.settings import SpeedOptions
from ztp_search.study import StoredTrial, StudyDriver

Record = dict[str, Any]


def measure_winner(
    evaluator: Evaluator, study: StudyDriver, winner: StoredTrial, options: SpeedOptions
) -> None:
    """Measure the winner's speed, but for what the study has of it already."""
    stored = study.attributes().get("speed", {})
    digest = winner.config.digest()
    for record in measured_speed(
        evaluator.loaded.model, winner.config, evaluator.runtime, options, evaluator.progress,
        stored.get(digest),
    ):  # fmt: skip
        study.set_attribute("speed", {**stored, digest: record})


def measured_speed(
    model: nn.Module,
    config: PruningConfig,
    runtime: Runtime,
    options: SpeedOptions,
    progress: Progress,
    known: Mapping[str, Any] | None = None,
) -> Iterator[Record]:
    """Measure what lacks of a record, engine by engine.

    What another machine or version has measured is dropped where anything lacks, as a record is
    of one machine.

    Args:
        model: that of the configuration, with any weights; stays as it is.
        config: the configuration.
        runtime: device, precision, threads, and the batch size of throughput.
        options: what is asked for.
        progress: receives the stage, and notes of what cannot be measured.
        known: the record that there is.

    Yields:
        The record after each engine.
    """
    sizes = options.batch_sizes or tuple(sorted({1, runtime.batch_size}))
    if not _lacking(options, sizes, known):
        return
    header = speed_header(model, config, runtime)
    if known is not None and any(known[key] != value for key, value in header.items()):
        known = None
    rows: dict[tuple[str, int], Mapping[str, Any]] = {}
    for row in known["measured"] if known else ():
        rows[row["engine"], row["batch_size"]] = row
    for engine, lacking in _lacking(options, sizes, known).items():
        progress.stage(f"measuring speed ({engine})")
        rows = {key: row for key, row in rows.items() if key[0] != engine or "failed" not in row}
        for row in measure_speed(model, config, runtime, engine, lacking, options.repeats):
            rows[engine, row["batch_size"]] = row
            if "failed" in row:
                progress.note(f"speed in {engine} is not measured: {row['failed']}")
        yield header | {"measured": list(rows.values())}


def _lacking(
    options: SpeedOptions, sizes: tuple[int, ...], known: Mapping[str, Any] | None
) -> dict[str, list[int]]:
    """The batch sizes by engine that a record lacks; what has failed is tried again."""
    have = {
        (row["engine"], row["batch_size"])
        for row in (known["measured"] if known else ())
        if "failed" not in row and options.repeats in (None, row["repeats"])
    }
    lacking = {
        engine: [size for size in sizes if (engine, size) not in have]
        for engine in options.engines
    }  # fmt: skip
    return {engine: each for engine, each in lacking.items() if each}
