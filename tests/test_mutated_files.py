"""Files gone wrong end in one line, or mean what they say: never in a traceback.

    ZTP_MUTATIONS=10000 pytest -n 0 tests/test_mutated_files.py     # more of each kind
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.geometries import DIGITS
from helpers.mutations import as_json, changed_text, changed_tree

from ztp_search.data.class_map import load_class_map
from ztp_search.errors import ZtpError
from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.pruning.config_file import ConfigFile, read_config_file
from ztp_search.space import load_space, shipped_spaces

CASES = int(os.environ.get("ZTP_MUTATIONS", 300))
"""Of each kind."""


def config_document() -> dict[str, Any]:
    layers = (PruningLayer(1, 0.9, 1, 5), PruningLayer(3, 0.8, 2, 3, merge_share=0.5))
    config = PruningConfig(layers, similar="merge", sizes="track", features="x")
    model = {"name": "toy", "kwargs": {"depth": 4}, "geometry": asdict(DIGITS)}
    evidence = {"search": {"images": 8, "top1": 0.5}}
    return ConfigFile(config, model, evidence, {"study": "s", "seed": 0}).to_dict()


def space_document() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(shipped_spaces()["digits"])
    return document


def read_config(path: Path) -> None:
    found = read_config_file(path)
    path.with_suffix(".json").write_text(found.dumps())
    assert read_config_file(path.with_suffix(".json")) == found


def read_space(path: Path) -> None:
    load_space(str(path)).blocks(12)


def read_class_map(path: Path) -> None:
    assert load_class_map(str(path))


KINDS: dict[str, tuple[Callable[[Path], None], str, Callable[[], Any]]] = {
    "configuration": (read_config, ".json", config_document),
    "configuration in YAML": (read_config, ".yaml", config_document),
    "ToMe schedule": (read_config, ".json", lambda: {"r": [3, 0, 2, 1]}),
    "DiffRate schedule": (
        read_config, ".json",
        lambda: {"kept_after_prune": [11, 9, 8], "kept_after_merge": [10, 9, 7], "tokens": 11},
    ),
    "space": (read_space, ".yaml", space_document),
    "class map": (read_class_map, ".json", lambda: {"cat": 0, "dog": 1, "3": 7}),
    "class list": (read_class_map, ".txt", lambda: "cat\ndog\nhorse\n"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_files_gone_wrong_end_in_one_line(tmp_path: Path, kind: str) -> None:
    read, suffix, document = KINDS[kind]
    whole = document()
    rng = random.Random(kind)
    refused = 0
    for case in range(CASES):
        path = tmp_path / f"case{suffix}"
        if isinstance(whole, str):
            path.write_bytes(changed_text(whole, rng))
        elif rng.random() < 0.6:
            path.write_bytes(as_json(changed_tree(whole, rng)))  # JSON is YAML too
        else:
            text = json.dumps(whole) if suffix == ".json" else yaml.safe_dump(whole)
            path.write_bytes(changed_text(text, rng))
        try:
            read(path)
        except ZtpError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1 and len(str(error)) < 2_500
        except Exception as error:
            raise AssertionError(f"case {case}: {path.read_bytes()[:2_000]!r}") from error
    assert 0 < refused < CASES
