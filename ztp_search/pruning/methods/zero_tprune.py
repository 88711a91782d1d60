"""Zero-TPrune, and merging in its place: one space from dropping tokens to averaging them.

Zero-TPrune (Wang, Dedhia, Jha, CVPR 2024, arXiv 2305.17328) drops tokens that are similar to more
important ones, then the least important. Beyond the paper, tokens may be merged into their most
similar kept token instead, as ToMe (Bolya et al., ICLR 2023) does. The tensor functions are in
`pruning.scoring` and `pruning.merging`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ztp_search.errors import ConfigError
from ztp_search.pruning.config import CHOICES, RETENTION_UNIT, PruningConfig, PruningLayer
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.methods.base import Coordinate, LayerRanges, Method, Sight, Values
from ztp_search.pruning.rounding import round_half_up, units_within

if TYPE_CHECKING:
    from torch import Tensor

    from ztp_search.pruning.scoring import Kept

PRE_RANKED = "i'-s-i"
"""The order of stages in which the S-stage comes first, on tokens that one iteration ranks."""

S_SHARE_UNIT = 1_000
MERGE_UNIT = 100
"""Integer steps of the S-stage's share of what a layer prunes, and of `merge_share`."""


class ZeroTPrune(Method):
    """Of n patch tokens that come in, max(1, round_half_up(r n) - s) are left."""

    name = "zero-tprune"
    fields = {"s_tokens": 0, "wpr_iterations": 1, "merge_share": 0.0}
    coordinates = (
        Coordinate("s_share", tilted=True),
        Coordinate("wpr_iterations", raises_cost=True),
        Coordinate("merge_share", raises_cost=True, tilted=True),
    )
    scales = ("v_min", "v_max")
    choices = CHOICES
    columns = ("retention", "s_tokens", "wpr_iterations", "merge_share")
    fates = (
        "dropped as similar", "merged as similar", "dropped as unimportant",
        "merged as unimportant",
    )  # fmt: skip

    def parse(self, data: Any, where: str) -> PruningConfig:
        return PruningConfig.from_dict(data, where)

    def config(
        self,
        layers: Sequence[PruningLayer],
        scales: Mapping[str, float],
        variants: Mapping[str, str],
    ) -> PruningConfig:
        v_min, v_max = (scales[name] for name in self.scales)
        return PruningConfig(tuple(layers), v_min, v_max, **variants)

    def identity(self, config: PruningConfig, tokens: Sequence[int]) -> tuple[object, ...]:
        """Of layers that prune anything, and of what their stages look at."""
        layers = []
        s_stage = i_stage = i_merges = False
        for layer in config.layers:
            n_in, n_out = tokens[layer.after_block - 1], tokens[layer.after_block]
            by_importance = max(0, n_in - layer.s_tokens - n_out)
            iterations = layer.wpr_iterations if by_importance else 0
            merged = round_half_up(layer.merge_share * by_importance)
            s_stage |= layer.s_tokens > 0
            i_stage |= by_importance > 0
            i_merges |= merged > 0
            if n_out < n_in:
                layers.append((layer.after_block, layer.s_tokens, iterations, merged))
        ranks = i_stage or (s_stage and config.partition != "position")
        compares = s_stage or i_merges
        merges = i_merges or (s_stage and config.similar == "merge")
        ranking = config.v_min, config.v_max, config.variant, config.aggregation
        return (
            tokens, tuple(layers), config.order,
            ranking if ranks else None,
            (config.features, config.metric) if compares else None,
            (config.partition, config.similar) if s_stage else None,
            config.sizes if merges else None,
        )  # fmt: skip

    # ---- how many tokens, at what cost -------------------------------------------------------

    def kept(self, config: PruningConfig, layer: PruningLayer, patch_tokens: int) -> int:
        by_rate = round_half_up(layer.retention * patch_tokens)
        most = (patch_tokens if config.order == PRE_RANKED else by_rate) // 2
        if layer.s_tokens > most:
            raise ConfigError(
                f"s_tokens must be at most half of the tokens it ranks, but got {layer.s_tokens} "
                f"after block {layer.after_block}, where {most} is the most; lower s_tokens"
            )
        return max(1, by_rate - layer.s_tokens)

    def layer_macs(
        self,
        geometry: Geometry,
        config: PruningConfig,
        patch_tokens: int,
        kept: int,
        values: Values,
    ) -> int:
        """WPR, H N N for each iteration on the N tokens that come in; similarity; the means.

        Pruned tokens are masked in WPR, not cut out of A: cutting the sub-matrix out costs more
        time than it saves. The log of sizes on attention's logits is elementwise work.
        """
        s_tokens, iterations, merge_share = values
        by_importance = patch_tokens - s_tokens - kept
        ranked = s_tokens and config.partition != "position"
        if by_importance <= 0:
            iterations = 1 if ranked else 0
        elif ranked and config.order == PRE_RANKED:
            iterations += 1
        tokens = patch_tokens + geometry.prefix_tokens
        macs: int = iterations * geometry.heads * tokens * tokens
        pairs = 0
        if s_tokens:
            n = patch_tokens if config.order == PRE_RANKED else kept + s_tokens
            pairs = (n // 2) * (n - n // 2)
        merged = s_tokens if config.similar == "merge" else 0
        if merge_share and by_importance > 0:
            merged_by_importance = round_half_up(merge_share * by_importance)
            if merged_by_importance:
                left = kept if config.order == PRE_RANKED else kept + s_tokens
                pairs += by_importance * left
                merged += merged_by_importance
        if config.metric != "manhattan":  # absolute differences are elementwise work
            macs += pairs * (geometry.embed_dim if config.features == "x" else geometry.attn_dim)
        return macs + merged * (kept + geometry.prefix_tokens) * geometry.embed_dim

    # ---- what a search draws -----------------------------------------------------------------

    def shares(self, ranges: LayerRanges, patch_tokens: int) -> tuple[float, float]:
        least, most = (min(0.5, count / patch_tokens) for count in ranges.s_tokens)
        low, high = ranges.retention
        return max(ranges.kept[0], low - most), min(ranges.kept[1], high - least)

    def range(self, ranges: LayerRanges, coordinate: str) -> tuple[int, int]:
        if coordinate == "s_share":
            return 0, S_SHARE_UNIT
        if coordinate == "merge_share":
            return units_within(ranges.merge_share, MERGE_UNIT)
        return ranges.wpr_iterations

    def plan(
        self,
        config: PruningConfig,
        ranges: LayerRanges,
        patch_tokens: int,
        share: float,
        coordinates: tuple[int, ...],
    ) -> tuple[int, Values]:
        """The S-stage takes its share of what is pruned, within the ranges of s and r.

        Where these leave no room for the share of tokens kept, that is moved into them.
        """
        s_share, iterations, merge_share = coordinates
        r_low, r_high = ranges.retention
        s_low, s_high = ranges.s_tokens
        by_rate_low = round_half_up(r_low * patch_tokens)
        by_rate_high = round_half_up(r_high * patch_tokens)
        half = patch_tokens // 2
        s_high = min(s_high, half)
        s_low = min(s_low, half)
        kept = round_half_up(share * patch_tokens)
        if config.order == PRE_RANKED:
            kept = max(1, by_rate_low - s_high, min(kept, by_rate_high - s_low))
            most = min(s_high, by_rate_high - kept)
        else:  # the S-stage takes half of those that the rate alone keeps
            fewest = max(1, s_low, by_rate_low - min(s_high, by_rate_low // 2))
            kept = max(fewest, min(kept, by_rate_high - s_low))
            most = min(s_high, by_rate_high - kept, kept)
        least = max(s_low, by_rate_low - kept)
        if least < most:
            s_tokens = least + round_half_up(s_share / S_SHARE_UNIT * (most - least))
        else:
            s_tokens = max(0, most)
        return kept, (s_tokens, iterations, merge_share / MERGE_UNIT)

    def layer(
        self, ranges: LayerRanges, patch_tokens: int, kept: int, values: Values
    ) -> PruningLayer | None:
        s_tokens, iterations, merge_share = values
        by_rate = kept + s_tokens
        low, high = units_within(ranges.retention, RETENTION_UNIT)
        units = min(max(round_half_up(by_rate / patch_tokens * RETENTION_UNIT), low), high)
        rate = units / RETENTION_UNIT
        least, most = (round_half_up(share * patch_tokens) for share in ranges.kept)
        fits = ranges.s_tokens[0] <= s_tokens <= ranges.s_tokens[1]
        fits &= max(1, least) <= kept <= max(1, most)
        if not fits or round_half_up(rate * patch_tokens) != by_rate:
            return None
        return PruningLayer(ranges.block, rate, s_tokens, iterations, merge_share)

    # ---- the tokens --------------------------------------------------------------------------

    def looks_at(
        self, config: PruningConfig, layer: PruningLayer, patch_tokens: int, kept: int
    ) -> Sight:
        by_importance = patch_tokens - layer.s_tokens - kept
        ranks = by_importance > 0 or (layer.s_tokens > 0 and config.partition != "position")
        compares = layer.s_tokens > 0 or round_half_up(layer.merge_share * by_importance) > 0
        return Sight(ranks, config.features if compares else None)

    def taken_out(
        self, config: PruningConfig, layer: PruningLayer, patch_tokens: int, kept: int
    ) -> tuple[int, ...]:
        by_importance = max(0, patch_tokens - layer.s_tokens - kept)
        merged = round_half_up(layer.merge_share * by_importance)
        similar = (0, layer.s_tokens) if config.similar == "merge" else (layer.s_tokens, 0)
        return (*similar, by_importance - merged, merged)

    def tracks_sizes(self, config: PruningConfig) -> bool:
        return config.sizes == "track"

    def reduce(
        self,
        attention: Tensor | None,
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
            merge_share=layer.merge_share,
        )

    # ---- what people see ---------------------------------------------------------------------

    def cells(self, layer: Mapping[str, Any]) -> tuple[str, ...]:
        return (
            f"{layer['retention']:.4f}",
            str(layer["s_tokens"]),
            str(layer["wpr_iterations"]),
            f"{layer.get('merge_share', 0.0):.2f}",
        )

    def heading(self, config: Mapping[str, Any]) -> str:
        out = f"v_min {config['v_min']:.3g}, v_max {config['v_max']:.3g}"
        stated = [f"{name} {config[name]}" for name in CHOICES if name in config]
        return ", ".join([out, *(each for each in stated if each != "variant zero-tprune")])
