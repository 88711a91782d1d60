"""What all configurations share on one batch: the blocks before their first pruning layer.

A block that no pruning layer precedes gives the same for every configuration, and so do its
attention and its keys. A `Trunk` runs these once. Configurations are the same to the bit with it
and without: it only leaves out what would be computed again.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ztp_search.backbones.vision_transformer import Pruner, Seen
from ztp_search.pruning.config import PruningConfig


class Trunk:
    """One batch of images, (B, C, H, W), on its way through the stock blocks.

    nbytes: what is kept for the next configuration, in bytes of the device's memory.
    """

    def __init__(self, pruner: Pruner, images: Tensor) -> None:
        self._pruner = pruner
        self._model: Any = pruner.model
        self._images = images
        self._inputs: list[Tensor] = []  # of block 0, 1, …, as far as they were needed
        self._seen: dict[tuple[int, str], Seen] = {}  # (after_block, features)
        self.nbytes = _bytes(images)

    def logits(self, config: PruningConfig | None) -> Tensor:
        """Logits of the configuration (None: unpruned), (B, classes)."""
        if self._pruner.config != config:
            self._pruner.set(config)
        first = self._pruner.first
        logits: Tensor
        if first is None:
            logits = self._model(self._images)
            return logits
        self._pruner.begin()
        after_block = first.layer.after_block
        key = after_block, first.config.features
        if key not in self._seen:
            seen = first.see(self._input(after_block - 1))
            self._seen[key] = seen
            self.nbytes += _bytes(seen.tokens, seen.attention, seen.features)
        x = first.prune(self._seen[key])  # (B, N', D)
        x = self._model.blocks[after_block:](x)
        logits = self._model.forward_head(self._model.norm(x))
        return logits

    def _input(self, block: int) -> Tensor:
        """Input of a block counted from 0, (B, N, D)."""
        if not self._inputs:
            self._keep(self._stem())
        while len(self._inputs) <= block:
            self._keep(self._model.blocks[len(self._inputs) - 1](self._inputs[-1]))
        return self._inputs[block]

    def _keep(self, x: Tensor) -> None:
        self._inputs.append(x)
        self.nbytes += _bytes(x)

    def _stem(self) -> Tensor:
        """Run the model as far as its first block, whose input it is."""
        handle = self._model.blocks[0].register_forward_pre_hook(_stop, prepend=True)
        try:
            self._model(self._images)
        except _Reached as reached:
            return reached.x
        finally:
            handle.remove()
        raise AssertionError("the model did not run its first block")


class _Reached(Exception):
    """Carries the input of the first block out of the model's forward."""

    def __init__(self, x: Tensor) -> None:
        self.x = x


def _stop(_block: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    raise _Reached(inputs[0])


def _bytes(*tensors: Tensor | None) -> int:
    return sum(each.numel() * each.element_size() for each in tensors if each is not None)
