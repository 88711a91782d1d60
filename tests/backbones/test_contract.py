"""What every family of models must do; one joins by its line in `BACKBONES` and its examples."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from helpers.backbone_examples import EXAMPLES, MERGED, REFUSED, UNSEEN, Make, Refused
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
from ztp_search.pruning.methods import Sight

pytestmark = pytest.mark.filterwarnings("error")
examples = pytest.mark.parametrize(
    ("family", "make"),
    [
        pytest.param(family, make, id=f"{family}-{name}")
        for family, models in EXAMPLES.items()
        for name, make in models.items()
    ],
)


SIGHTS = [
    Sight(attention, features)
    for attention in (True, False)
    for features in (None, *CHOICES["features"])
]
copies = pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))],
    ids=["deepcopy", "pickle"],
)  # fmt: skip


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
        for config in (TWO_LAYERS, MERGED, UNSEEN):
            apply(model, config)
            assert not torch.equal(model(x), stock)
            assert list(model.state_dict()) == keys
            apply(model, nothing)
            assert torch.equal(model(x), stock) and hooks(model) == 0


@examples
def test_a_model_is_patched_once(family: str, make: Make) -> None:
    model, _, x = opened(make)
    pruner = pruner_of(model)
    for config in (TWO_LAYERS, MERGED, UNSEEN):
        apply(model, config)
        attached, pruned = hooks(model), model(x)
        apply(model, config)
        assert pruner_of(model) is pruner and pruner.model is model
        assert hooks(model) == attached
        assert torch.equal(model(x), pruned)


@examples
@copies
@pytest.mark.parametrize("config", [TWO_LAYERS, MERGED], ids=["dropped", "merged"])
def test_a_copy_of_a_patched_model_stands_on_its_own(
    family: str, make: Make, copied: Any, config: PruningConfig
) -> None:
    model, _, x = opened(make)
    stock = model(x)
    pruned = apply(model, config, record_tokens=True)(x)
    twin = copied(model)
    assert pruner_of(twin) is not pruner_of(model) and pruner_of(twin).model is twin
    assert torch.equal(twin(x), pruned)
    twin(x[:1])
    assert model.ztp_tokens[0]["i"].shape[0] == 3 and twin.ztp_tokens[0]["i"].shape[0] == 1
    apply(twin, None)
    assert torch.equal(twin(x), stock) and torch.equal(model(x), pruned)
    apply(model, None)
    assert torch.equal(ActivationCache(pruner_of(twin), x).logits(config), pruned)
    assert torch.equal(model(x), stock)


# --- where its tokens are -------------------------------------------------------------------


@examples
def test_patch_tokens_are_those_of_its_patches_row_by_row(family: str, make: Make) -> None:
    _, backbone, x = opened(make)
    geometry, (height, width) = backbone.geometry(), backbone.patch_size
    rows, columns = backbone.input_size[1] // height, backbone.input_size[2] // width
    assert rows * columns == geometry.patch_tokens
    before = backbone.stem(x[:1])
    for row, column in ((0, 1), (rows - 1, 0)):
        changed = x[:1].clone()
        changed[..., row * height : (row + 1) * height, column * width : (column + 1) * width] += 1
        differs = (backbone.stem(changed) != before).any(-1)[0].nonzero().flatten().tolist()
        assert differs == [geometry.prefix_tokens + row * columns + column]


# --- what it costs ---------------------------------------------------------------------------


@examples
def test_geometry_costs_what_fvcore_counts(family: str, make: Make) -> None:
    model, backbone, _ = opened(make)
    geometry = backbone.geometry()
    assert geometry == geometry_of(model)
    last = PruningConfig((PruningLayer(geometry.depth - 1, 0.5, 1, 2),), features="query")
    for config in (PruningConfig(), TWO_LAYERS, last, MERGED, UNSEEN):
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
        stock_output = backbone.run_blocks(before, block - 1, block)
        for sight in SIGHTS:
            seen = backbone.observe(block, before, sight)
            if sight.attention:
                assert torch.equal(seen.tokens, output)
                assert seen.attention is not None
                assert seen.attention.shape == (3, geometry.heads, n, n)
                assert seen.attention.min() >= 0
                sums = seen.attention.sum(-1)
                torch.testing.assert_close(sums, torch.ones_like(sums), rtol=0, atol=1e-5)
            else:
                assert torch.equal(seen.tokens, stock_output)
                assert seen.attention is None
            if sight.features is None:
                assert seen.features is None
            elif sight.features == "x":
                assert seen.features is seen.tokens
            else:
                assert seen.features is not None
                assert seen.features.shape == (3, n, geometry.attn_dim)
    assert hooks(model) == 0
    assert torch.equal(model(x), stock)


@examples
def test_an_observation_holds_on_to_no_more_than_its_bytes(family: str, make: Make) -> None:
    model, backbone, x = opened(make)
    for sight in SIGHTS:
        seen = backbone.observe(1, backbone.stem(x), sight)
        tensors = [seen.tokens, seen.attention, seen.features]
        storages = [each.untyped_storage() for each in tensors if each is not None]
        held = {storage.data_ptr(): storage.nbytes() for storage in storages}
        assert sum(held.values()) == seen.nbytes


@examples
def test_what_is_attached_does_not_show_in_the_parts(family: str, make: Make) -> None:
    model, stock, x = opened(make)
    backbone = pruner_of(model).backbone
    before = backbone.run_blocks(stock.stem(x), 0, 2)
    expected = [stock.observe(3, before, sight) for sight in SIGHTS]
    for config in (TWO_LAYERS, MERGED, UNSEEN):
        pruned = apply(model, config)(x)
        pruner_of(model).begin()
        assert torch.equal(backbone.stem(x), stock.stem(x))
        for sight, stock_seen in zip(SIGHTS, expected, strict=True):
            seen = backbone.observe(3, before, sight)
            assert pruner_of(model).fallbacks == [] and pruner_of(model).sizes is None
            assert_same(seen, stock_seen)
        assert torch.equal(model(x), pruned)


@examples
def test_configurations_that_share_blocks_equal_each_on_its_own(family: str, make: Make) -> None:
    (model, _, x), plain = opened(make), make()
    cache = ActivationCache(pruner_of(model), x)
    later = PruningConfig((PruningLayer(2, 0.7, 2, 3), PruningLayer(3, 0.5, 1, 1)))
    for config in (later, TWO_LAYERS, MERGED, UNSEEN, None, MERGED, later, UNSEEN):
        assert torch.equal(cache.logits(config), apply(plain, config)(x))


def assert_same(seen: BlockObservation, expected: BlockObservation) -> None:
    """To the bit."""
    assert torch.equal(seen.tokens, expected.tokens)
    for mine, other in [
        (seen.attention, expected.attention), (seen.features, expected.features)
    ]:  # fmt: skip
        assert (mine is None) == (other is None)
        if mine is not None and other is not None:
            assert torch.equal(mine, other)


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
@pytest.mark.parametrize("sight", SIGHTS, ids=str)
def test_a_blocks_output_is_replaced_by_what_is_made_of_its_observation(
    family: str, make: Make, sight: Sight
) -> None:
    model, backbone, x = opened(make)
    geometry, stock = backbone.geometry(), model(x)
    expected = backbone.observe(2, backbone.run_blocks(backbone.stem(x), 0, 1), sight)
    reduce, inputs = HalvesTokens(backbone), []
    handles = [
        backbone.reduce_after(2, reduce, sight),
        *(backbone.before_block(b, inputs.append) for b in range(1, geometry.depth + 1)),
    ]
    logits = model(x)
    for handle in handles:
        handle.remove()
    assert logits.shape == stock.shape and not torch.equal(logits, stock)
    counts = [geometry.tokens] * 2 + [geometry.tokens // 2] * (geometry.depth - 2)
    assert [each.shape[1] for each in inputs] == counts
    (seen,) = reduce.seen
    assert_same(seen, expected)
    assert (seen.attention is None) != sight.attention
    assert (seen.features is None) == (sight.features is None)
    assert hooks(model) == 0
    assert torch.equal(model(x), stock)


# --- attention with a bias -------------------------------------------------------------------


class Row:
    """The same bias at each run of a block, and how often it ran."""

    def __init__(self, bias: Tensor | None) -> None:
        self.bias = bias
        self.runs = 0

    def __call__(self) -> Tensor | None:
        self.runs += 1
        return self.bias


def row_for(backbone: Backbone, images: int = 3) -> Tensor:
    """A bias for each key of each image, (B, 1, 1, N): factors from 1/8 to 8."""
    generator = torch.Generator().manual_seed(2)
    factors = torch.rand((images, 1, 1, backbone.geometry().tokens), generator=generator)
    return (4.0 * factors - 2.0) * torch.tensor(2.0).log()


@examples
def test_a_bias_of_none_changes_nothing_to_the_bit(family: str, make: Make) -> None:
    model, backbone, x = opened(make)
    stock, rows = model(x), [Row(None) for _ in range(backbone.geometry().depth)]
    handles = [backbone.bias_attention(block, row) for block, row in enumerate(rows, start=1)]
    assert torch.equal(model(x), stock)
    assert [row.runs for row in rows] == [1] * len(rows)  # it is asked whenever the block runs
    with backbone.unfused_attention():
        unfused = model(x)
    for handle in handles:
        handle.remove()
    assert hooks(model) == 0
    with backbone.unfused_attention():
        assert torch.equal(model(x), unfused)


@examples
def test_a_bias_lies_on_the_logits_of_all_heads_and_queries(family: str, make: Make) -> None:
    # softmax(l + b) is softmax(l) e^b, its rows made to sum to 1 again
    model, backbone, x = opened(make)
    model.double()
    before = backbone.run_blocks(backbone.stem(x.double()), 0, 1)
    row = row_for(backbone).double()
    plain = backbone.observe(2, before, Sight(True, "key"))
    handle = backbone.bias_attention(2, Row(row))
    biased = backbone.observe(2, before, Sight(True, "key"))
    fused = backbone.observe(2, before, Sight(False, "key"))
    handle.remove()
    assert plain.attention is not None and biased.attention is not None
    weighted = plain.attention * row.exp()
    by_hand = weighted / weighted.sum(-1, keepdim=True)
    torch.testing.assert_close(biased.attention, by_hand, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(fused.tokens, biased.tokens, rtol=1e-10, atol=1e-10)
    assert (biased.tokens - plain.tokens).abs().max() > 1e-3
    for seen in (biased, fused):  # what tokens are compared by knows nothing of it
        assert seen.features is not None and plain.features is not None
        assert torch.equal(seen.features, plain.features)
    again = backbone.observe(2, before, Sight(True, "key"))
    assert_same(again, plain)


@examples
def test_fused_and_unfused_attention_take_the_same_bias(family: str, make: Make) -> None:
    model, backbone, x = opened(make)
    stock, row = model(x), row_for(backbone)
    depth = backbone.geometry().depth
    handles = [backbone.bias_attention(block, Row(row)) for block in range(1, depth + 1)]
    fused = model(x)
    with backbone.unfused_attention():
        torch.testing.assert_close(model(x), fused, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(fused, stock, rtol=1e-3, atol=1e-3)
    for handle in handles:
        handle.remove()
    assert torch.equal(model(x), stock) and hooks(model) == 0


@examples
@pytest.mark.parametrize("sight", [Sight(False, None), Sight(True, None)], ids=["fused", "unfused"])
def test_a_token_with_a_bias_of_minus_infinity_is_seen_by_no_other(
    family: str, make: Make, sight: Sight
) -> None:
    model, backbone, x = opened(make)
    n = backbone.geometry().tokens
    before = backbone.run_blocks(backbone.stem(x), 0, 1)
    row, hidden = torch.zeros(3, 1, 1, n), [n - 1, n // 2, n - 3]  # another one in each image
    changed = before.clone()
    for image, token in enumerate(hidden):
        row[image, ..., token] = -1e4
        changed[image, token] = before[image, token].flip(0) + 1.0
    seen_by_others = (
        backbone.observe(2, changed, sight).tokens - backbone.observe(2, before, sight).tokens
    )
    handle = backbone.bias_attention(2, Row(row))
    there, here = backbone.observe(2, before, sight), backbone.observe(2, changed, sight)
    handle.remove()
    for image, token in enumerate(hidden):
        others = [each for each in range(n) if each != token]
        assert seen_by_others[image, others].abs().max() > 1e-3
        torch.testing.assert_close(here.tokens[image, others], there.tokens[image, others])
        assert not torch.allclose(here.tokens[image, token], there.tokens[image, token])
        for seen in (there, here):
            if seen.attention is not None:
                assert not seen.attention[image, ..., token].any()


@examples
@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
def test_a_bias_is_added_under_bf16_autocast(family: str, make: Make, fused: bool) -> None:
    model, backbone, x = opened(make)
    row = row_for(backbone)
    before = backbone.run_blocks(backbone.stem(x), 0, 1)
    plain = backbone.observe(2, before, Sight(not fused, None)).tokens
    handle = backbone.bias_attention(2, Row(row))
    exact = backbone.observe(2, before, Sight(not fused, None)).tokens
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = backbone.observe(2, before, Sight(not fused, None)).tokens
    handle.remove()
    error, effect = (rough - exact).abs().mean(), (exact - plain).abs().mean()
    assert error < 0.3 * effect, (error, effect)


@examples
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_bias_is_added_in_half_precision(family: str, make: Make, dtype: torch.dtype) -> None:
    model, backbone, x = opened(make)
    model.to(dtype)
    handle = backbone.bias_attention(2, Row(row_for(backbone)))  # float32
    fused = model(x.to(dtype))
    with backbone.unfused_attention():
        unfused = model(x.to(dtype))
    handle.remove()
    assert fused.dtype == unfused.dtype == dtype
    assert fused.isfinite().all() and unfused.isfinite().all()


@examples
def test_a_biased_block_whose_tokens_are_reduced_does_both(family: str, make: Make) -> None:
    model, backbone, x = opened(make)
    sight = Sight(True, "key")
    before = backbone.run_blocks(backbone.stem(x), 0, 1)
    reduce, row = HalvesTokens(backbone), row_for(backbone)
    handles = [backbone.bias_attention(2, Row(row)), backbone.reduce_after(2, reduce, sight)]
    expected = backbone.observe(2, before, sight)
    model(x)
    for handle in reversed(handles):
        handle.remove()
    (seen,) = reduce.seen
    assert_same(seen, expected)
    assert not torch.equal(seen.tokens, backbone.observe(2, before, sight).tokens)
    assert hooks(model) == 0


@examples
@copies
def test_a_bias_goes_along_with_a_copy(family: str, make: Make, copied: Any) -> None:
    model, backbone, x = opened(make)
    stock = model(x)
    row = Row(row_for(backbone))
    handle = backbone.bias_attention(2, row)
    biased = model(x)
    twin = copied(model)
    handle.remove()
    row.bias = None
    assert torch.equal(model(x), stock)
    assert torch.equal(twin(x), biased) and not torch.equal(biased, stock)
