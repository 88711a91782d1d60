"""One model's pruning, switched from configuration to configuration."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ztp_search.backbones.base import Backbone, BlockObservation, Handle
from ztp_search.backbones.families import backbone_of
from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.pruning.merging import merge_tokens, take_tokens
from ztp_search.pruning.methods import method_of
from ztp_search.pruning.scoring import Kept
from ztp_search.pruning.tokens import token_counts

ModelT = TypeVar("ModelT", bound=nn.Module)


class Pruner:
    """The pruning of one model: `set(config)` switches it on, `set(None)` takes it off.

    Without a configuration nothing is attached to the model, so it is stock to the bit.

    backbone, geometry: of the model as it was when it was patched.
    config: what the model is pruned by at present.
    first: the first pruning layer that prunes anything; None where none does.
    tokens: per pruning layer of the last forward {"after_block", "s", "i", "layer", "merged",
        "into", "importance"}, indices into the unpruned sequence and scores (see `apply`); only
        with `record_tokens`.
    fallbacks: per pruning layer of the last forward, for which images the head filter left no
        head, (images,).
    sizes: how many patches each token that leaves the last layer stands for, (images, tokens);
        None while that is 1 for all, or not tracked.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.model = backbone.model
        self.geometry = backbone.geometry()
        self.config: PruningConfig | None = None
        self.first: AttachedLayer | None = None
        self.tokens: list[dict[str, Any]] = []
        self.fallbacks: list[Tensor] = []
        self.sizes: Tensor | None = None
        self._handles: list[Handle] = []

    def set(self, config: PruningConfig | None, record_tokens: bool = False) -> None:
        """Prune as `config` says from the next forward on.

        Raises:
            ConfigError: the configuration does not fit the model, which then stays as it was.
        """
        counts = token_counts(self.geometry, config) if config is not None else ()
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.config = config
        self.first = None
        self.tokens = []
        self.fallbacks = []
        self.sizes = None
        if config is None or not config.layers:
            return
        self._handles.append(self.backbone.before_block(1, self._begin))
        for layer in config.layers:
            n_in, n_out = counts[layer.after_block - 1], counts[layer.after_block]
            attached = AttachedLayer(self, config, layer, n_in, n_out, record_tokens)
            if n_in != n_out:
                self._handles.append(attached.attach())
                self.first = self.first or attached
            elif record_tokens:  # prunes nothing: the block stays stock
                self._handles.append(
                    self.backbone.before_block(layer.after_block + 1, attached.record_all)
                )
        if self.first is not None and method_of(config).tracks_sizes(config):
            self._handles += [
                self.backbone.bias_attention(block, self.log_sizes)
                for block in range(self.first.layer.after_block + 1, self.geometry.depth + 1)
            ]

    def begin(self) -> None:
        """Forget what the last forward left."""
        self.tokens = []
        self.fallbacks = []
        self.sizes = None
        self.model.ztp_tokens = self.tokens
        self.backbone.begin_forward()

    def log_sizes(self) -> Tensor | None:
        """What proportional attention (ToMe) adds to the logits along the keys, (B, 1, 1, N)."""
        return None if self.sizes is None else self.sizes.log()[:, None, None, :]

    def _begin(self, _x: Tensor) -> None:
        self.begin()


class AttachedLayer:
    """One pruning layer of a configuration, at work in a model."""

    def __init__(
        self,
        pruner: Pruner,
        config: PruningConfig,
        layer: PruningLayer,
        n_in: int,
        n_out: int,
        record_tokens: bool,
    ) -> None:
        self.pruner = pruner
        self.config = config
        self.layer = layer
        self.method = method_of(config)
        prefix = pruner.geometry.prefix_tokens
        self.kept = n_out - prefix
        self.sight = self.method.looks_at(config, layer, n_in - prefix, self.kept)
        self.record_tokens = record_tokens

    def attach(self) -> Handle:
        """Prune the output of the block from its next run on."""
        return self.pruner.backbone.reduce_after(self.layer.after_block, self.prune, self.sight)

    def prune(self, observation: BlockObservation) -> Tensor:
        """The tokens that are kept, (B, N', D)."""
        kept = self._reduce(observation)
        self.pruner.fallbacks.append(kept.fallback)
        if self.record_tokens:
            self._record(kept)
        x = self.pruner.backbone.select(observation.tokens, kept.layer)
        if kept.merged is None and self.pruner.sizes is None:
            return x
        return self._merge(x, observation.tokens, kept)

    def record_all(self, x: Tensor) -> None:
        """Leave the record of a layer that prunes nothing; `x` is what the next block gets."""
        images, n, _ = x.shape
        everything = torch.arange(n, device=x.device).expand(images, -1)
        none = torch.zeros(images, dtype=torch.bool, device=x.device)
        self._record(Kept(everything, everything, everything, none))

    def _merge(self, x: Tensor, tokens: Tensor, kept: Kept) -> Tensor:
        """The kept tokens with what goes into them; their sizes go on to the blocks behind.

        Args:
            x: the kept tokens, (B, K, D).
            tokens: all of them, (B, N, D).
            kept: which are kept, and which go into them.
        """
        kept_sizes = self._sizes(kept.layer)
        if kept.merged is not None:
            x, kept_sizes = merge_tokens(
                x,
                kept_sizes,
                take_tokens(tokens, kept.merged.tokens),
                self._sizes(kept.merged.tokens),
                kept.merged.into,
            )
        if self.method.tracks_sizes(self.config):
            self.pruner.sizes = kept_sizes
        return x

    def _sizes(self, positions: Tensor) -> Tensor:
        """How many patches the tokens at these positions, (B, K), stand for: (B or 1, K)."""
        if self.pruner.sizes is None:
            return torch.ones(1, positions.shape[1], device=positions.device)
        return self.pruner.sizes.gather(1, positions)

    def _reduce(self, observation: BlockObservation) -> Kept:
        """Ask the method which tokens to keep."""
        return self.method.reduce(
            observation.attention,
            observation.features,
            self.config,
            self.layer,
            geometry=self.pruner.geometry,
            kept=self.kept,
        )

    def _record(self, kept: Kept) -> None:
        s, i, layer = kept.after_s, kept.after_i, kept.layer
        merged = into = layer[:, :0]
        if kept.merged is not None:
            merged, order = kept.merged.tokens.sort(dim=1)
            into = kept.merged.into.gather(1, order)
        if self.pruner.tokens:  # positions -> indices into the unpruned sequence
            before = self.pruner.tokens[-1]["layer"]
            s, i, layer, merged = (before.gather(1, each) for each in (s, i, layer, merged))
        into = layer.gather(1, into.clamp_min(0)).masked_fill(into < 0, -1)
        self.pruner.tokens.append(
            {"after_block": self.layer.after_block, "s": s, "i": i, "layer": layer,
             "merged": merged, "into": into, "importance": kept.importance}
        )  # fmt: skip


def pruner_of(model: nn.Module) -> Pruner:
    """The model's pruner, made on the first call and kept with the model ("patch once").

    Raises:
        ModelError: the model is not supported.
    """
    pruner = getattr(model, "ztp_pruner", None)
    if not isinstance(pruner, Pruner):
        backbone = backbone_of(model)
        pruner = Pruner(backbone)
        backbone.model.ztp_pruner = pruner
    return pruner


def apply(
    model: ModelT, config: PruningConfig | None, *, record_tokens: bool = False
) -> ModelT:
    """Prune `model` as `config` says from its next forward on.

    The model is patched in place and called as before. A model without a classifier gives pruned
    features.

    Args:
        model: a timm model of a supported family, with any weights, on any device.
        config: None makes the model stock again, bit for bit.
        record_tokens: have `model.ztp_tokens` list after each forward, per pruning layer,
            {"after_block": l, "s": …, "i": …, "layer": …, "merged": …, "into": …,
            "importance": …}: indices into the unpruned sequence, prefix included, (images, kept)
            of what is left after the S-stage, the I-stage and the whole layer, and (images,
            merged) of what was merged and of the token that each has ended in, -1 where that was
            dropped after all. "importance", (images, tokens that came in), is what the last stage
            that ranks tokens went by, 0 where an earlier stage had taken the token out; None
            where no stage ranks any.

    Returns:
        `model` itself.

    Raises:
        ModelError: the model is not supported.
        ConfigError: the configuration does not fit the model.

    Example:
        >>> model = timm.create_model("deit_tiny_patch16_224").eval()
        >>> config = PruningConfig((PruningLayer(after_block=6, retention=0.7),))
        >>> apply(model, config)(torch.zeros(2, 3, 224, 224)).shape
        torch.Size([2, 1000])
    """
    pruner_of(model).set(config, record_tokens)
    return model
