"""Exports, in the tools that receive them: the same predictions on 512 images."""

from __future__ import annotations

import copy
import csv
import dataclasses
import functools
import json
import logging
import subprocess
import sys
import types
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import timm
import torch
from conftest import Finished
from helpers.running import HAND_SET, stored, url_of
from torch import nn

import ztp_search
from ztp_search import ModelSettings, PruningConfig, PruningLayer, SearchSettings, apply
from ztp_search.backbones import geometry_of
from ztp_search.backbones.loading import LoadedModel, load_model
from ztp_search.cli.main import main
from ztp_search.driver.evaluator import decode_images
from ztp_search.driver.progress import Progress
from ztp_search.pruning.config import CHOICES
from ztp_search.pruning.config_file import ConfigFile, read_config_file
from ztp_search.pruning.tokens import token_counts
from ztp_search.results.exporters import EXPORTERS, Exported, TextExporter, load_exporter
from ztp_search.settings import resolve_search

IMAGES = 512
MODELS = ("onnx", "torch-export", "huggingface")
Logits = npt.NDArray[np.float32]

LAYERS = (PruningLayer(2, 0.9, 5, 3, 0.5), PruningLayer(4, 0.7, 0, 9), PruningLayer(6, 1.0, 6))
CONFIGS = {
    "dropping": PruningConfig(LAYERS[:1] + LAYERS[1:2]),
    "merging": PruningConfig(LAYERS, similar="merge", sizes="track", features="x"),
    "pruning first": PruningConfig(LAYERS, order="i-s", similar="merge", aggregation="max"),
    "tome": PruningConfig(
        tuple(PruningLayer(block, s_tokens=9) for block in range(1, 8)), similar="merge",
        sizes="track", partition="position",
    ),
    "nothing": PruningConfig(),
}  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """As the embedded model takes them, (512, 1, 40, 40)."""
    settings = SearchSettings(
        space="digits", budget="68%", images=IMAGES, holdout=0, out=tmp_path_factory.mktemp("x")
    )
    pixels = decode_images(resolve_search(settings).sources, loaded(), Progress()).search.images
    return (torch.from_numpy(np.array(pixels)).float() / 255 - 0.5) / 0.5


@functools.cache
def loaded() -> LoadedModel:
    sources = resolve_search(SearchSettings(space="digits", budget="68%")).sources
    return load_model(sources.model, data_overrides=sources.data_overrides)


def embedded() -> LoadedModel:
    """One that may be changed."""
    return dataclasses.replace(loaded(), model=copy.deepcopy(loaded().model))


def file_of(config: PruningConfig) -> ConfigFile:
    spec = resolve_search(SearchSettings(space="digits", budget="68%")).sources.model
    return ConfigFile(
        config,
        {"name": spec.name, "kwargs": dict(spec.kwargs), "weights": spec.weights,
         "num_classes": spec.num_classes,
         "geometry": dataclasses.asdict(geometry_of(loaded().model))},
    )  # fmt: skip


def write(format: str, config: PruningConfig, path: Path) -> Path:
    load_exporter(format).export(Exported(file_of(config), None, embedded), path)
    return path


def logits(model: nn.Module, images: torch.Tensor) -> Logits:
    torch.set_num_threads(1)
    with torch.inference_mode():
        out = [model(part) for part in torch.split(images, 64)]
    return torch.cat(out).numpy()


def expected(config: PruningConfig, images: torch.Tensor) -> Logits:
    return logits(apply(embedded().model, config), images)


def check_same(found: Logits, wanted: Logits) -> None:
    """The same classes, but for images whose two best lie as close as the tools' rounding."""
    assert found.shape == wanted.shape == (IMAGES, 10)
    differ = found.argmax(1) != wanted.argmax(1)
    assert differ.sum() <= 1
    close = np.abs(found - wanted).max(1) < 1e-3
    assert close.sum() >= IMAGES - 3  # a token that is as good as another may have gone for it


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dropping", "merging"])
def test_onnx_runtime_gives_the_same(name: str, images: torch.Tensor, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    level = logging.getLogger("torch.onnx").level
    path = write("onnx", CONFIGS[name], tmp_path / "model.onnx")
    assert logging.getLogger("torch.onnx").level == level
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = [session.run(["logits"], {"images": part.numpy()})[0]
             for part in torch.split(images, 100)]  # fmt: skip
    check_same(np.concatenate(found), expected(CONFIGS[name], images))
    extra = session.get_modelmeta().custom_metadata_map
    assert extra["ztp-search.json"] == file_of(CONFIGS[name]).dumps()
    assert json.loads(extra["data_config.json"])["input_size"] == [1, 40, 40]


@pytest.mark.slow
def test_onnx_runtime_fuses_in_the_pruned_model_what_it_fuses_in_the_unpruned(
    tmp_path: Path
) -> None:
    onnxruntime, onnx = pytest.importorskip("onnxruntime"), pytest.importorskip("onnx")
    fused = {}
    for name in ("nothing", "merging"):
        path = write("onnx", CONFIGS[name], tmp_path / f"{name}.onnx")
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        written = {node.op_type for node in onnx.load(path).graph.node}
        optimised = onnx.load(tmp_path / "optimised.onnx").graph.node
        fused[name] = Counter(n.op_type for n in optimised if n.op_type not in written)
    assert fused["nothing"]["FusedMatMul"] == fused["nothing"]["BiasGelu"] == 8  # one per block
    assert fused["merging"] >= fused["nothing"]


@pytest.mark.parametrize("name", ["merging", "pruning first"])
def test_a_torch_program_gives_the_same(name: str, images: torch.Tensor, tmp_path: Path) -> None:
    path = write("torch-export", CONFIGS[name], tmp_path / "model.pt2")
    extra = {"ztp-search.json": "", "data_config.json": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.load(path, extra_files=extra).module()
    assert np.array_equal(logits(program, images), expected(CONFIGS[name], images))
    assert program(images[:1]).shape == (1, 10) and program(images[:7]).shape == (7, 10)
    assert extra["ztp-search.json"] == file_of(CONFIGS[name]).dumps()


VARIANTS = [(name, value) for name, values in CHOICES.items() for value in values]


@pytest.mark.parametrize(("name", "value"), VARIANTS)
@pytest.mark.parametrize("order", CHOICES["order"])
@pytest.mark.parametrize("merges", [False, True])
def test_the_module_of_every_variant_gives_the_same_to_the_bit(
    name: str, value: str, order: str, merges: bool, images: torch.Tensor
) -> None:
    rest = {"similar": "merge", "sizes": "track"} if merges else {}
    config = PruningConfig(LAYERS, **{"order": order, **rest, name: value})
    module = imported(load_exporter("python").text(Exported(file_of(config), None, embedded)))
    part = images[:24]
    pruned = module.prune(embedded().model)
    assert np.array_equal(logits(pruned, part), expected(config, part))
    assert np.array_equal(logits(pruned, part[:5]), expected(config, part[:5]))  # nothing is left


@pytest.mark.parametrize("name", CONFIGS)
def test_the_module_gives_the_same(name: str, images: torch.Tensor) -> None:
    text = load_exporter("python").text(Exported(file_of(CONFIGS[name]), None, embedded))
    pruned = imported(text).prune(embedded().model)
    assert np.array_equal(logits(pruned, images), expected(CONFIGS[name], images))


def test_the_module_needs_torch_and_timm_alone(images: torch.Tensor, tmp_path: Path) -> None:
    path = write("python", CONFIGS["merging"], tmp_path / "pruned.py")
    weights = Path(ztp_search.__file__).parent / "data" / "digits.safetensors"
    torch.save(images[:64], tmp_path / "images.pt")
    code = (
        "import sys, torch; sys.modules['ztp_search'] = None; torch.set_num_threads(1)\n"
        "import pruned, numpy\n"
        f"model = pruned.create_model(checkpoint_path={str(weights)!r})\n"
        "with torch.inference_mode(): out = model(torch.load('images.pt'))\n"
        "numpy.save('out.npy', out.numpy())\n"
        "roots = {name.split('.')[0] for name in sys.modules} & {'ray', 'optuna'}\n"
        "assert not roots, roots\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], cwd=path.parent, check=True)
    wanted = expected(CONFIGS["merging"], images[:64])
    assert np.array_equal(np.load(tmp_path / "out.npy"), wanted)


def test_timm_opens_the_hugging_face_folder(images: torch.Tensor, tmp_path: Path) -> None:
    folder = write("huggingface", CONFIGS["merging"], tmp_path / "model")
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert np.array_equal(logits(model, images), logits(embedded().model, images))
    config = timm.data.resolve_data_config({}, model=model)
    assert config["input_size"] == (1, 40, 40) and list(config["mean"]) == [0.5]
    wanted = expected(CONFIGS["merging"], images)
    apply(model, ztp_search.load_config(folder / "ztp_search.json"))
    assert np.array_equal(logits(model, images), wanted)
    fresh = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    pruned = imported((folder / "pruned.py").read_text()).prune(fresh)
    assert np.array_equal(logits(pruned, images), wanted)
    assert "tokens reduced without training" in (folder / "README.md").read_text()


# ---- schedules -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["merging", "tome", "pruning first"])
def test_the_list_for_tome_says_how_many_tokens_leave_each_block(
    name: str, tmp_path: Path
) -> None:
    config, geometry = CONFIGS[name], geometry_of(embedded().model)
    path = write("tome", config, tmp_path / "r.json")
    r = json.loads(path.read_text())["r"]
    counts = token_counts(geometry, config)
    assert [counts[0] - sum(r[:block]) for block in range(9)] == list(counts)
    again = read_config_file(path).config
    assert token_counts(geometry, again) == counts
    assert (again.partition, again.similar, again.sizes) == ("position", "merge", "track")
    if name == "tome":
        assert again == config


@pytest.mark.parametrize("name", ["merging", "tome", "dropping", "pruning first"])
def test_the_counts_for_diffrate_tell_dropped_from_merged(name: str, tmp_path: Path) -> None:
    config, geometry = CONFIGS[name], geometry_of(embedded().model)
    path = write("diffrate", config, tmp_path / "counts.json")
    document = json.loads(path.read_text())
    counts = token_counts(geometry, config)
    assert document["kept_after_merge"] == list(counts[1:])
    merged = np.subtract(document["kept_after_prune"], document["kept_after_merge"])
    shares = {layer.after_block: layer.merge_share for layer in config.layers}
    for block in range(1, 9):
        (layer,) = [each for each in config.layers if each.after_block == block] or [None]
        taken = counts[block - 1] - counts[block]
        s = layer.s_tokens if layer else 0
        by_importance = int(shares.get(block, 0.0) * (taken - s) + 0.5)
        assert merged[block - 1] == by_importance + (s if config.similar == "merge" else 0)
    again = read_config_file(path).config
    assert token_counts(geometry, again) == counts


def imported(text: str) -> Any:
    module = types.ModuleType("pruned")
    exec(compile(text, "pruned.py", "exec"), module.__dict__)
    return module


# ---- the trials of a study -----------------------------------------------------------------


def table(path: Path) -> list[Mapping[str, Any]]:
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    import pyarrow.parquet

    rows: list[Mapping[str, Any]] = pyarrow.parquet.read_table(path).to_pylist()
    return rows


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_table_has_a_row_per_trial(suffix: str, raced: Finished, tmp_path: Path) -> None:
    path = tmp_path / f"trials.{suffix}"
    argv = ["export", "--format", suffix, "-o", str(path), "--storage", url_of(raced.out)]
    assert main(argv) == 0
    rows, trials = table(path), stored(raced.out)
    assert [int(row["trial"]) for row in rows] == [trial.number for trial in trials]
    for row, trial in zip(rows, trials, strict=True):
        assert row["state"] == trial.state
        assert float(row["top1"]) == trial.value
        assert int(row["images"]) == trial.attrs["images"]
        assert float(row["gflops.total"]) == trial.attrs["gflops"]["total"]
        assert [int(n) for n in row["tokens"].split()] == trial.attrs["tokens"]
        assert row["partition"] == trial.config.partition
        layers = {layer.after_block: layer for layer in trial.config.layers}
        for block in range(1, 8):
            s_tokens = layers[block].s_tokens if block in layers else 0
            assert int(row[f"block{block:02d}.s_tokens"]) == s_tokens
    assert [row["hand_set"] for row in rows[:4]] == list(HAND_SET)
    assert not rows[-1]["hand_set"]


# ---- the command ---------------------------------------------------------------------------


def test_a_configuration_file_is_exported_without_a_study(
    images: torch.Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "mine.json"
    config.write_text(file_of(CONFIGS["merging"]).dumps())
    assert main(["export", "--config", str(config), "--format", "yaml"]) == 0
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    assert ztp_search.load_config(tmp_path / "mine.yaml") == CONFIGS["merging"]
    folder = tmp_path / "folder"
    argv = ["export", "--config", str(config), "--format", "huggingface", "-o", str(folder)]
    assert main(argv) == 0
    said = capsys.readouterr().err
    assert f"wrote {folder}\n" in said and "note: timm opens the unpruned model" in said
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    assert np.array_equal(logits(model, images[:9]), logits(embedded().model, images[:9]))


@pytest.mark.parametrize("name", [name for name in EXPORTERS if name not in MODELS])
def test_what_is_left_out_is_said_beside_what_is_printed(
    name: str, raced: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = ztp_search.export(tmp_path / "best.json", out=raced.out)
    omitted = load_exporter(name).omits(file)
    where = ["export", "--format", name, "--out", str(raced.out)]
    assert main([*where, "-o", str(tmp_path / "x")]) == 0
    assert capsys.readouterr().err.splitlines()[1:] == [f"note: {omitted}"] * bool(omitted)
    if isinstance(load_exporter(name), TextExporter):
        assert main(where) == 0
        out, err = capsys.readouterr()
        assert out == (tmp_path / "x").read_text()
        assert err.splitlines() == [f"note: {omitted}"] * bool(omitted)


def test_what_is_wrong_is_one_line(
    raced: Finished, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "mine.json"
    config.write_text(file_of(CONFIGS["merging"]).dumps())
    other = tmp_path / "other.json"
    stated = json.loads(config.read_text())
    stated["model"]["weights_sha256"] = "0" * 64
    other.write_text(json.dumps(stated))
    storage = url_of(raced.out)
    wrong = {
        "--config and a trial of a study exclude": ["--config", str(config), "--trial", "1"],
        "--format csv holds the trials": ["--config", str(config), "--format", "csv"],
        "--format onnx is no text": ["--format", "onnx", "--storage", storage],
        "was made with weights 000000000000": [
            "--config", str(other), "--format", "torch-export", "-o", str(tmp_path / "x.pt2"),
        ],
        "is a folder": ["--storage", storage, "-o", str(tmp_path)],
    }  # fmt: skip
    for message, argv in wrong.items():
        assert main(["export", *argv]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1, said
    assert not (tmp_path / "x.pt2").exists()


def test_other_weights_are_taken_when_they_are_asked_for(
    images: torch.Tensor, tmp_path: Path
) -> None:
    from safetensors.torch import save_file

    state = {name: tensor * 0.5 for name, tensor in embedded().model.state_dict().items()}
    save_file(state, tmp_path / "half.safetensors")
    path = tmp_path / "half.pt2"
    ztp_search.export(
        path, "torch-export", config=file_of(CONFIGS["merging"]),
        model=ModelSettings(weights=tmp_path / "half.safetensors"),
    )  # fmt: skip
    wanted = embedded().model
    wanted.load_state_dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.load(path).module()
    found = logits(program, images[:64])
    assert np.array_equal(found, logits(apply(wanted, CONFIGS["merging"]), images[:64]))
