"""timm's `VisionTransformer`, whose tokens are reduced through module hooks.

No forward of timm is copied. Reducing the tokens after block l takes three kinds of hooks:
- where tokens are ranked, block l's attention is switched to its unfused path, and a hook on
  `attn_drop`, whose input is the softmax, sees the probabilities A; all other blocks keep fused
  attention;
- where tokens are compared by keys, queries or values, a hook on `k_norm`, `q_norm` or `qkv`
  (modules in every timm attention, identities where there is no norm) sees those;
- a hook on the block itself replaces its output by the reduced tokens.
Where tokens stand for several patches, a hook on the attention of the blocks behind hands it the
log of their number as a mask of one row, (B, 1, 1, N), which fused attention broadcasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from timm.layers import Attention, PatchEmbed
from timm.models.vision_transformer import Block, ResPostBlock, VisionTransformer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ztp_search.backbones.base import Backbone, BlockObservation, Handle
from ztp_search.errors import ModelError
from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.merging import take_tokens
from ztp_search.pruning.methods import Sight

POOLS = ("token", "avg", "avgmax", "max")


class VisionTransformerBackbone(Backbone):
    """A timm VisionTransformer with learned positions, added before the first block."""

    SUPPORTED = (
        "timm VisionTransformer (DeiT, AugReg, MAE, distilled, registers) whose blocks are Block "
        "or ResPostBlock with a timm Attention, pooled by class token or average"
    )

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        self._reducing: dict[int, _BlockHooks] = {}  # what is attached, by block

    @classmethod
    def refusal(cls, model: nn.Module) -> str | None:
        name = type(model).__name__
        if not isinstance(model, VisionTransformer):
            return name
        if model.attn_pool is not None or model.global_pool not in POOLS:
            return f"{name} with global_pool={model.global_pool!r}"
        if getattr(model.patch_embed, "grid_size", None) is None or model.dynamic_img_size:
            return f"{name} with an image size that is not fixed"
        if type(model.patch_embed) is not PatchEmbed:
            return f"a patch embedding of class {type(model.patch_embed).__name__}"
        for block in model.blocks:
            if not isinstance(block, Block | ResPostBlock):
                return f"a block of class {type(block).__name__}"
            if type(block.attn) is not Attention:
                return f"an attention of class {type(block.attn).__name__}"
        sizes = {(_block_macs_per_token(block), block.attn.attn_dim) for block in model.blocks}
        return None if len(sizes) == 1 else f"{name} with blocks of different sizes"

    def geometry(self) -> Geometry:
        vit, block = self.model, self.model.blocks[0]
        grid = vit.patch_embed.grid_size
        patch_tokens = grid[0] * grid[1]
        prefix_tokens = vit.num_prefix_tokens
        projection = vit.patch_embed.proj.weight
        stem = patch_tokens * projection.numel() + patch_tokens * _norm_macs(vit.patch_embed.norm)
        stem += (patch_tokens + prefix_tokens) * _norm_macs(vit.norm_pre)
        heads = [head for head in (vit.head, getattr(vit, "head_dist", None)) if head is not None]
        return Geometry(
            depth=len(vit.blocks),
            heads=block.attn.num_heads,
            embed_dim=vit.embed_dim,
            attn_dim=block.attn.attn_dim,
            patch_tokens=patch_tokens,
            prefix_tokens=prefix_tokens,
            class_token=vit.has_class_token,
            block_macs_per_token=_block_macs_per_token(block),
            block_macs_per_pair=2 * block.attn.attn_dim,
            stem_macs=stem,
            tail_macs_per_token=_norm_macs(vit.norm),
            tail_macs=_norm_macs(vit.fc_norm) + sum(_linear_macs(head) for head in heads),
        )

    @property
    def input_size(self) -> tuple[int, int, int]:
        embed = self.model.patch_embed
        height, width = embed.img_size
        return embed.proj.in_channels, height, width

    def example_input(self) -> Tensor:
        image: Tensor = self.model.patch_embed.proj.weight.new_zeros(1, *self.input_size)
        return image

    def stem(self, images: Tensor) -> Tensor:
        """Run the model's own forward as far as its first block, whose input this is."""
        handle = self.model.blocks[0].register_forward_pre_hook(_stop, prepend=True)
        try:
            self.model(images)
        except _Reached as reached:
            return reached.x
        finally:
            handle.remove()
        raise ModelError(f"the forward of {type(self.model).__name__} must run its blocks, but "
                         f"ended before the first one; leave timm's own forward in place")

    def run_blocks(self, x: Tensor, after: int, until: int) -> Tensor:
        for block in self.model.blocks[after:until]:
            x = block(x)
        return x

    def observe(self, block: int, x: Tensor, sight: Sight) -> BlockObservation:
        module = self.model.blocks[block - 1]
        attached = self._reducing.get(block)
        looking = _BlockHooks(module, sight, None)
        if attached is not None:
            attached.pause(True, sight.attention)
        try:
            module(x)
        finally:
            looking.remove()
            if attached is not None:
                attached.pause(False)
        assert looking.observation is not None, "the block's hooks run with the block"
        return looking.observation

    def head(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model.forward_head(self.model.norm(x))
        return logits

    def begin_forward(self) -> None:
        """Nothing to forget: no block uses the position of a token."""

    def select(self, x: Tensor, kept: Tensor) -> Tensor:
        return take_tokens(x, kept)

    def before_block(self, block: int, hook: Callable[[Tensor], None]) -> Handle:
        module = self.model.blocks[block - 1]
        handle: RemovableHandle = module.register_forward_pre_hook(partial(_call_with_input, hook))
        return handle

    def reduce_after(
        self, block: int, reduce: Callable[[BlockObservation], Tensor], sight: Sight
    ) -> Handle:
        hooks = _BlockHooks(self.model.blocks[block - 1], sight, reduce)
        self._reducing[block] = hooks
        return hooks

    def bias_attention(self, block: int, bias: Callable[[], Tensor | None]) -> Handle:
        attn = self.model.blocks[block - 1].attn
        handle: RemovableHandle = attn.register_forward_pre_hook(
            partial(_add_bias, bias), with_kwargs=True
        )
        return handle

    @contextmanager
    def unfused_attention(self) -> Iterator[None]:
        attentions = [block.attn for block in self.model.blocks]
        fused = [attn.fused_attn for attn in attentions]
        for attn in attentions:
            attn.fused_attn = False
        try:
            yield
        finally:
            for attn, was in zip(attentions, fused, strict=True):
                attn.fused_attn = was


class _BlockHooks:
    """The hooks of one block, which hold its attention only until the block ends.

    reduce: makes the block's output from what was seen; None leaves the output as it is and
        keeps what was seen in `observation`.
    paused: the block runs as if nothing were attached to it.
    """

    def __init__(
        self,
        block: Any,
        sight: Sight,
        reduce: Callable[[BlockObservation], Tensor] | None,
    ) -> None:
        self.paused = False
        self.observation: BlockObservation | None = None
        self._attn = block.attn
        self._sight = sight
        self._reduce = reduce
        self._seen_attention: Tensor | None = None  # (B, H, N, N)
        self._seen_features: Tensor | None = None  # (B, N, F)
        self._was_fused = block.attn.fused_attn
        self._handles: list[RemovableHandle] = [block.register_forward_hook(self._end)]
        if sight.attention:
            self._attn.fused_attn = False
            seen = self._attn.attn_drop.register_forward_hook(self._see_attention)
            self._handles.append(seen)
        features = sight.features
        if features == "key":
            self._handles.append(self._attn.k_norm.register_forward_hook(self._see_heads))
        elif features == "query":
            self._handles.append(self._attn.q_norm.register_forward_hook(self._see_heads))
        elif features == "value":
            self._handles.append(self._attn.qkv.register_forward_hook(self._see_qkv))

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._attn.fused_attn = self._was_fused

    def pause(self, paused: bool, unfused: bool = False) -> None:
        """Run the block as if nothing were attached, until called again with False.

        unfused: whether its attention is to be seen all the same.
        """
        self.paused = paused
        seen = unfused if paused else self._sight.attention
        self._attn.fused_attn = self._was_fused and not seen

    def _see_attention(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        if not self.paused:
            self._seen_attention = output

    def _see_heads(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        if not self.paused:
            features = output.transpose(1, 2).flatten(2)  # (B, H, N, d) -> (B, N, H d)
            self._see_features(features)

    def _see_qkv(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        if not self.paused:
            self._see_features(output.chunk(3, dim=-1)[2])  # (B, N, 3 H d) -> (B, N, H d)

    def _see_features(self, features: Tensor) -> None:
        # What is to be kept must not hold on to the larger tensor that it is a view of.
        self._seen_features = features.contiguous() if self._reduce is None else features

    def _end(self, _block: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
        if self.paused:
            return None
        attention, features = self._seen_attention, self._seen_features
        self._seen_attention = self._seen_features = None
        if self._sight.features == "x":
            features = output
        blind = self._sight.attention and attention is None
        if blind or (features is None and self._sight.features is not None):
            unseen = "attn_drop" if blind else f"the module that gives {self._sight.features}"
            raise ModelError(f"the attention of every block must run timm's own forward, but one "
                             f"did not call {unseen}; take off what replaces its forward")
        observation = BlockObservation(output, attention, features)
        if self._reduce is not None:
            return self._reduce(observation)
        self.observation = observation
        return None


def _add_bias(
    bias: Callable[[], Tensor | None], _attn: nn.Module, args: Any, kwargs: dict[str, Any]
) -> tuple[Any, dict[str, Any]] | None:
    """Hand `bias` to the attention as its mask, in the type that its logits have."""
    row = bias()
    if row is None:
        return None
    kind = row.device.type
    autocast = torch.is_autocast_enabled(kind)
    dtype = torch.get_autocast_dtype(kind) if autocast else args[0].dtype
    return args, {**kwargs, "attn_mask": row.to(dtype)}


class _Reached(Exception):
    """Carries the input of the first block out of the model's forward."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


def _stop(_block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    raise _Reached(inputs[0])


def _call_with_input(
    hook: Callable[[Tensor], None], _block: nn.Module, inputs: tuple[Tensor, ...]
) -> None:
    hook(inputs[0])


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
