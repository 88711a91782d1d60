"""A Python module with only torch and timm in it.

It is `standalone.py` with the constants of one configuration. That file does what
`pruning.importance`, `pruning.scoring` and `pruning.merging` do, in the same order, so that results
are the same to the bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from ztp_search.errors import ConfigError
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.config_file import ConfigFile
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.methods import method_of
from ztp_search.pruning.tokens import token_counts
from ztp_search.results.exporters.base import Exported, TextExporter

SOURCE = "standalone.py"
BEGIN, END = "# --- the configuration\n", "# ---\n"
"""Lines of the source between which the configuration stands."""


class PythonModule(TextExporter):
    """`create_model()` and `prune(model)`, for any timm user."""

    def text(self, what: Exported) -> str:
        source = (files(__package__) / SOURCE).read_text(encoding="utf-8")
        head, _, rest = source.partition(BEGIN)
        _, _, tail = rest.partition(END)
        return "".join([head, *(f"{line}\n" for line in constants(what.file)), tail])

    def omits(self, file: ConfigFile) -> str | None:
        return "it holds no weights: create_model() takes timm's own, or a checkpoint_path"


def constants(file: ConfigFile) -> Iterator[str]:
    """The lines of the configuration; ConfigError without the model's name and sizes."""
    geometry, name = file.geometry(), file.model.get("name")
    if geometry is None or name is None:
        raise ConfigError(
            "`format` python needs model.name and model.geometry in the configuration file; export "
            "from a study"
        )
    config, gflops = file.config, file.to_dict()["gflops"]
    kwargs = dict(file.model.get("kwargs") or {})
    if file.model.get("num_classes") is not None:
        kwargs["num_classes"] = file.model["num_classes"]
    yield f"# {gflops['total']:.4g} GFLOPs per image instead of {gflops['unpruned']:.4g}"
    if file.model.get("weights"):
        yield f"# found with the weights of {json.dumps(str(file.model['weights']))}"
    yield f"NAME, KWARGS = {name!r}, {kwargs!r}"
    yield f"DATA = {_data(file)!r}"
    yield "LAYERS = {  # behind block: removed as similar, left, iterations, merged by importance"
    for block, counts in layers(config, geometry).items():
        yield f"    {block}: {counts},"
    yield "}"
    class_token = geometry.class_token and config.variant == "zero-tprune"
    yield f"PREFIX, CLASS_TOKEN = {geometry.prefix_tokens}, {class_token}"
    yield f"V_MIN, V_MAX = {config.v_min!r}, {config.v_max!r}"
    for names in (
        ("partition", "features", "metric", "order"), ("aggregation", "similar", "sizes"),
    ):  # fmt: skip
        values = ", ".join(repr(getattr(config, name)) for name in names)
        yield f"{', '.join(name.upper() for name in names)} = {values}"


def layers(config: PruningConfig, geometry: Geometry) -> dict[int, tuple[int, int, int, int]]:
    """By block: tokens removed as similar, left in the end, iterations, merged by importance.

    Iterations are 0 where attention is not looked at. Layers that remove nothing are left out.
    """
    counts, method = token_counts(geometry, config), method_of(config)
    out = {}
    for layer in config.layers:
        before, after = (count - geometry.prefix_tokens for count in
                         counts[layer.after_block - 1 : layer.after_block + 1])  # fmt: skip
        if before == after:
            continue
        sight = method.looks_at(config, layer, before, after)
        fates = dict(zip(method.fates, method.taken_out(config, layer, before, after), strict=True))
        iterations = layer.wpr_iterations if sight.attention else 0
        out[layer.after_block] = (
            layer.s_tokens, after, iterations, fates["merged as unimportant"],
        )  # fmt: skip
    return out


def _data(file: ConfigFile) -> dict[str, Any]:
    """How images are prepared, as far as the file says."""
    config = (file.provenance.get("data") or {}).get("config") or {}
    return dict(config)
