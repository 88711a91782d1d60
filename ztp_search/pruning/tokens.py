"""How many tokens each block computes on: the one place where counts are computed.

The cost models and the patched model both call `token_counts`.
"""

from __future__ import annotations

from ztp_search.errors import ConfigError
from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.methods import method_of


def token_counts(geometry: Geometry, config: PruningConfig) -> tuple[int, ...]:
    """Count the tokens of a configuration, prefix included.

    Returns:
        What each block computes on, and what leaves the last one: depth + 1 counts.

    Raises:
        ConfigError: a layer stands outside the model, or asks for more than the tokens that come
            in allow.
    """
    method = method_of(config)
    layers = {layer.after_block: layer for layer in config.layers}
    n = geometry.patch_tokens
    counts = [n]
    for block in range(1, geometry.depth + 1):
        layer = layers.pop(block, None)
        if layer is not None:
            if block == geometry.depth:
                raise ConfigError(_outside(layer, geometry))
            n = method.kept(config, layer, n)
        counts.append(n)
    if layers:
        raise ConfigError(_outside(next(iter(layers.values())), geometry))
    return tuple(count + geometry.prefix_tokens for count in counts)


def _outside(layer: PruningLayer, geometry: Geometry) -> str:
    return (
        f"1 <= after_block < depth must hold, but got after_block={layer.after_block} "
        f"in a model of {geometry.depth} blocks"
    )
