"""Examples in docstrings run as written, wherever they are.

Those of `api` and of the settings build on one another: `tests/test_api.py` runs them. A `Tuner` of
a hundred trials takes minutes: `tests/tune` runs smaller ones.
"""

from __future__ import annotations

import doctest
import io
import pkgutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

import ztp_search
from ztp_search import PruningConfig, PruningLayer, SearchSettings
from ztp_search.backbones.families import geometry_of
from ztp_search.pruning.budget import parse_budget
from ztp_search.pruning.cost import flops
from ztp_search.racing import RACING
from ztp_search.samplers import MonteCarlo
from ztp_search.settings import resolve_search
from ztp_search.space import load_space
from ztp_search.space.decoder import Decoder
from ztp_search.tune import config_of

ELSEWHERE = ("ztp_search.api", "ztp_search.settings.options", "ztp_search.tune.evaluation")
MODULES = [
    module.name
    for module in pkgutil.walk_packages(ztp_search.__path__, "ztp_search.")
    if not module.name.endswith("__main__") and module.name not in ELSEWHERE
]


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = [test for name in MODULES for test in finder.find(import_module(name), name)]
    return [test for test in found if test.examples]


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What examples take as given."""
    model = timm.create_model("deit_small_patch16_224").eval()
    geometry = geometry_of(model)
    budget = parse_budget("3.08", geometry)
    return {
        "ztp_search": ztp_search, "timm": timm, "torch": torch, "model": model,
        "geometry": geometry, "decoder": Decoder(load_space("deit_small"), geometry, budget),
        "PruningConfig": PruningConfig, "PruningLayer": PruningLayer, "MonteCarlo": MonteCarlo,
        "SearchSettings": SearchSettings, "resolve_search": resolve_search, "RACING": RACING,
        "load_space": load_space, "parse_budget": parse_budget, "flops": flops,
        "config_of": config_of,
    }  # fmt: skip


@pytest.mark.parametrize("test", examples(), ids=lambda test: test.name)
def test_an_example_runs_as_written(
    test: doctest.DocTest, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "best.json").write_text('{"config": {"layers": [{"after_block": 6}]}}')
    if "studies.db" in (test.docstring or ""):
        settings = SearchSettings(
            space="digits", budget="68%", trials=4, images=32, holdout=0, workers=0
        )
        ztp_search.search(settings)
    test.globs.update({**names, **test.globs})
    said = io.StringIO()
    failed, tried = doctest.DocTestRunner().run(test, out=said.write)
    assert tried and not failed, said.getvalue()
