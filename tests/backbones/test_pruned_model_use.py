"""Using pruned models: recorded tokens, copies, other configurations, what is refused."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from helpers.backbone_examples import MERGED, REFUSED, UNSEEN, Refused
from helpers.small_vits import MODELS, TWO_LAYERS, images_for, make, vit

import ztp_search
from ztp_search import backbones
from ztp_search.errors import ConfigError, ModelError
from ztp_search.pruning.config import CHOICES, PruningConfig, PruningLayer
from ztp_search.pruning.tokens import token_counts

CONFIGS = {"dropped": TWO_LAYERS, "merged": MERGED, "by position": UNSEEN}

# --- what is recorded ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["class token", "no class token", "distilled", "registers"])
def test_recorded_tokens_refer_to_the_unpruned_sequence(name: str) -> None:
    model = make(name)
    prefix, patches = model.num_prefix_tokens, model.patch_embed.num_patches
    ztp_search.apply(model, TWO_LAYERS, record_tokens=True)
    model(images_for(model))
    first, second = model.ztp_tokens
    # 16 patch tokens: S prunes 3, I the rest of 16 - round(14.4); of 11, S 2, I 11 - round(6.6)
    for entry, block, after_s, after_i in [(first, 1, 13, 11), (second, 3, 9, 5)]:
        assert entry["after_block"] == block
        assert entry["s"].shape == (3, prefix + after_s)
        assert entry["i"].shape == (3, prefix + after_i)
    for image in range(3):
        everything = set(range(prefix + patches))
        for before, after in [
            (everything, first["s"]), (set(first["s"][image].tolist()), first["i"]),
            (set(first["i"][image].tolist()), second["s"]),
            (set(second["s"][image].tolist()), second["i"]),
        ]:  # fmt: skip
            left = after[image].tolist()
            assert left == sorted(left)
            assert set(left) < before
            assert left[:prefix] == list(range(prefix))
    # 5 of 16 patch tokens were at place 5 or later in the shortened sequence of at least one image
    assert second["i"].max() >= prefix + 5


def test_a_layer_that_prunes_nothing_is_recorded_too() -> None:
    model = make("class token")
    dropping = PruningConfig((PruningLayer(1), PruningLayer(2, 0.5), PruningLayer(3)))
    merging = replace(
        dropping, similar="merge", sizes="track",
        layers=tuple(replace(layer, merge_share=1.0) for layer in dropping.layers),
    )  # fmt: skip
    for config, merged in ((dropping, 0), (merging, 8)):
        ztp_search.apply(model, config, record_tokens=True)
        model(images_for(model))
        assert [entry["after_block"] for entry in model.ztp_tokens] == [1, 2, 3]
        assert model.ztp_tokens[0]["i"].tolist() == [list(range(17))] * 3
        assert torch.equal(model.ztp_tokens[2]["i"], model.ztp_tokens[1]["i"])
        assert [entry["merged"].shape[1] for entry in model.ztp_tokens] == [0, merged, 0]


def test_recorded_tokens_are_those_of_the_last_forward_pass() -> None:
    model = ztp_search.apply(make("class token"), TWO_LAYERS, record_tokens=True)
    x = images_for(model)
    model(x)
    before = model.ztp_tokens
    model(x[:1])
    assert len(model.ztp_tokens) == 2
    for old, new in zip(before, model.ztp_tokens, strict=True):
        assert old["i"].shape[0] == 3 and new["i"].shape[0] == 1
        assert torch.equal(old["i"][:1], new["i"])


@pytest.mark.parametrize("order", CHOICES["order"])
def test_importance_is_recorded_of_every_token_that_came_in(order: str) -> None:
    """Tokens that were gone when the others were ranked have none of it."""
    model = make("registers")
    ztp_search.apply(model, replace(TWO_LAYERS, order=order), record_tokens=True)
    model(images_for(model))
    before = torch.arange(21).expand(3, -1)
    for entry in model.ztp_tokens:
        assert entry["importance"].shape == before.shape
        first = entry["s"] if order == "i'-s-i" else before  # what the I-stage ranked
        ranked = (before[:, :, None] == first[:, None]).any(-1)
        assert torch.equal(entry["importance"] > 0, ranked)
        before = entry["layer"]


def test_a_layer_that_ranks_nothing_records_no_importance() -> None:
    model = make("class token")
    layers = (PruningLayer(1), PruningLayer(2, 1.0, 4), PruningLayer(3, 0.5))
    for config, ranks in (
        (replace(UNSEEN, layers=layers), [False, False, True]),
        (PruningConfig(layers), [False, True, True]),
    ):
        ztp_search.apply(model, config, record_tokens=True)
        model(images_for(model))
        recorded = [entry["importance"] is not None for entry in model.ztp_tokens]
        assert recorded == ranks


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("name", MODELS)
def test_the_model_runs_on_the_counts_that_cost_says(name: str, config: PruningConfig) -> None:
    model = make(name)
    expected = token_counts(backbones.geometry_of(model), config)
    ztp_search.apply(model, config)
    seen = []
    hooks = [
        module.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[1]))
        for module in [*(block.mlp for block in model.blocks), model.norm]
    ]
    model(images_for(model))
    for hook in hooks:
        hook.remove()
    assert tuple(seen) == expected


# --- one model after another -----------------------------------------------------------------


def test_another_configuration_replaces_the_one_before() -> None:
    model, fresh = make("class token"), make("class token")
    x = images_for(model)
    one_layer = PruningConfig((PruningLayer(2, 0.5),))
    expected = ztp_search.apply(fresh, one_layer)(x)
    for config in CONFIGS.values():
        ztp_search.apply(model, config)
        model(x)
        ztp_search.apply(model, one_layer)
        assert torch.equal(model(x), expected)


def test_pruning_reads_the_weights_of_the_moment() -> None:
    model = ztp_search.apply(vit().eval(), TWO_LAYERS)
    donor = make("class token")
    model.load_state_dict(donor.state_dict())
    x = images_for(donor)
    assert torch.equal(model(x), ztp_search.apply(donor, TWO_LAYERS)(x))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("name", ["class token", "no class token", "distilled"])
def test_an_image_has_the_same_logits_alone_and_in_a_batch(
    name: str, config: PruningConfig
) -> None:
    model = ztp_search.apply(make(name, torch.float64), config)
    x = images_for(model)
    alone = torch.cat([model(image[None]) for image in x])
    torch.testing.assert_close(alone, model(x), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_run(dtype: torch.dtype) -> None:
    model = make("class token", dtype)
    for two_layers, order in itertools.product((TWO_LAYERS, MERGED), CHOICES["order"]):
        config = replace(two_layers, order=order)
        ztp_search.apply(model, config, record_tokens=True)
        logits = model(images_for(model))
        assert logits.dtype == dtype
        assert logits.isfinite().all()
        assert min(model.ztp_tokens[1][stage].shape[1] for stage in "si") == 1 + 5


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_pruned_model_can_be_fine_tuned(config: PruningConfig) -> None:
    model = make("class token").requires_grad_(True)
    ztp_search.apply(model, config)
    model(images_for(model)).square().sum().backward()
    for block in model.blocks:
        assert block.attn.qkv.weight.grad.abs().sum() > 0


def test_a_model_without_a_classifier_gives_pruned_features() -> None:
    whole, features = make("class token"), vit(num_classes=0).eval()
    weights = {key: value for key, value in whole.state_dict().items() if "head" not in key}
    features.load_state_dict(weights)
    x = images_for(whole)
    assert backbones.geometry_of(features).tail_macs == 0
    pruned = ztp_search.apply(features, TWO_LAYERS)(x)
    assert pruned.shape == (3, 48)
    assert torch.equal(whole.head(pruned), ztp_search.apply(whole, TWO_LAYERS)(x))


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize("refused", REFUSED["vision_transformer"], ids=lambda each: each.names[-1])
def test_other_models_are_refused_by_name(refused: Refused) -> None:
    with pytest.raises(ModelError) as error:
        ztp_search.apply(refused.make(), TWO_LAYERS)
    message = str(error.value)
    assert all(name in message for name in [*refused.names, "VisionTransformer"]), message
    assert "\n" not in message


@pytest.mark.parametrize(
    "layer", [PruningLayer(4, 0.5), PruningLayer(9, 0.5), PruningLayer(1, 1.0, 9)]
)
def test_a_configuration_that_does_not_fit_is_refused_and_changes_nothing(
    layer: PruningLayer,
) -> None:
    model = make("class token")
    x = images_for(model)
    for applied in (None, TWO_LAYERS, MERGED):
        before = ztp_search.apply(model, applied)(x)
        with pytest.raises(ConfigError):
            ztp_search.apply(model, PruningConfig((layer,), similar="merge", sizes="track"))
        assert torch.equal(model(x), before)
