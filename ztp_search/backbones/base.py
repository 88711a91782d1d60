"""What a family of models must be able to do so that its tokens can be reduced."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from ztp_search.pruning.geometry import Geometry
from ztp_search.pruning.methods import Sight


class Handle(Protocol):
    """Something attached to a model, until `remove()` takes it off again."""

    def remove(self) -> None: ...


@dataclass(frozen=True, slots=True)
class BlockObservation:
    """What a method looks at to reduce the tokens that leave a block.

    Attributes:
        tokens: the block's output, (B, N, D).
        attention: softmax probabilities of the block's attention, (B, H, N, N); None where they
            were not asked for.
        features: what tokens are compared by, (B, N, F); None likewise. The features "x" are
            `tokens` itself.
    """

    tokens: Tensor
    attention: Tensor | None
    features: Tensor | None

    @property
    def nbytes(self) -> int:
        """Bytes of the device's memory; tokens that are the features too count once."""
        own = None if self.features is self.tokens else self.features
        return tensor_bytes(self.tokens, self.attention, own)


class Backbone(ABC):
    """One model of a family, taken apart as pruning, caching and counting need it.

    Blocks are numbered from 1, as `PruningLayer.after_block` numbers them; the output of block 0
    is the stem's. The model's own `forward` is never replaced: what changes it is attached as
    hooks, and a model with nothing attached computes what it always did, bit for bit. Hooks must
    be of a kind that `copy.deepcopy` and `pickle` take along with the model: bound methods and
    plain objects, no closures.

    Attributes:
        SUPPORTED: what of the family is supported, for the message that refuses other models.
    """

    SUPPORTED: ClassVar[str]

    def __init__(self, model: nn.Module) -> None:
        """`model` must be supported: `backbone_of` asks `refusal` first."""
        self.model: Any = model  # neither timm nor torch says which modules it has

    @classmethod
    @abstractmethod
    def refusal(cls, model: nn.Module) -> str | None:
        """What about `model` is not supported, as "a block of class X"; None where all is.

        The bare class name where the model is of another family altogether.
        """

    @classmethod
    def supports(cls, model: nn.Module) -> bool:
        """Whether `model` can be pruned as a member of this family."""
        return cls.refusal(model) is None

    # What it is

    @abstractmethod
    def geometry(self) -> Geometry:
        """The sizes that decide what a configuration costs."""

    @property
    @abstractmethod
    def input_size(self) -> tuple[int, int, int]:
        """Channels, height and width of the images that the model takes."""

    @abstractmethod
    def example_input(self) -> Tensor:
        """One black image, (1, C, H, W), of the weights' type and on their device."""

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch in pixels; patch tokens come row by row."""
        height, width = self.model.patch_embed.patch_size
        return height, width

    # Running it in parts

    @abstractmethod
    def stem(self, images: Tensor) -> Tensor:
        """From images, (B, C, H, W), to what the first block computes on, (B, N, D).

        Raises ModelError where the model's forward does not come to its first block.
        """

    @abstractmethod
    def run_blocks(self, x: Tensor, after: int, until: int) -> Tensor:
        """From the output of block `after`, (B, N, D), to that of block `until`."""

    @abstractmethod
    def observe(self, block: int, x: Tensor, sight: Sight) -> BlockObservation:
        """Run one block on the output of the block before it, and look at its attention.

        Tokens are not reduced, whatever `reduce_after` attached to this block. What is returned
        is to be kept: it holds on to no larger tensor that it would be a view of.

        Args:
            block: the block's number.
            x: its input, (B, N, D).
            sight: what is needed; its features are "key", "query", "value" or "x".

        Raises:
            ModelError: the block's attention does not show its probabilities or features.
        """

    @abstractmethod
    def head(self, x: Tensor) -> Tensor:
        """From the output of the last block, (B, N, D), to logits, (B, classes)."""

    # Reducing its tokens

    @abstractmethod
    def begin_forward(self) -> None:
        """Forget what `select` kept for the blocks of the forward before this one."""

    @abstractmethod
    def select(self, x: Tensor, kept: Tensor) -> Tensor:
        """The kept tokens of a block's output, with whatever belongs to their position.

        A family whose later blocks use the position of a token (rotary embeddings, say) keeps
        that of the kept tokens until `begin_forward`.

        Args:
            x: output of a block, (B, N, D).
            kept: ascending positions of the kept tokens in `x`, prefix included, (B, K).

        Returns:
            (B, K, D).
        """

    @abstractmethod
    def before_block(self, block: int, hook: Callable[[Tensor], None]) -> Handle:
        """Call `hook` with the input of a block, (B, N, D), whenever the block is to be run."""

    @abstractmethod
    def reduce_after(
        self, block: int, reduce: Callable[[BlockObservation], Tensor], sight: Sight
    ) -> Handle:
        """Replace the output of a block by what `reduce` makes of it, (B, K, D).

        At most one at a time for each block. Only this block's attention is switched to where
        its probabilities can be seen, and only if they are needed. Arguments and errors as in
        `observe`.
        """

    @abstractmethod
    def bias_attention(self, block: int, bias: Callable[[], Tensor | None]) -> Handle:
        """Add to the logits of a block's attention what `bias` gives whenever the block runs.

        Args:
            block: the block's number.
            bias: one number per key, (B, 1, 1, N), for all heads and queries; None adds nothing.
                Nothing of the size of the attention matrix may be made of it.
        """

    # Counting it

    @abstractmethod
    def unfused_attention(self) -> AbstractContextManager[None]:
        """All attention written out as matrix products inside, as it was before afterwards."""


def tensor_bytes(*tensors: Tensor | None) -> int:
    """Bytes that these tensors take."""
    return sum(each.numel() * each.element_size() for each in tensors if each is not None)
