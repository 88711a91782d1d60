"""Where the time of a forward goes, stage by stage, without a change to the library.

Modules are timed by hooks, scoring functions by being wrapped while the forward runs. Times are a
stage's own: what another stage takes inside it is that one's. On a GPU every edge waits for the
device, so that the sum is more than an untimed forward takes there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from ztp_search.backbones import pruner, vision_transformer
from ztp_search.pruning import scoring

FUSED, UNFUSED = "attention, fused", "attention, A materialised"
REST = "norms, residuals, classifier"
FUNCTIONS = (
    (scoring, "wpr", "WPR"),
    (scoring, "best_match", "matching"),
    (scoring, "take_tokens", "gathers to match"),
    (scoring, "prune_tokens", "ranking, head filter"),
    (vision_transformer, "take_tokens", "gather of kept tokens"),
    (pruner, "take_tokens", "gather of merged tokens"),
    (pruner, "merge_tokens", "means of merged tokens"),
)
"""Name and stage of each scoring function, where it is looked up when it is called."""


class Stopwatch:
    """Adds up the own time of nested stages."""

    def __init__(self, synchronise: bool) -> None:
        self.seconds: dict[str, float] = {}
        self._synchronise = synchronise
        self._open: list[str] = []
        self._since = 0.0

    def enter(self, stage: str) -> None:
        self._lap()
        self._open.append(stage)

    def leave(self) -> None:
        self._lap()
        self._open.pop()

    def _lap(self) -> None:
        """Book what has passed on the innermost open stage."""
        if self._synchronise:
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._open:
            stage = self._open[-1]
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = time.perf_counter()


def milliseconds_by_stage(model: Any, images: Tensor) -> dict[str, float]:
    """Per image, of one forward of a timm model as it is configured at present."""
    watch = Stopwatch(images.is_cuda)
    with ExitStack() as held, torch.inference_mode():
        for module, name, stage in FUNCTIONS:
            timed = _timed(watch, getattr(module, name), stage)
            held.enter_context(mock.patch.object(module, name, timed))
        held.enter_context(_hooked(watch, model.patch_embed, "patch embedding"))
        for block in model.blocks:
            attention = FUSED if block.attn.fused_attn else UNFUSED
            held.enter_context(_hooked(watch, block.attn, attention))
            held.enter_context(_hooked(watch, block.mlp, "MLP"))
        watch.enter(REST)
        model(images)
        watch.leave()
    return {stage: 1000 * spent / len(images) for stage, spent in watch.seconds.items()}


def _timed(
    watch: Stopwatch, function: Callable[..., Any], stage: str
) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        watch.enter(stage)
        try:
            return function(*args, **kwargs)
        finally:
            watch.leave()

    return timed


@contextmanager
def _hooked(watch: Stopwatch, module: nn.Module, stage: str) -> Iterator[None]:
    def enter(_module: nn.Module, _inputs: Any) -> None:
        watch.enter(stage)

    def leave(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        watch.leave()

    handles = [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
