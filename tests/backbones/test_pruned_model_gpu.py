"""What a GPU asks of the pruned model: it never waits for the host, nor mixes devices.

Without a GPU this is seen on tensors that PyTorch only makes believe: operations on them know
shapes, types and devices, and raise where the host would have to read a value.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from helpers.backbone_examples import MERGED, UNSEEN
from helpers.small_vits import MODELS, TWO_LAYERS, images_for, make
from timm.models.vision_transformer import VisionTransformer
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import ztp_search
from ztp_search.pruning.config import CHOICES, PruningConfig

VARIANTS = [(name, value) for name, values in CHOICES.items() for value in values]
configs = pytest.mark.parametrize(
    "config", [TWO_LAYERS, MERGED, UNSEEN], ids=["dropped", "merged", "by position"]
)


class NoBlockingCopies(TorchDispatchMode):
    """Raises where a tensor goes to another device and the host waits until it is there."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        tensors = [each for each in (*args[:1], result) if isinstance(each, torch.Tensor)]
        if len(tensors) == 2 and tensors[0].device != tensors[1].device:
            here, there = (tensor.device for tensor in tensors)
            assert kwargs.get("non_blocking"), f"{here} -> {there} blocks"
        return result


@contextmanager
def make_believe_gpu(name: str, dtype: torch.dtype) -> Iterator[VisionTransformer]:
    """A model whose tensors are a GPU's in all but their values, for use inside."""
    with torch.device("meta"):
        model = MODELS[name]().eval()
    with FakeTensorMode():
        for module in model.modules():
            for key, parameter in list(module.named_parameters(recurse=False)):
                like = torch.empty(parameter.shape, dtype=dtype, device="cuda")
                module.register_parameter(key, torch.nn.Parameter(like, requires_grad=False))
            for key, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(key, torch.empty(buffer.shape, dtype=dtype, device="cuda"))
        with NoBlockingCopies():
            yield model


def forward(model: VisionTransformer, images: int = 4) -> torch.Tensor:
    like = next(model.parameters())
    size = (images, 3, *model.patch_embed.img_size)
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.empty(size, dtype=like.dtype, device=like.device))
    return logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@configs
@pytest.mark.parametrize("name", MODELS)
def test_no_model_waits_for_the_host(name: str, config: PruningConfig, dtype: torch.dtype) -> None:
    with make_believe_gpu(name, dtype) as model:
        ztp_search.apply(model, config, record_tokens=True)
        logits = forward(model)
        assert logits.device.type == "cuda" and logits.dtype == dtype
        for layer in model.ztp_tokens:
            for recorded in ("layer", "merged", "into"):
                assert layer[recorded].device.type == "cuda"


@configs
@pytest.mark.parametrize(("field", "value"), VARIANTS)
def test_no_variant_waits_for_the_host(config: PruningConfig, field: str, value: str) -> None:
    config = dataclasses.replace(config, **{field: value})
    with make_believe_gpu("class token", torch.bfloat16) as model:
        assert forward(ztp_search.apply(model, config)).device.type == "cuda"


def test_waiting_would_be_seen() -> None:
    with make_believe_gpu("class token", torch.float32) as model:
        model.norm.register_forward_hook(lambda _module, _inputs, output: bool(output.sum() > 0))
        with pytest.raises(DataDependentOutputException):
            forward(model)
    with make_believe_gpu("class token", torch.float32) as model:
        model.norm.register_forward_hook(lambda _module, _inputs, output: print(output.to("cpu")))
        with pytest.raises(AssertionError, match="cuda:0 -> cpu blocks"):
            forward(model)


on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@contextmanager
def waiting_is_an_error() -> Iterator[None]:
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)


@pytest.mark.gpu
@on_a_gpu
@configs
@pytest.mark.parametrize("name", MODELS)
def test_a_gpu_keeps_the_tokens_and_finds_the_logits_of_a_cpu(
    name: str, config: PruningConfig
) -> None:
    model = make(name)
    x = images_for(model)
    ztp_search.apply(model, config, record_tokens=True)
    expected, tokens = model(x), model.ztp_tokens
    model, x = model.cuda(), x.cuda()
    model(x)  # the first forward allocates and chooses kernels
    with waiting_is_an_error():
        logits = model(x)
    torch.testing.assert_close(logits.cpu(), expected, rtol=1e-3, atol=1e-3)
    for mine, on_cpu in itertools.zip_longest(model.ztp_tokens, tokens):
        for recorded in ("layer", "merged", "into"):
            assert torch.equal(mine[recorded].cpu(), on_cpu[recorded])


@pytest.mark.gpu
@on_a_gpu
@configs
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_mixed_precision_does_not_wait_for_a_real_gpu(
    config: PruningConfig, dtype: torch.dtype
) -> None:
    model = ztp_search.apply(make("class token").cuda(), config)
    x = images_for(model).cuda()
    with torch.autocast("cuda", dtype=dtype):
        model(x)
        with waiting_is_an_error():
            logits = model(x)
    assert logits.isfinite().all()


@pytest.mark.gpu
@on_a_gpu
@configs
def test_a_gpu_gives_the_same_to_the_bit_each_time(config: PruningConfig) -> None:
    model = ztp_search.apply(make("class token").cuda(), config)
    x = images_for(model).cuda()
    first = model(x)
    for _ in range(5):
        assert torch.equal(model(x), first)


@pytest.mark.gpu
@on_a_gpu
@configs
@pytest.mark.parametrize(("field", "value"), VARIANTS)
def test_no_variant_waits_for_a_real_gpu(config: PruningConfig, field: str, value: str) -> None:
    model = make("class token").cuda()
    x = images_for(model).cuda()
    ztp_search.apply(model, dataclasses.replace(config, **{field: value}))
    model(x)
    with waiting_is_an_error():
        model(x)
