"""Configurations that share their first blocks: the same to the bit as each on its own."""

from __future__ import annotations

import collections
import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from helpers.random_configs import random_config
from helpers.small_vits import MODELS, images_for, make
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import ztp_search
from ztp_search.backbones import ActivationCache, Pruner, pruner_of
from ztp_search.errors import ConfigError
from ztp_search.pruning.config import CHOICES, PruningConfig, PruningLayer
from ztp_search.pruning.geometry import Geometry

NOTHING = PruningLayer(1, 1.0, 0, 3)  # a layer that prunes nothing
HEADS = ((0.0, 1e6), (0.01, 12.5), (0.4, 0.8), (1e6, 1e7))  # [v_min, v_max]: all, some, none
Expected = tuple[Tensor, list[Tensor], Tensor | None]


def after(block: int, features: str = "key", s_tokens: int = 2) -> PruningConfig:
    """Prunes after this block for the first time, and once more after the last but one."""
    layers = [PruningLayer(block, 0.7, s_tokens, 3)]
    if block < 3:
        layers.append(PruningLayer(3, 0.6, 0, 2))
    return PruningConfig(tuple(layers), v_min=0.0, v_max=1e6, features=features)


def unseen(block: int, features: str = "key", s_tokens: int = 4) -> PruningConfig:
    """Merges after this block by position, so that no attention needs to be seen there."""
    return replace(
        after(block, features), layers=(PruningLayer(block, 1.0, s_tokens),),
        partition="position", similar="merge", sizes="track",
    )  # fmt: skip


def configs_for(geometry: Geometry, rng: random.Random) -> list[PruningConfig | None]:
    """Every pair of features and order, all else drawn, and all that prunes late or never."""
    configs: list[PruningConfig | None] = [
        None,
        PruningConfig(),
        PruningConfig((NOTHING,)),
        PruningConfig((NOTHING, PruningLayer(2, 1.0, 0, 1), PruningLayer(3, 0.5, 3, 2))),
        PruningConfig((NOTHING, PruningLayer(2, 0.8, 0, 2), PruningLayer(3, 1.0, 0, 2))),
    ]
    for features, order in itertools.product(CHOICES["features"], CHOICES["order"]):
        v_min, v_max = rng.choice(HEADS)
        config = random_config(rng, geometry)
        while config.order != order:  # how many s_tokens there may be depends on it
            config = random_config(rng, geometry)
        config = replace(config, features=features, v_min=v_min, v_max=v_max)
        configs.append(config)
    for features in CHOICES["features"]:
        configs.append(unseen(rng.randint(1, 3), features))
        configs.append(replace(after(rng.randint(1, 3), features), similar="merge", sizes="track"))
    rng.shuffle(configs)
    return configs


def on_its_own(model: VisionTransformer, config: PruningConfig | None, x: Tensor) -> Expected:
    """Logits, fallbacks and sizes of the plain forward of a model that nothing else touched."""
    logits = ztp_search.apply(model, config)(x)
    return logits, list(pruner_of(model).fallbacks), pruner_of(model).sizes


def assert_same(cache: ActivationCache, pruner: Pruner, config: Any, expected: Expected) -> None:
    logits, fallbacks, sizes = expected
    got = cache.logits(config)
    assert got.dtype == logits.dtype and torch.equal(got, logits), config
    assert len(pruner.fallbacks) == len(fallbacks), config
    for mine, plain in zip(pruner.fallbacks, fallbacks, strict=True):
        assert torch.equal(mine, plain), config
    assert (pruner.sizes is None) == (sizes is None), config
    if pruner.sizes is not None and sizes is not None:
        assert torch.equal(pruner.sizes, sizes), config


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_configurations_through_one_cache_equal_each_on_its_own(
    name: str, dtype: torch.dtype
) -> None:
    rng = random.Random(f"{name} {dtype}")
    model, plain = make(name, dtype), make(name, dtype)
    pruner = pruner_of(model)
    configs = configs_for(pruner.geometry, rng)
    x = images_for(model)
    expected = {config: on_its_own(plain, config, x) for config in configs}
    assert len({tuple(logits.flatten().tolist()) for logits, *_ in expected.values()}) > 5
    assert len({None if sizes is None else sizes.shape for *_, sizes in expected.values()}) > 2
    cache = ActivationCache(pruner, x)
    for config in [*configs, *reversed(configs), *rng.sample(configs, len(configs))]:
        assert_same(cache, pruner, config, expected[config])


def test_fallbacks_were_seen_of_all_some_and_no_images() -> None:
    shares = set()
    for name in MODELS:
        model = make(name)
        pruner, cache = pruner_of(model), ActivationCache(pruner_of(model), images_for(model))
        for config in configs_for(pruner.geometry, random.Random(f"{name} torch.float32")):
            cache.logits(config)
            shares |= {float(fallback.float().mean()) for fallback in pruner.fallbacks}
    assert {0.0, 1.0} < shares


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))))
@pytest.mark.parametrize("name", ["class token", "qk norm", "norm after attention"])
def test_shallow_after_deep_and_deep_after_shallow_are_the_same(
    name: str, order: tuple[int, ...]
) -> None:
    model, plain = make(name), make(name)
    x = images_for(model)
    cache = ActivationCache(pruner_of(model), x)
    for block in (*order, *order):
        for config in (
            after(block, s_tokens=0), after(block, s_tokens=2), after(block, s_tokens=0),
            unseen(block), after(block, "x"), unseen(block, "x"), unseen(block, "value"),
        ):  # fmt: skip
            assert_same(cache, pruner_of(model), config, on_its_own(plain, config, x))


@pytest.mark.parametrize("first", CHOICES["features"])
@pytest.mark.parametrize("name", ["class token", "qk norm"])
def test_what_is_seen_does_not_depend_on_what_was_looked_at_before(name: str, first: str) -> None:
    model, plain = make(name), make(name)
    x = images_for(model)
    configs = [
        after(2, first, s_tokens=0), after(2, first),
        *(config for features in CHOICES["features"]
          for config in (unseen(2, features), after(2, features))),
        after(2, s_tokens=0),
    ]  # fmt: skip
    expected = [on_its_own(plain, config, x) for config in configs]
    for order in (1, -1):
        cache = ActivationCache(pruner_of(model), x)
        for config, alone in list(zip(configs, expected, strict=True))[::order]:
            assert_same(cache, pruner_of(model), config, alone)


def test_batches_on_their_way_at_the_same_time_do_not_mix() -> None:
    model, plain = make("class token"), make("class token")
    x, y = images_for(model, 7).split([3, 4])
    first, second = ActivationCache(pruner_of(model), x), ActivationCache(pruner_of(model), y)
    merged = replace(after(2), similar="merge", sizes="track")
    for config in (after(2), None, merged, after(1, "x"), unseen(1), after(2), merged):
        assert_same(first, pruner_of(model), config, on_its_own(plain, config, x))
        assert_same(second, pruner_of(model), config, on_its_own(plain, config, y))


# --- what is run ----------------------------------------------------------------------------


def runs_of(model: VisionTransformer) -> collections.Counter[tuple[int, bool]]:
    """How often each block was run on all tokens: (number, whether its attention was fused)."""
    runs: collections.Counter[tuple[int, bool]] = collections.Counter()

    def count(number: int, block: Any, tokens: int) -> None:
        if tokens == model.num_prefix_tokens + model.patch_embed.num_patches:
            runs[number, block.attn.fused_attn] += 1

    for number, block in enumerate(model.blocks, start=1):
        block.register_forward_hook(
            lambda block, inputs, _output, number=number: count(number, block, inputs[0].shape[1])
        )
    return runs


def test_a_stock_block_is_run_once_however_many_configurations_come() -> None:
    model = make("odd grid, more blocks")
    runs = runs_of(model)
    cache = ActivationCache(pruner_of(model), images_for(model))

    def run(*blocks: int) -> None:
        for block, retention in itertools.product(blocks, (0.8, 0.5, 0.3)):
            cache.logits(PruningConfig((PruningLayer(block, retention, 2, 3),)))

    run(3)  # blocks 1 and 2 are stock, and 3 shows its attention
    assert runs == {(1, True): 1, (2, True): 1, (3, False): 1}
    run(2, 3)  # block 2 now shows its own, once
    assert runs == {(1, True): 1, (2, True): 1, (3, False): 1, (2, False): 1}
    run(5, 3, 2, 5, 1)  # 3 and 4 are stock, too; 5 and 1 show theirs
    stock, shown = (1, 2, 3, 4), (1, 2, 3, 5)
    assert runs == {**{(b, True): 1 for b in stock}, **{(b, False): 1 for b in shown}}


def test_a_layer_that_looks_at_no_attention_has_its_block_run_fused() -> None:
    model = make("odd grid, more blocks")
    runs = runs_of(model)
    cache = ActivationCache(pruner_of(model), images_for(model))
    for s_tokens in (4, 7, 10):
        cache.logits(unseen(3, s_tokens=s_tokens))
    assert runs == {(1, True): 1, (2, True): 1, (3, True): 1}
    cache.logits(after(3))
    assert runs == {(1, True): 1, (2, True): 1, (3, True): 1, (3, False): 1}


def test_features_are_not_looked_at_again_for_those_who_need_none() -> None:
    model = make("odd grid, more blocks")
    runs = runs_of(model)
    cache = ActivationCache(pruner_of(model), images_for(model))
    for config in (after(2), after(2, s_tokens=0), after(2, "x"), after(2)):
        cache.logits(config)
    assert runs == {(1, True): 1, (2, False): 1}


def test_the_stem_is_run_once_and_a_batch_of_its_own_for_each_batch() -> None:
    model = make("class token")
    stems: list[int] = []
    model.patch_embed.register_forward_hook(lambda *_: stems.append(1))
    for batches in (1, 2):
        cache = ActivationCache(pruner_of(model), images_for(model))
        for config in (after(3), after(1), after(2), after(2, "x"), after(3, "query")):
            cache.logits(config)
        assert len(stems) == batches


# --- what is kept ---------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_nbytes_grows_by_what_is_kept(dtype: torch.dtype, size: int) -> None:
    model = make("class token", dtype)  # 16 patch tokens and a class token of 48 numbers, 3 heads
    cache = ActivationCache(pruner_of(model), images_for(model, 5))
    tokens = 5 * 17 * 48 * size  # a block's input or output, and the keys of all heads
    attention = 5 * 3 * 17 * 17 * size
    expected = 5 * 3 * 32 * 32 * size
    assert cache.nbytes == expected
    for config, more in [
        (None, 0),
        (PruningConfig((NOTHING,)), 0),
        (after(2), 4 * tokens + attention),  # inputs of blocks 1 and 2, output and keys of 2
        (after(2), 0),
        (after(2, s_tokens=0), 0),
        (after(1), 2 * tokens + attention),  # the input is there
        (after(3, "x"), 2 * tokens + attention),  # input and output of 3, which are the features
        (after(3, s_tokens=0), 0),
        (after(3, "value"), tokens),  # the values, and all that was there
        (after(3, "x"), 0),
        (after(3, s_tokens=0), 0),
        (after(3, "key"), 2 * tokens + attention),
        (after(2), 0),
        (unseen(2, "x"), tokens),  # the output of block 2 as it is where attention stays fused
        (unseen(2), tokens),  # the keys as well
        (unseen(2, "x"), 0),
        (unseen(2), 0),
        (replace(after(2), similar="merge", sizes="track"), 0),
    ]:
        cache.logits(config)
        expected += more
        assert cache.nbytes == expected, config


@pytest.mark.parametrize("features", CHOICES["features"])
@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_kept_that_nbytes_does_not_count(name: str, features: str) -> None:
    model = make(name)
    cache = ActivationCache(pruner_of(model), images_for(model))
    for block in (2, 1, 3):
        for config in (
            after(block, s_tokens=0), unseen(block, "x"), after(block, features),
            unseen(block, features), after(block, "key"), unseen(block, "value"),
        ):  # fmt: skip
            cache.logits(config)
            assert sum(storages(cache).values()) == cache.nbytes


def storages(cache: ActivationCache) -> dict[int, int]:
    """Bytes of all memory that a cache holds on to, by address: a view holds on to the whole."""
    seen = [(each.tokens, each.attention, each.features) for each in cache._observations.values()]
    tensors = [cache._images, *cache._outputs, *itertools.chain(*seen)]
    blocks = [each.untyped_storage() for each in tensors if each is not None]
    return {block.data_ptr(): block.nbytes() for block in blocks}


# --- what is left behind --------------------------------------------------------------------


def hooks(model: nn.Module) -> Iterator[Any]:
    for module in model.modules():
        yield from (*module._forward_hooks.values(), *module._forward_pre_hooks.values())


@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_stock_again_afterwards(name: str) -> None:
    model, plain = make(name), make(name)
    x = images_for(model)
    cache = ActivationCache(pruner_of(model), x)
    merged = replace(after(1, "value"), similar="merge", sizes="track")
    for config in (after(2), merged, unseen(2), after(3, "query")):
        cache.logits(config)
        assert torch.equal(model(x), on_its_own(plain, config, x)[0])  # as `apply` would
    pruner_of(model).set(None)
    assert not list(hooks(model))
    assert all(block.attn.fused_attn for block in model.blocks)
    assert torch.equal(model(x), make(name)(x))


def test_a_forward_that_fails_leaves_no_trace() -> None:
    model, plain = make("class token"), make("class token")
    x = images_for(model)
    pruner = pruner_of(model)
    with pytest.raises(AssertionError, match="height"):  # in the stem
        ActivationCache(pruner, x[..., :16, :16]).logits(after(2))
    before = len(list(hooks(model)))
    cache = ActivationCache(pruner, x)
    breaking = model.blocks[1].mlp.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # in the block that shows its attention
        cache.logits(after(2))
    breaking.remove()
    assert len(list(hooks(model))) == before
    assert torch.equal(model(x), on_its_own(plain, after(2), x)[0])
    for config in (after(2), after(3)):
        assert torch.equal(ztp_search.apply(model, config)(x), on_its_own(plain, config, x)[0])
        assert_same(cache, pruner, config, on_its_own(plain, config, x))


def test_a_configuration_that_does_not_fit_is_refused_and_the_next_one_is_not() -> None:
    model, plain = make("class token"), make("class token")
    x = images_for(model)
    cache = ActivationCache(pruner_of(model), x)
    cache.logits(after(2))
    nbytes = cache.nbytes
    with pytest.raises(ConfigError, match="after_block=4"):
        cache.logits(PruningConfig((PruningLayer(4, 0.5),)))
    assert cache.nbytes == nbytes
    for config in (after(2), after(1)):
        assert_same(cache, pruner_of(model), config, on_its_own(plain, config, x))
