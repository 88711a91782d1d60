"""Zero-TPrune: drop tokens that are similar to more important ones, then the least important.

Wang, Dedhia, Jha, CVPR 2024 (arXiv 2305.17328). The tensor functions are in `pruning.scoring`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ztp_search.errors import ConfigError
from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.methods.base import Knob, LayerTokens, Method
from ztp_search.pruning.rounding import round_half_up

if TYPE_CHECKING:
    from torch import Tensor

    from ztp_search.pruning.scoring import Kept

PRE_RANKED = "i'-s-i"
"""The order of stages in which one WPR iteration ranks the tokens for the S-stage."""


class ZeroTPrune(Method):
    """Of n patch tokens that come in, max(1, round_half_up(r n) - s) are left."""

    name = "zero-tprune"
    knobs = (
        Knob("s_tokens", neutral=0, raises_cost=False),
        Knob("wpr_iterations", neutral=1, raises_cost=True),
    )
    scales = ("v_min", "v_max")
    columns = ("retention", "s_tokens", "wpr_iterations")

    def parse(self, data: Any, where: str) -> PruningConfig:
        return PruningConfig.from_dict(data, where)

    def layer(self, after_block: int, retention: float, knobs: Sequence[int]) -> PruningLayer:
        return PruningLayer(after_block, retention, *knobs)

    def config(
        self,
        layers: Sequence[PruningLayer],
        scales: Mapping[str, float],
        variants: Mapping[str, str],
    ) -> PruningConfig:
        v_min, v_max = (scales[name] for name in self.scales)
        return PruningConfig(tuple(layers), v_min, v_max, **variants)

    def identity(self, config: PruningConfig, tokens: Sequence[int]) -> tuple[object, ...]:
        """Iterations count only where the I-stage prunes anything, layers where any stage does."""
        layers = []
        for layer in config.layers:
            n_in, n_out = tokens[layer.after_block - 1], tokens[layer.after_block]
            i_stage = n_out < n_in - layer.s_tokens
            iterations = layer.wpr_iterations if i_stage else 0
            if n_out < n_in:
                layers.append((layer.after_block, layer.s_tokens, iterations))
        return (
            tokens, tuple(layers), config.v_min, config.v_max, config.variant, config.partition,
            config.features, config.metric, config.order, config.aggregation,
        )  # fmt: skip

    def layer_tokens(
        self, config: PruningConfig, patch_tokens: int, retention: float, knobs: Sequence[int]
    ) -> LayerTokens:
        s_tokens, iterations = knobs
        by_rate = round_half_up(retention * patch_tokens)
        half = (patch_tokens if config.order == PRE_RANKED else by_rate) // 2
        if s_tokens > half:
            s_tokens = half
        kept = by_rate - s_tokens
        if kept < 1:
            kept = 1
        return kept, kept + s_tokens, (s_tokens, iterations)

    def check_layer(self, config: PruningConfig, layer: PruningLayer, patch_tokens: int) -> None:
        most = max_s_tokens(patch_tokens, layer.retention, config.order)
        if layer.s_tokens > most:
            raise ConfigError(
                f"s_tokens must be at most half of the tokens it ranks, but got {layer.s_tokens} "
                f"after block {layer.after_block}, where {most} is the most; lower s_tokens"
            )

    def layer_macs(
        self,
        geometry: Geometry,
        config: PruningConfig,
        patch_tokens: int,
        kept: int,
        knobs: Sequence[int],
    ) -> int:
        """WPR, H N N for each iteration on the N tokens that come in, and similarity.

        Pruned tokens are masked in WPR, not cut out of A: cutting the sub-matrix out costs more
        time than it saves.
        """
        s_tokens, iterations = knobs
        if kept >= patch_tokens - s_tokens:  # no I-stage
            iterations = 1 if s_tokens else 0
        elif s_tokens and config.order == PRE_RANKED:
            iterations += 1
        tokens = patch_tokens + geometry.prefix_tokens
        macs = iterations * geometry.heads * tokens * tokens
        if s_tokens and config.metric != "manhattan":  # absolute differences are elementwise work
            ranked = patch_tokens if config.order == PRE_RANKED else kept + s_tokens
            width = geometry.embed_dim if config.features == "x" else geometry.attn_dim
            macs += (ranked // 2) * (ranked - ranked // 2) * width
        return macs

    def reduce(
        self,
        attention: Tensor,
        features: Tensor | None,
        config: PruningConfig,
        layer: PruningLayer,
        *,
        geometry: Geometry,
        kept: int,
    ) -> Kept:
        from ztp_search.pruning.scoring import prune_tokens

        return prune_tokens(
            attention,
            features,
            config,
            prefix_tokens=geometry.prefix_tokens,
            class_token=geometry.class_token,
            s_tokens=layer.s_tokens,
            kept=kept,
            wpr_iterations=layer.wpr_iterations,
        )

    def cells(self, layer: Mapping[str, Any]) -> tuple[str, ...]:
        return f"{layer['retention']:.4f}", str(layer["s_tokens"]), str(layer["wpr_iterations"])

    def heading(self, config: Mapping[str, Any]) -> str:
        return f"v_min {config['v_min']:.3g}, v_max {config['v_max']:.3g}"


def patch_tokens_kept(n: int, retention: float, s_tokens: int) -> int:
    """Patch tokens that leave a pruning layer of n coming in: max(1, round_half_up(r n) - s)."""
    return max(1, round_half_up(retention * n) - s_tokens)


def max_s_tokens(n: int, retention: float, order: str = PRE_RANKED) -> int:
    """The most patch tokens an S-stage can prune of n: all of the less important half."""
    return (n if order == PRE_RANKED else round_half_up(retention * n)) // 2
