"""What every engine must keep to; a new one joins by its line in `ENGINES`."""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from helpers.small_vits import TWO_LAYERS, make

from ztp_search.backbones import apply
from ztp_search.errors import ZtpError
from ztp_search.evaluation.engines import ENGINES, check_engines, load_engine
from ztp_search.evaluation.engines.base import Engine
from ztp_search.evaluation.runtime import DTYPES, Runtime

CPU = Runtime("cpu", "fp32", 4)
SLOW = ("compiled", "onnxruntime")
PATIENCE = [pytest.mark.slow, pytest.mark.timeout(900)]
"""Seconds: a busy machine takes minutes to compile."""
ALL = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=PATIENCE if name in SLOW else []) for name in ENGINES]
)


def made(name: str, model: torch.nn.Module, runtime: Runtime = CPU) -> Engine:
    """The engine, unless what it needs is not here."""
    if name == "onnxruntime":
        pytest.importorskip("onnxruntime")
    if name == "compiled" and not shutil.which("g++"):
        pytest.skip("needs a C++ compiler")
    return load_engine(name)(model, runtime)


def logits(engine: Engine, images: torch.Tensor) -> np.ndarray[Any, Any]:
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        out: Any = engine.bind(images)()
    return np.asarray(out[0] if isinstance(out, list) else out.float())


def noise(images: int) -> torch.Tensor:
    return torch.randn(images, 3, 32, 32, generator=torch.Generator().manual_seed(images))


def test_engines_are_named_without_importing_them() -> None:
    modules = {f"ztp_search.evaluation.engines.{t.partition(':')[0]}" for t in ENGINES.values()}
    code = (
        "import sys, ztp_search.evaluation.engines as e\n"
        f"print(list(e.ENGINES), sorted(({modules!r} | {{'torch'}}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{list(ENGINES)} []\n"


def test_eager_is_the_default() -> None:
    assert next(iter(ENGINES)) == "eager"


@pytest.mark.parametrize("name", ["tensorrt", "", "Eager", "off"])
def test_an_unknown_engine_is_refused_by_name(name: str) -> None:
    with pytest.raises(ZtpError) as refused:
        check_engines(("eager", name))
    assert str(refused.value) == (
        f"`speed` must be off, or some of {', '.join(ENGINES)}, but got {name!r}"
    )


@ALL
def test_it_runs_stock_and_pruned_models_at_every_batch_size(name: str) -> None:
    for config, sizes in ((None, (1,)), (TWO_LAYERS, (1, 3))):
        wanted = apply(make("class token"), config)
        engine = made(name, apply(make("class token"), config))
        assert engine.precision(CPU) == "fp32"
        for images in map(noise, sizes):
            with torch.inference_mode():
                expected = wanted(images).numpy()
            np.testing.assert_allclose(logits(engine, images), expected, rtol=1e-3, atol=1e-3)
        engine.close()


@ALL
def test_it_computes_in_the_precision_that_it_names(name: str) -> None:
    asked = Runtime("cpu", "bf16", 4)
    precision = load_engine(name).precision(asked)
    engine = made(name, make("class token").to(torch.bfloat16), asked)
    model = make("class token").to(torch.bfloat16).to(DTYPES[precision])
    with torch.inference_mode():
        expected = model(noise(2).to(DTYPES[precision])).float().numpy()
    tolerance = 1e-3 if precision == "fp32" else 0.1
    np.testing.assert_allclose(logits(engine, noise(2)), expected, rtol=tolerance, atol=tolerance)
    engine.close()


def test_what_onnx_runtime_needs_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load_engine("onnxruntime")
    with pytest.raises(ZtpError, match="on CPUs alone; use `device` cpu"):
        engine(make("class token"), Runtime("cuda", "bf16", 4))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ZtpError, match=r"pip install 'ztp-search\[speed\]'"):
        engine(make("class token"), CPU)
