"""Schedules of other token reduction tools, which say how many tokens leave which block.

ToMe (Bolya et al., ICLR 2023) takes a list `r` of tokens that are merged in each block; DiffRate
(Chen et al., ICCV 2023) takes the tokens that each block keeps after pruning, and after merging.
`load_config` reads both (`pruning.schedule_file`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from ztp_search.errors import ConfigError
from ztp_search.pruning.config_file import ConfigFile
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.methods import method_of
from ztp_search.pruning.schedules import TOME
from ztp_search.pruning.tokens import token_counts
from ztp_search.results.exporters.base import Exported, TextExporter

MERGED = ("merged as similar", "merged as unimportant")
"""Fates of tokens that live on in others."""


class TomeList(TextExporter):
    """{"r": […]}: for `model.r` of a model that ToMe's library has patched."""

    def text(self, what: Exported) -> str:
        counts = token_counts(geometry_of(what.file, "tome"), what.file.config)
        r = [before - after for before, after in zip(counts, counts[1:], strict=False)]
        for block, (taken, before) in enumerate(zip(r, counts, strict=False), 1):
            if taken > before // 2:
                raise ConfigError(
                    f"`format` tome cannot take {taken} of {before} tokens out of block {block}: "
                    "half is the most; choose another trial or format"
                )
        return json.dumps({"r": r}) + "\n"

    def omits(self, file: ConfigFile) -> str | None:
        said = [
            f"{name} {getattr(file.config, name)}"
            for name in ("partition", "similar", "sizes", "features", "metric")
            if getattr(file.config, name) != getattr(TOME, name)
        ]
        if any(sum(taken[:2]) < sum(taken) for taken, _ in taken_out(file, "tome")):
            said.append("tokens taken out by importance")
        counts = "a list of counts: ToMe merges within the block, tokens that are alike"
        return f"it is {counts}" + (f", and knows nothing of {', '.join(said)}" if said else "")


class DiffRateCounts(TextExporter):
    """{"kept_after_prune": […], "kept_after_merge": […]}, prefix tokens included."""

    def text(self, what: Exported) -> str:
        prunes, merges = [], []
        geometry = geometry_of(what.file, "diffrate")
        for fates, left in taken_out(what.file, "diffrate"):
            prunes.append(left + merged_of(what.file, fates))
            merges.append(left)
        document = {
            "tokens": geometry.tokens, "prefix_tokens": geometry.prefix_tokens,
            "kept_after_prune": prunes, "kept_after_merge": merges,
        }  # fmt: skip
        return json.dumps(document) + "\n"

    def omits(self, file: ConfigFile) -> str | None:
        return (
            "it is counts alone: DiffRate ranks tokens by the class token's attention, prunes, and "
            "then merges, within the block"
        )


def geometry_of(file: ConfigFile, format: str) -> Geometry:
    """The model's sizes; ConfigError where the file has none."""
    geometry = file.geometry()
    if geometry is None:
        raise ConfigError(
            f"`format` {format} needs model.geometry in the configuration file; export from a study"
        )
    return geometry


def taken_out(file: ConfigFile, format: str) -> Iterator[tuple[tuple[int, ...], int]]:
    """By block: how many tokens meet which fate, and how many tokens are left."""
    geometry = geometry_of(file, format)
    counts = token_counts(geometry, file.config)
    method, prefix = method_of(file.config), geometry.prefix_tokens
    layers = {layer.after_block: layer for layer in file.config.layers}
    for block in range(1, geometry.depth + 1):
        before, after = counts[block - 1], counts[block]
        if block in layers:
            layer = layers[block]
            yield method.taken_out(file.config, layer, before - prefix, after - prefix), after
        else:
            yield (0,) * len(method.fates), after


def merged_of(file: ConfigFile, fates: tuple[int, ...]) -> int:
    """How many of the tokens taken out are merged."""
    names = method_of(file.config).fates
    return sum(count for name, count in zip(names, fates, strict=True) if name in MERGED)
