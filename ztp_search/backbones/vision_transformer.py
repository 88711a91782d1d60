"""timm's `VisionTransformer`, pruned through module hooks.

No forward of timm is copied. A pruning layer after block l is three kinds of hooks:
- block l's attention is switched to its unfused path, and a hook on `attn_drop`, whose input is
  the softmax, sees the probabilities A; all other blocks keep fused attention;
- where the S-stage compares keys, queries or values, a hook on `k_norm`, `q_norm` or `qkv`
  (modules in every timm attention, identities where there is no norm) sees those;
- a hook on the block itself replaces its output by the tokens that are kept.
Without a configuration there are no hooks, so the model is stock timm to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from timm.layers import Attention, PatchEmbed
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ztp_search.errors import ModelError
from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.pruning.cost import Geometry, token_counts
from ztp_search.pruning.scoring import Kept, prune_tokens, take_tokens

SUPPORTED = (
    "timm VisionTransformer (DeiT, AugReg, MAE, distilled, registers) whose blocks are Block or "
    "ResPostBlock with a timm Attention, pooled by class token or average"
)
POOLS = ("token", "avg", "avgmax", "max")


@dataclass(frozen=True, slots=True)
class Seen:
    """A block's output, and what the pruning layer behind it looks at.

    tokens: (B, N, D). attention: softmax probabilities, (B, H, N, N). features: what the S-stage
    compares, (B, N, F); None where there is none or it is the tokens themselves.
    """

    tokens: Tensor
    attention: Tensor
    features: Tensor | None


class Pruner:
    """The pruning of one model: `set(config)` switches it, `set(None)` takes it off.

    first: the first pruning layer that prunes anything; None where none does.
    tokens: per pruning layer of the last forward {"after_block", "s", "i"}, indices into the
        unpruned sequence, (images, kept), prefix included; only with `record_tokens`.
    fallbacks: per pruning layer, whether the head filter left no head, (images,), of the last
        forward.
    """

    def __init__(self, model: VisionTransformer) -> None:
        self.geometry = geometry_of(model)
        self.model = model
        self.config: PruningConfig | None = None
        self.first: PruningHooks | None = None
        self.tokens: list[dict[str, Any]] = []
        self.fallbacks: list[Tensor] = []
        self._handles: list[RemovableHandle] = []
        self._unfused: list[tuple[Any, bool]] = []  # attentions switched, and what they were

    def set(self, config: PruningConfig | None, record_tokens: bool = False) -> None:
        """Prune as `config` says from the next forward on.

        Raises ConfigError where the configuration does not fit the model, which then stays as
        it was.
        """
        layers = config.layers if config is not None else ()
        counts = token_counts(self.geometry, config) if config is not None else ()
        for handle in self._handles:
            handle.remove()
        for attn, fused in self._unfused:
            attn.fused_attn = fused
        self.config = config
        self.first = None
        self._handles = []
        self._unfused = []
        self.tokens = []
        self.fallbacks = []
        if layers:
            self._handles.append(self.model.blocks[0].register_forward_pre_hook(self._begin))
        for layer in layers:
            assert config is not None
            block = self.model.blocks[layer.after_block - 1]
            n_in, n_out = counts[layer.after_block - 1], counts[layer.after_block]
            stage = PruningHooks(self, config, layer, n_out, record_tokens)
            if n_in == n_out:  # prunes nothing: the block stays stock
                self._handles.append(block.register_forward_hook(stage.keep_all))
                continue
            self._unfused.append((block.attn, block.attn.fused_attn))
            self._handles += stage.attach(block)
            if self.first is None:
                self.first = stage

    def _begin(self, _block: nn.Module, _inputs: tuple[Any, ...]) -> None:
        self.begin()  # a bound method, as it is copied with the model

    def begin(self) -> None:
        """Forget what the last forward left."""
        self.tokens = []
        self.fallbacks = []
        self.model.ztp_tokens = self.tokens


class PruningHooks:
    """The hooks of one pruning layer; holds a block's attention only until the block ends."""

    def __init__(
        self,
        pruner: Pruner,
        config: PruningConfig,
        layer: PruningLayer,
        n_out: int,
        record_tokens: bool,
    ) -> None:
        self.pruner = pruner
        self.config = config
        self.layer = layer
        self.kept = n_out - pruner.geometry.prefix_tokens
        self.record_tokens = record_tokens
        self._attention: Tensor | None = None  # (B, H, N, N)
        self._features: Tensor | None = None  # (B, N, F)
        self._looking = False
        self._seen: Seen | None = None

    def attach(self, block: Any) -> list[RemovableHandle]:
        attn = block.attn
        assert isinstance(attn, Attention)
        attn.fused_attn = False
        handles = [
            attn.attn_drop.register_forward_hook(self._see_attention),
            block.register_forward_hook(self._prune),
        ]
        if self.config.features == "key":
            handles.append(attn.k_norm.register_forward_hook(self._see_heads))
        elif self.config.features == "query":
            handles.append(attn.q_norm.register_forward_hook(self._see_heads))
        elif self.config.features == "value":
            handles.append(attn.qkv.register_forward_hook(self._see_qkv))
        return handles

    def see(self, x: Tensor) -> Seen:
        """Run the block on its input, (B, N, D), and prune nothing yet.

        What is seen is to be kept, so it holds on to no larger tensor that it is a view of.
        """
        self._looking = True
        try:
            self.pruner.model.blocks[self.layer.after_block - 1](x)
        finally:
            self._looking = False
        seen, self._seen = self._seen, None
        assert seen is not None
        return seen

    def _see_attention(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._attention = output

    def _see_heads(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        if self.layer.s_tokens or self._looking:
            features = output.transpose(1, 2).flatten(2)  # (B, H, N, d) -> (B, N, H d)
            self._features = features.contiguous() if self._looking else features

    def _see_qkv(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        if self.layer.s_tokens or self._looking:
            values = output.chunk(3, dim=-1)[2]  # (B, N, 3 H d) -> (B, N, H d)
            self._features = values.contiguous() if self._looking else values

    def _prune(self, _module: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
        attention, features = self._attention, self._features
        self._attention = self._features = None
        assert attention is not None, "the attention module did not call attn_drop"
        seen = Seen(output, attention, features)
        if self._looking:
            self._seen = seen
            return None
        return self.prune(seen)

    def prune(self, seen: Seen) -> Tensor:
        """The tokens that are kept, (B, N', D)."""
        x = seen.tokens  # (B, N, D)
        geometry = self.pruner.geometry
        kept = prune_tokens(
            seen.attention,
            x if self.config.features == "x" else seen.features,
            self.config,
            prefix_tokens=geometry.prefix_tokens,
            class_token=geometry.class_token,
            s_tokens=self.layer.s_tokens,
            kept=self.kept,
            wpr_iterations=self.layer.wpr_iterations,
        )
        self.pruner.fallbacks.append(kept.fallback)
        if self.record_tokens:
            self.pruner.tokens.append(self._record(kept))
        return take_tokens(x, kept.layer)  # (B, N', D)

    def keep_all(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        """The hook of a layer that prunes nothing: it only leaves its record."""
        if self.record_tokens:
            images, n, _ = output.shape
            everything = torch.arange(n, device=output.device).expand(images, -1)
            none = torch.zeros(images, dtype=torch.bool, device=output.device)
            self.pruner.tokens.append(self._record(Kept(everything, everything, everything, none)))

    def _record(self, kept: Kept) -> dict[str, Any]:
        s, i = kept.after_s, kept.after_i
        if self.pruner.tokens:  # positions -> indices into the unpruned sequence
            before = self.pruner.tokens[-1]["layer"]
            s, i = before.gather(1, s), before.gather(1, i)
        layer = i if self.config.order == "i'-s-i" else s
        return {"after_block": self.layer.after_block, "s": s, "i": i, "layer": layer}


def pruner_of(model: nn.Module) -> Pruner:
    """The model's pruner, made on the first call ("patch once")."""
    pruner = getattr(model, "ztp_pruner", None)
    if not isinstance(pruner, Pruner):
        vit, _ = _supported(model)
        pruner = Pruner(vit)
        vit.ztp_pruner = pruner
    return pruner


def geometry_of(model: nn.Module) -> Geometry:
    """The sizes of `model`; ModelError by class name where it is not supported."""
    vit, blocks = _supported(model)
    block = blocks[0]
    grid = vit.patch_embed.grid_size
    patch_tokens = grid[0] * grid[1]
    prefix_tokens = vit.num_prefix_tokens
    attn = block.attn
    projection = vit.patch_embed.proj.weight
    stem = patch_tokens * projection.numel() + patch_tokens * _norm_macs(vit.patch_embed.norm)
    stem += (patch_tokens + prefix_tokens) * _norm_macs(vit.norm_pre)
    heads = [head for head in (vit.head, getattr(vit, "head_dist", None)) if head is not None]
    return Geometry(
        depth=len(blocks),
        heads=attn.num_heads,
        embed_dim=vit.embed_dim,
        attn_dim=attn.attn_dim,
        patch_tokens=patch_tokens,
        prefix_tokens=prefix_tokens,
        class_token=vit.has_class_token,
        block_macs_per_token=_block_macs_per_token(block),
        block_macs_per_pair=2 * attn.attn_dim,
        stem_macs=stem,
        tail_macs_per_token=_norm_macs(vit.norm),
        tail_macs=_norm_macs(vit.fc_norm) + sum(_linear_macs(head) for head in heads),
    )


def _supported(model: nn.Module) -> tuple[VisionTransformer, list[Any]]:  # timm has no types
    def refuse(what: str) -> ModelError:
        return ModelError(f"{what} is not supported; supported is {SUPPORTED}")

    if not isinstance(model, VisionTransformer):
        raise refuse(type(model).__name__)
    if model.attn_pool is not None or model.global_pool not in POOLS:
        raise refuse(f"{type(model).__name__} with global_pool={model.global_pool!r}")
    if getattr(model.patch_embed, "grid_size", None) is None or model.dynamic_img_size:
        raise refuse(f"{type(model).__name__} with an image size that is not fixed")
    if type(model.patch_embed) is not PatchEmbed:
        raise refuse(f"a patch embedding of class {type(model.patch_embed).__name__}")
    blocks = list(model.blocks)
    for block in blocks:
        if not isinstance(block, Block | ResPostBlock):
            raise refuse(f"a block of class {type(block).__name__}")
        if type(block.attn) is not Attention:
            raise refuse(f"an attention of class {type(block.attn).__name__}")
    sizes = {(_block_macs_per_token(block), block.attn.attn_dim) for block in blocks}
    if len(sizes) != 1:
        raise refuse(f"{type(model).__name__} with blocks of different sizes")
    return model, blocks


def _block_macs_per_token(block: Any) -> int:
    """All linear layers and norms of a block; q_norm and k_norm run once per head."""
    attn = block.attn
    macs = 0
    for module in block.modules():
        if isinstance(module, nn.Linear):
            macs += _linear_macs(module)
        elif isinstance(module, nn.LayerNorm):
            runs = attn.num_heads if module in (attn.q_norm, attn.k_norm) else 1
            macs += runs * _norm_macs(module)
    return macs


def _linear_macs(module: nn.Module) -> int:
    return module.in_features * module.out_features if isinstance(module, nn.Linear) else 0


def _norm_macs(module: nn.Module | None) -> int:
    """fvcore counts 5 per element of a LayerNorm, 4 without affine, nothing for other norms."""
    if not isinstance(module, nn.LayerNorm):
        return 0
    return (5 if module.elementwise_affine else 4) * module.normalized_shape[0]
