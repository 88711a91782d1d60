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
        self._observations: dict[tuple[int, str], BlockObservation] = {}
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
        x = first.prune(self._observation(after_block, first.config.features))  # (B, N', D)
        x = self._backbone.run_blocks(x, after_block, self._pruner.geometry.depth)
        return self._backbone.head(x)

    def _observation(self, block: int, features: str) -> BlockObservation:
        """What a pruning layer after this block looks at, unpruned.

        Features are there for every configuration, as the next one may need them.
        """
        key = block, features
        if key not in self._observations:
            observation = self._backbone.observe(block, self._output(block - 1), features)
            self._observations[key] = observation
            self.nbytes += observation.nbytes
        return self._observations[key]

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
