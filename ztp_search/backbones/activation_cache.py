"""What all configurations share on one batch: the blocks before their first pruning layer.

A block that no pruning layer precedes gives the same for every configuration, and so do its
attention and its keys. An `ActivationCache` runs these once. Configurations give the same to the
bit with it and without: it only leaves out what would be computed again.
"""

from __future__ import annotations

from torch import Tensor

from ztp_search.backbones.base import BlockObservation, tensor_bytes
from ztp_search.backbones.pruner import Pruner
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.methods import Sight


class ActivationCache:
    """The activations of one batch of images that configurations share.

    nbytes: what is kept for the next configuration, in bytes of the device's memory.
    """

    def __init__(self, pruner: Pruner, images: Tensor) -> None:
        """`pruner` is the model's; images are (B, C, H, W), normalised, on its device."""
        self._pruner = pruner
        self._backbone = pruner.backbone
        self._images = images
        self._outputs: list[Tensor] = []  # of the stem, of block 1, …, as far as was needed
        self._observations: dict[tuple[int, Sight], BlockObservation] = {}
        self.nbytes = tensor_bytes(images)

    def logits(self, config: PruningConfig | None) -> Tensor:
        """Logits of the configuration (None: unpruned), (B, classes).

        The model is left configured so.

        Raises:
            ConfigError: the configuration does not fit the model, which then stays as it was.
        """
        if self._pruner.config != config:
            self._pruner.set(config)
        first = self._pruner.first
        if first is None:
            logits: Tensor = self._backbone.model(self._images)
            return logits
        self._pruner.begin()
        after_block = first.layer.after_block
        x = first.prune(self._observation(after_block, first.sight))  # (B, N', D)
        x = self._backbone.run_blocks(x, after_block, self._pruner.geometry.depth)
        return self._backbone.head(x)

    def _observation(self, block: int, sight: Sight) -> BlockObservation:
        """What a pruning layer after this block looks at, unpruned.

        One that shows more serves as well, and takes the place of one that shows less. (With and
        without attention the block does not give the same to the bit.)
        """
        if sight.features == "x":  # the tokens themselves
            seen = self._observation(block, Sight(sight.attention, None))
            return BlockObservation(seen.tokens, seen.attention, seen.tokens)
        mine = [key for key in self._observations
                if key[0] == block and key[1].attention == sight.attention]  # fmt: skip
        for key in mine:
            if sight.features in (None, key[1].features):
                return self._observations[key]
        observation = self._backbone.observe(block, self._output(block - 1), sight)
        for key in mine:
            if key[1].features is None:
                self.nbytes -= self._observations.pop(key).nbytes
        self._observations[block, sight] = observation
        self.nbytes += observation.nbytes
        return observation

    def _output(self, block: int) -> Tensor:
        """Output of a block, 0 being the stem, (B, N, D)."""
        if not self._outputs:
            self._keep(self._backbone.stem(self._images))
        while len(self._outputs) <= block:
            after = len(self._outputs) - 1
            self._keep(self._backbone.run_blocks(self._outputs[after], after, after + 1))
        return self._outputs[block]

    def _keep(self, x: Tensor) -> None:
        self._outputs.append(x)
        self.nbytes += tensor_bytes(x)
