"""Models and weights: from the embedded file, from files of the user's, from the hub's cache."""

import argparse
import json
import pickle

import pytest
import safetensors.torch
import timm
import torch

from ztp_search.backbones import geometry_of
from ztp_search.backbones.loading import build_model, load_model
from ztp_search.backbones.weights import read_state_dict, state_dict_sha256
from ztp_search.cli.arguments import parse_model_kwargs
from ztp_search.errors import ModelError
from ztp_search.settings import ModelSpec

NAME = "vit_tiny_patch16_224"
KWARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 12, "depth": 2, "in_chans": 1}
CLASSES = 5


def build(**changes):
    return timm.create_model(NAME, **(KWARGS | {"num_classes": CLASSES} | changes))


@pytest.fixture(scope="module")
def tensors():
    torch.manual_seed(0)
    return {key: torch.randn_like(value) for key, value in build().state_dict().items()}


def spec(weights, **changes):
    return ModelSpec(**({"name": NAME, "kwargs": KWARGS, "weights": str(weights),
                         "num_classes": CLASSES} | changes))  # fmt: skip


def saved(tmp_path, content, name="weights.pth"):
    path = tmp_path / name
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path)
    return path


def holds(loaded, tensors):
    state = loaded.model.state_dict()
    return state.keys() == tensors.keys() and all(torch.equal(state[k], tensors[k]) for k in state)


# Weights of the user's


@pytest.mark.parametrize(
    "wrap",
    [
        lambda t: t,
        lambda t: {"model": t},
        lambda t: {"state_dict": t, "epoch": 3, "args": argparse.Namespace(lr=0.1)},
        lambda t: {"state_dict": {k: v + 1 for k, v in t.items()}, "state_dict_ema": t},
        lambda t: {"model": {k: v + 1 for k, v in t.items()}, "model_ema": t},
        lambda t: {"module." + k: v for k, v in t.items()},
        lambda t: {"state_dict": {"module._orig_mod." + k: v for k, v in t.items()}},
        lambda t: {"state_dict": t, "state_dict_ema": None},
    ],
)
def test_a_state_dict_is_found_in_what_training_scripts_save(tmp_path, tensors, wrap):
    assert holds(load_model(spec(saved(tmp_path, wrap(tensors)))), tensors)


def test_safetensors_and_pth_of_the_same_tensors_are_the_same_weights(tmp_path, tensors):
    one = load_model(spec(saved(tmp_path, tensors)))
    two = load_model(spec(saved(tmp_path, tensors, "weights.safetensors")))
    assert holds(one, tensors) and holds(two, tensors)
    assert one.weights_sha256 == two.weights_sha256 == state_dict_sha256(tensors)


def test_a_loaded_model_is_ready_for_evaluation(tmp_path, tensors):
    half = {key: value.half() for key, value in tensors.items()}
    loaded = load_model(spec(saved(tmp_path, half)))
    assert not any(module.training for module in loaded.model.modules())
    for parameter in loaded.model.parameters():
        assert parameter.dtype == torch.float32 and not parameter.requires_grad
        assert parameter.device.type == "cpu"
    assert loaded.model(torch.zeros(2, 1, 32, 32)).shape == (2, CLASSES)


def test_the_hash_follows_names_shapes_types_and_values():
    base = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0)}
    digest = state_dict_sha256(base)
    assert digest == state_dict_sha256(dict(reversed(base.items())))
    for changes in (
        {"a": torch.tensor([1.0, 2.5])},
        {"a": torch.tensor([[1.0, 2.0]])},
        {"a": torch.tensor([1.0, 2.0]).view(torch.int32)},
        {"c": torch.tensor(0.0)},
    ):
        assert state_dict_sha256(base | changes) != digest
    strided = torch.tensor([[1.0, 3.0], [2.0, 4.0]]).T
    assert state_dict_sha256({"a": strided}) == state_dict_sha256({"a": strided.contiguous()})


def test_missing_unexpected_and_misshapen_tensors_are_named_and_counted(tmp_path, tensors):
    wrong = {key: value for key, value in tensors.items() if not key.startswith("blocks.1.attn")}
    wrong |= {"extra": torch.zeros(1), "head.weight": torch.zeros(7, 12)}
    with pytest.raises(ModelError) as caught:
        load_model(spec(saved(tmp_path, wrong)))
    text = str(caught.value)
    assert "4 missing (blocks.1.attn.qkv.weight, blocks.1.attn.qkv.bias, " in text
    assert "blocks.1.attn.proj.weight, …)" in text and "1 unexpected (extra)" in text
    assert "1 of another shape (head.weight (7, 12) for (5, 12))" in text
    assert "\n" not in text


def test_a_checkpoint_that_runs_code_is_refused_and_does_not_run(tmp_path, tensors):
    trace = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return open, (str(trace), "w")

    for name, save in (("torch.pth", torch.save), ("plain.pkl", None)):
        path = tmp_path / name
        if save:
            save({"state_dict": tensors, "evil": Evil()}, path)
        else:
            path.write_bytes(pickle.dumps(Evil(), protocol=2))
        with pytest.raises(ModelError, match="was not loaded; convert it .*save_file"):
            load_model(spec(path))
        assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.safetensors", b"nothing at all", "cannot be read"),
        ("w.pth", b"nothing at all", "(cannot be read|was not loaded)"),
        ("w.pth", b"", "cannot be read"),
        ("w.pth", [1, 2], "must hold tensors by name, but hold a list"),
        ("w.pth", {}, "must hold tensors by name"),
        ("w.pth", {"model": {"head.bias": 3}}, "'head.bias' is a int"),
    ],
)
def test_a_file_without_tensors_is_refused(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(spec(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match="or one of digits, but there is no file .*/none.pth"):
        load_model(spec(tmp_path / "none.pth"))


def test_the_embedded_weights_are_read():
    embedded = read_state_dict("digits")
    assert embedded and all(isinstance(value, torch.Tensor) for value in embedded.values())


# The model


def test_an_unknown_name_is_refused_with_close_ones():
    with pytest.raises(ModelError, match="'deit_smal_patch16_224'; did you mean deit_small_p"):
        load_model(ModelSpec("deit_smal_patch16_224"))
    with pytest.raises(ModelError, match="did you mean vit_tiny_patch16_224.augreg_in21k"):
        load_model(ModelSpec("vit_tiny_patch16_224.augre"))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"image_size": 32}, "image_size=32.*unexpected keyword argument"),
        ({"depth": "two"}, "depth='two'"),
        ({"pretrained": True}, "must not hold pretrained; give a file as `weights`"),
        ({"num_classes": 7}, "`num_classes` 5 contradicts num_classes=7"),
    ],
)
def test_arguments_that_the_model_does_not_take_are_refused(tmp_path, kwargs, message):
    with pytest.raises(ModelError, match=message) as caught:
        load_model(spec(tmp_path / "none.pth", kwargs=kwargs))
    assert "\n" not in str(caught.value)


NO_CLASSIFIER = "must have a classifier to be searched or evaluated, but .* has none; give"


@pytest.mark.parametrize(
    "name",
    ["vit_small_patch14_dinov2", "vit_small_patch14_dinov2.lvd142m", "vit_base_patch16_224.mae"],
)
def test_a_model_without_a_classifier_is_refused_before_anything_is_downloaded(name, cache):
    with pytest.raises(ModelError, match=NO_CLASSIFIER) as caught:
        load_model(ModelSpec(name))
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_a_classifier_that_the_pretrained_weights_lack_is_refused(cache):
    message = "have no classifier, but `num_classes` is 10, which would leave"
    for given in ({"num_classes": 10}, {"kwargs": {"num_classes": 10}}):
        with pytest.raises(ModelError, match=message):
            load_model(ModelSpec("vit_small_patch14_dinov2", **given))


def test_a_classifier_that_was_taken_off_is_refused(tmp_path, cache):
    headless = saved(tmp_path, build(num_classes=0).state_dict())
    for given in (
        spec(headless, num_classes=None, kwargs=KWARGS | {"num_classes": 0}),
        spec(headless, num_classes=0),
        ModelSpec(NAME, {"num_classes": 0}),
    ):
        with pytest.raises(ModelError, match=NO_CLASSIFIER):
            load_model(given)


def test_a_model_of_features_gets_a_classifier_by_weights_that_have_one(tmp_path):
    kwargs = {"img_size": 28, "embed_dim": 12, "depth": 2, "num_heads": 3}
    name = "vit_small_patch14_dinov2"
    trained = timm.create_model(name, num_classes=CLASSES, **kwargs).state_dict()
    path = saved(tmp_path, trained)
    loaded = load_model(ModelSpec(name, kwargs, str(path), CLASSES))
    assert holds(loaded, trained)
    with pytest.raises(ModelError, match=NO_CLASSIFIER):
        load_model(ModelSpec(name, kwargs, str(path)))


def test_a_model_without_a_classifier_can_be_built_to_count_what_it_costs():
    model = build_model(ModelSpec("vit_small_patch14_dinov2", {"depth": 2}))
    assert isinstance(model.head, torch.nn.Identity)
    assert geometry_of(model).tail_macs == 0


def test_a_model_of_no_supported_family_is_refused(tmp_path):
    path = saved(tmp_path, timm.create_model("test_convnext").state_dict())
    with pytest.raises(ModelError, match="ConvNeXt is not supported; supported is timm Vision"):
        load_model(ModelSpec("test_convnext", weights=str(path)))


def test_model_kwargs_are_typed_as_timm_types_them():
    items = ["img_size=40", "qk_norm=true", "drop=0.5", "pool=token", "size=(2,3)", "norm=none",
             "flag=False", "text='1'", "path=a=b"]  # fmt: skip
    assert parse_model_kwargs(items) == {
        "img_size": 40, "qk_norm": True, "drop": 0.5, "pool": "token", "size": (2, 3),
        "norm": None, "flag": False, "text": "1", "path": "a=b",
    }  # fmt: skip


@pytest.mark.parametrize("items", [["depth"], ["=3"], ["a b=3"], ["depth=1", "depth=2"], [""]])
def test_malformed_model_kwargs_are_refused(items):
    with pytest.raises(ModelError, match="`model_kwargs` must"):
        parse_model_kwargs(items)


# The data config


def test_the_data_config_is_timms_at_the_models_size_and_channels(tmp_path, tensors):
    config = load_model(spec(saved(tmp_path, tensors))).data_config
    # timm's: mean and std 0.5 in each of three channels, bicubic, crop 0.9, 224 pixels.
    assert config == {"input_size": [1, 32, 32], "mean": [0.5], "std": [0.5],
                      "interpolation": "bicubic", "crop_pct": 0.9, "crop_mode": "center"}
    assert json.loads(json.dumps(config)) == config


def test_overrides_win(tmp_path, tensors):
    overrides = {"mean": [0.25], "std": (0.75,), "interpolation": "bilinear", "crop_pct": 1.0,
                 "crop_mode": "squash", "input_size": [1, 32, 32]}  # fmt: skip
    config = load_model(spec(saved(tmp_path, tensors)), data_overrides=overrides).data_config
    assert config == overrides | {"std": [0.75]}


def test_one_value_stands_for_every_channel(tmp_path):
    model = build(in_chans=3)
    path = saved(tmp_path, model.state_dict())
    loaded = load_model(spec(path, kwargs=KWARGS | {"in_chans": 3}), data_overrides={"mean": [0.1]})
    assert loaded.data_config["mean"] == [0.1, 0.1, 0.1]
    assert loaded.data_config["std"] == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"size": 3}, "data config: unknown key 'size'"),
        ({"mean": [0.1, 0.2]}, "mean must have 1 value"),
        ({"mean": 0.5}, "mean must be a list of numbers"),
        ({"mean": []}, "mean must be a list of numbers"),
        ({"std": [0.0]}, "std must be above 0"),
        ({"mean": [float("nan")]}, "mean must be a list of numbers"),
        ({"interpolation": "random"}, "interpolation must be one of nearest, bilinear"),
        ({"crop_mode": "left"}, "crop_mode must be one of center, squash, border"),
        ({"crop_pct": 0}, "0 < crop_pct <= 1 must hold, but got 0"),
        ({"input_size": [1, 40, 40]}, r"input_size must be \[1, 32, 32\]"),
        ({"input_size": [32, 32]}, "input_size must be 3 numbers"),
    ],
)
def test_a_wrong_override_is_refused_by_name(tmp_path, tensors, overrides, message):
    with pytest.raises(ModelError, match=message):
        load_model(spec(saved(tmp_path, tensors)), data_overrides=overrides)


# The hub


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub, and no network."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_without_network_and_cache_one_line_says_what_to_do(cache):
    with pytest.raises(ModelError) as caught:
        load_model(ModelSpec("deit_small_patch16_224"))
    text = str(caught.value)
    assert "\n" not in text
    for part in ("timm/deit_small_patch16_224.fb_in1k/model.safetensors", "as `weights`",
                 "as `data`", "ztp-search --space digits --budget 68%"):  # fmt: skip
        assert part in text


def in_cache(cache, name, files):
    """Lay out `files` as the hub's client caches repository `name`."""
    commit = "0" * 40
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    for file, tensors in files.items():
        safetensors.torch.save_file(tensors, snapshot / file)


def test_cached_pretrained_weights_load_without_network(cache):
    tensors = {k: torch.ones_like(v) for k, v in timm.create_model("test_vit").state_dict().items()}
    in_cache(cache, "timm/test_vit.r160_in1k", {"model.safetensors": tensors})
    fixed_size = {"dynamic_img_size": False}
    loaded = load_model(ModelSpec("test_vit", fixed_size))
    assert holds(loaded, tensors)
    assert loaded.data_config["input_size"] == [3, 160, 160]
    with pytest.raises(ModelError, match="have 1000 classes, but `num_classes` is 10"):
        load_model(ModelSpec("test_vit", fixed_size, num_classes=10))
