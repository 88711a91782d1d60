"""SECURITY.md promises what tests hold."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROMISES = [
    line.split(" | ") for line in (ROOT / "SECURITY.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| promise", "| ---"))
]  # fmt: skip


def test_each_promise_is_held_by_tests_that_are_there() -> None:
    assert len(PROMISES) >= 8
    for promise, tests in PROMISES:
        named = re.findall(r"`(tests/[^`]+)::([^`]+)`", tests)
        assert named, promise
        for path, name in named:
            tree = ast.parse((ROOT / path).read_text())
            found = [each for each in tree.body if isinstance(each, ast.FunctionDef)]
            assert name in {each.name for each in found}, f"{promise}: {path}::{name}"
