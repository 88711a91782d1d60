"""What every family of models must do; one joins by its line in `BACKBONES` and its examples."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from helpers.backbone_examples import EXAMPLES, REFUSED, Make, Refused
from helpers.small_vits import TWO_LAYERS
from torch import Tensor, nn

from ztp_search.backbones import (
    BACKBONES,
    ActivationCache,
    Backbone,
    BlockObservation,
    apply,
    backbone_of,
    fvcore_macs,
    geometry_of,
    pruner_of,
)
from ztp_search.errors import ModelError
from ztp_search.pruning.config import CHOICES, PruningConfig, PruningLayer
from ztp_search.pruning.cost import flops

pytestmark = pytest.mark.filterwarnings("error")
examples = pytest.mark.parametrize(
    ("family", "make"),
    [
        pytest.param(family, make, id=f"{family}-{name}")
        for family, models in EXAMPLES.items()
        for name, make in models.items()
    ],
)


def images_for(backbone: Backbone, images: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn((images, *backbone.input_size), generator=generator)


def opened(make: Make) -> tuple[Any, Backbone, Tensor]:
    model = make()
    backbone = backbone_of(model)
    return model, backbone, images_for(backbone)


def hooks(model: nn.Module) -> int:
    return sum(len(each._forward_hooks) + len(each._forward_pre_hooks) for each in model.modules())


def test_every_family_brings_examples_and_near_misses() -> None:
    assert BACKBONES.keys() == EXAMPLES.keys() == REFUSED.keys()
    assert all(EXAMPLES.values()) and all(REFUSED.values())


# --- which models ----------------------------------------------------------------------------


@examples
def test_a_supported_model_is_found_in_its_family(family: str, make: Make) -> None:
    model, backbone, _ = opened(make)
    assert type(backbone) is BACKBONES[family] and backbone.model is model
    assert BACKBONES[family].supports(model) and BACKBONES[family].refusal(model) is None


@pytest.mark.parametrize(
    ("family", "refused"),
    [
        pytest.param(family, refused, id=f"{family}-{refused.names[-1]}")
        for family, near_misses in REFUSED.items()
        for refused in near_misses
    ],
)
def test_an_unsupported_model_is_refused_by_what_is_in_the_way(
    family: str, refused: Refused
) -> None:
    model = refused.make()
    refusal = BACKBONES[family].refusal(model)
    assert refusal is not None and all(name in refusal for name in refused.names), refusal
    assert not BACKBONES[family].supports(model)
    if any(each.supports(model) for each in BACKBONES.values()):
        return
    for asked in (backbone_of, geometry_of, pruner_of, fvcore_macs):
        with pytest.raises(ModelError) as error:
            asked(model)
        message = str(error.value)
        assert all(name in message for name in refused.names), message
        assert all(each.SUPPORTED in message for each in BACKBONES.values())
        assert "\n" not in message
    assert hooks(model) == 0 and not hasattr(model, "ztp_pruner")


# --- stock stays stock -----------------------------------------------------------------------


@examples
def test_no_configuration_equals_the_stock_model_bit_for_bit(family: str, make: Make) -> None:
    model, _, x = opened(make)
    stock, keys = model(x), list(model.state_dict())
    for nothing in (None, PruningConfig()):
        assert apply(model, nothing) is model
        assert torch.equal(model(x), stock)
        apply(model, TWO_LAYERS)
        assert not torch.equal(model(x), stock)
        assert list(model.state_dict()) == keys
        apply(model, nothing)
        assert torch.equal(model(x), stock) and hooks(model) == 0


@examples
def test_a_model_is_patched_once(family: str, make: Make) -> None:
    model, _, x = opened(make)
    pruner = pruner_of(model)
    apply(model, TWO_LAYERS)
    attached, pruned = hooks(model), model(x)
    apply(model, TWO_LAYERS)
    assert pruner_of(model) is pruner and pruner.model is model
    assert hooks(model) == attached
    assert torch.equal(model(x), pruned)


@examples
@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deepcopy", "pickle"],
)  # fmt: skip
def test_a_copy_of_a_patched_model_stands_on_its_own(family: str, make: Make, copied: Any) -> None:
    model, _, x = opened(make)
    stock = model(x)
    pruned = apply(model, TWO_LAYERS, record_tokens=True)(x)
    twin = copied(model)
    assert pruner_of(twin) is not pruner_of(model) and pruner_of(twin).model is twin
    assert torch.equal(twin(x), pruned)
    twin(x[:1])
    assert model.ztp_tokens[0]["i"].shape[0] == 3 and twin.ztp_tokens[0]["i"].shape[0] == 1
    apply(twin, None)
    assert torch.equal(twin(x), stock) and torch.equal(model(x), pruned)
    apply(model, None)
    assert torch.equal(ActivationCache(pruner_of(twin), x).logits(TWO_LAYERS), pruned)
    assert torch.equal(model(x), stock)


# --- what it costs ---------------------------------------------------------------------------


@examples
def test_geometry_costs_what_fvcore_counts(family: str, make: Make) -> None:
    model, backbone, _ = opened(make)
    geometry = backbone.geometry()
    assert geometry == geometry_of(model)
    last = PruningConfig((PruningLayer(geometry.depth - 1, 0.5, 1, 2),), features="query")
    for config in (PruningConfig(), TWO_LAYERS, last):
        apply(model, config)
        assert fvcore_macs(model) == flops(geometry, config).total, config


@examples
def test_the_example_input_is_one_image_of_the_models_type(family: str, make: Make) -> None:
    model, backbone, _ = opened(make)
    for dtype in (torch.float32, torch.bfloat16):
        image = backbone_of(model.to(dtype)).example_input()
        assert image.shape == (1, *backbone.input_size) and image.dtype == dtype
        assert not image.any()
        assert model(image).shape[0] == 1


@examples
def test_unfused_attention_says_the_same_and_ends(family: str, make: Make) -> None:
    model, backbone, x = opened(make)
    stock = model(x)
    with pytest.raises(ZeroDivisionError), backbone.unfused_attention():
        torch.testing.assert_close(model(x), stock, rtol=1e-4, atol=1e-4)
        raise ZeroDivisionError
    assert torch.equal(model(x), stock)


# --- run in parts ----------------------------------------------------------------------------


@examples
def test_stem_blocks_and_head_equal_the_model_bit_for_bit(family: str, make: Make) -> None:
    model, backbone, x = opened(make)
    geometry, stock = backbone.geometry(), model(x)
    tokens = backbone.stem(x)
    assert tokens.shape == (3, geometry.tokens, geometry.embed_dim)
    for cut in range(geometry.depth + 1):
        y = backbone.run_blocks(tokens, 0, cut)
        assert torch.equal(backbone.head(backbone.run_blocks(y, cut, geometry.depth)), stock)
    assert hooks(model) == 0


@examples
def test_an_observation_is_the_blocks_output_and_its_attention(family: str, make: Make) -> None:
    model, backbone, x = opened(make)
    geometry, stock = backbone.geometry(), model(x)
    n = geometry.tokens
    for block in range(1, geometry.depth + 1):
        before = backbone.run_blocks(backbone.stem(x), 0, block - 1)
        with backbone.unfused_attention():
            output = backbone.run_blocks(before, block - 1, block)
        for features in (None, *CHOICES["features"]):
            seen = backbone.observe(block, before, features)
            assert torch.equal(seen.tokens, output)
            assert seen.attention.shape == (3, geometry.heads, n, n)
            assert seen.attention.min() >= 0
            sums = seen.attention.sum(-1)
            torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-5)
            if features is None:
                assert seen.features is None
            elif features == "x":
                assert seen.features is seen.tokens
            else:
                assert seen.features is not None
                assert seen.features.shape == (3, n, geometry.attn_dim)
    assert hooks(model) == 0
    assert torch.equal(model(x), stock)


@examples
def test_an_observation_holds_on_to_no_more_than_its_bytes(family: str, make: Make) -> None:
    model, backbone, x = opened(make)
    for features in (None, *CHOICES["features"]):
        seen = backbone.observe(1, backbone.stem(x), features)
        tensors = [seen.tokens, seen.attention, *([] if features is None else [seen.features])]
        storages = [each.untyped_storage() for each in tensors if each is not None]
        held = {storage.data_ptr(): storage.nbytes() for storage in storages}
        assert sum(held.values()) == seen.nbytes


@examples
def test_what_is_attached_does_not_show_in_the_parts(family: str, make: Make) -> None:
    model, stock, x = opened(make)
    backbone = pruner_of(model).backbone
    before = backbone.run_blocks(stock.stem(x), 0, 2)
    expected = stock.observe(3, before, "key")
    pruned = apply(model, TWO_LAYERS)(x)
    pruner_of(model).begin()
    assert torch.equal(backbone.stem(x), stock.stem(x))
    seen = backbone.observe(3, before, "key")
    assert pruner_of(model).fallbacks == []
    assert torch.equal(seen.tokens, expected.tokens)
    assert torch.equal(seen.attention, expected.attention)
    assert seen.features is not None and expected.features is not None
    assert torch.equal(seen.features, expected.features)
    assert torch.equal(model(x), pruned)


@examples
def test_configurations_that_share_blocks_equal_each_on_its_own(family: str, make: Make) -> None:
    (model, _, x), plain = opened(make), make()
    cache = ActivationCache(pruner_of(model), x)
    later = PruningConfig((PruningLayer(2, 0.7, 2, 3), PruningLayer(3, 0.5, 1, 1)))
    for config in (later, TWO_LAYERS, None, later):
        assert torch.equal(cache.logits(config), apply(plain, config)(x))


# --- reducing its tokens ---------------------------------------------------------------------


@examples
def test_selected_tokens_are_those_kept_and_in_their_order(family: str, make: Make) -> None:
    _, backbone, images = opened(make)
    backbone.begin_forward()
    x = backbone.run_blocks(backbone.stem(images), 0, 1)
    prefix = list(range(backbone.geometry().prefix_tokens))
    kept = [[*prefix, *(len(prefix) + token for token in own)]
            for own in ([0, 1, 2, 3], [1, 4, 7, 15], [0, 5, 6, 12])]  # fmt: skip
    selected = backbone.select(x, torch.tensor(kept))
    for image, own in enumerate(kept):
        assert torch.equal(selected[image], x[image, own])


class HalvesTokens:
    """Keeps the first half of the tokens that leave a block, and what it was shown."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self.seen: list[BlockObservation] = []

    def __call__(self, observation: BlockObservation) -> Tensor:
        self.seen.append(observation)
        images, n, _ = observation.tokens.shape
        return self.backbone.select(observation.tokens, torch.arange(n // 2).expand(images, -1))


@examples
@pytest.mark.parametrize("features", [None, *CHOICES["features"]])
def test_a_blocks_output_is_replaced_by_what_is_made_of_its_observation(
    family: str, make: Make, features: str | None
) -> None:
    model, backbone, x = opened(make)
    geometry, stock = backbone.geometry(), model(x)
    expected = backbone.observe(2, backbone.run_blocks(backbone.stem(x), 0, 1), features)
    reduce, inputs = HalvesTokens(backbone), []
    handles = [
        backbone.reduce_after(2, reduce, features),
        *(backbone.before_block(b, inputs.append) for b in range(1, geometry.depth + 1)),
    ]
    logits = model(x)
    for handle in handles:
        handle.remove()
    assert logits.shape == stock.shape and not torch.equal(logits, stock)
    counts = [geometry.tokens] * 2 + [geometry.tokens // 2] * (geometry.depth - 2)
    assert [each.shape[1] for each in inputs] == counts
    (seen,) = reduce.seen
    assert torch.equal(seen.tokens, expected.tokens)
    assert torch.equal(seen.attention, expected.attention)
    assert (seen.features is None) == (features is None)
    if seen.features is not None and expected.features is not None:
        assert torch.equal(seen.features, expected.features)
    assert hooks(model) == 0
    assert torch.equal(model(x), stock)
