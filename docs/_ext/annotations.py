"""What autodoc needs help with: annotations, and docstrings that describe two names at once."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
import typing
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata

import ztp_search.settings.options as options

SECTIONS = ("Args:", "Attributes:")


def import_for_type_checkers(module: ModuleType) -> None:
    """Give a module the names that it imports `if TYPE_CHECKING`, so that they become links."""
    for statement in ast.parse(inspect.getsource(module)).body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            imports = ast.Module(statement.body, type_ignores=[])
            exec(compile(imports, str(module.__file__), "exec"), vars(module))


def without_checks(settings: Any) -> None:
    """Annotate a class of settings with `int | None` and the like, not with pydantic's checks."""
    types = typing.get_type_hints(settings)
    settings.__annotations__ = {name: types[name] for name in settings.__annotations__}


def one_name_each(lines: list[str]) -> Iterator[str]:
    """The docstring with `a, b: text` as `a: text` and `b: text`, in sections that list names."""
    section, indent, entry = "", 0, list[str]()
    for line in [*lines, "end"]:
        depth = len(line) - len(line.lstrip())
        if entry and line.strip() and depth <= indent:  # the entry has ended
            yield from _split(entry)
            entry = []
        if line.strip() and depth == 0:
            section = line.strip()
        elif section in SECTIONS and not entry and line.strip():
            indent = depth
        if section in SECTIONS and depth and (entry or depth == indent):
            entry.append(line)
        elif line != "end":
            yield line


def _split(entry: list[str]) -> Iterator[str]:
    match = re.match(r"( +)(\w+(?:, \w+)+):(.*)", entry[0])
    if match is None:
        yield from entry
        return
    for name in match[2].split(", "):
        yield f"{match[1]}{name}:{match[3]}"
        yield from entry[1:]


def prepare(_app: Sphinx) -> None:
    for name, module in list(sys.modules.items()):
        if name.startswith("ztp_search.") and module.__file__ is not None:
            import_for_type_checkers(module)
    for found in list(vars(options).values()):
        if dataclasses.is_dataclass(found) and isinstance(found, type):
            without_checks(found)


def process(
    _app: Sphinx, _what: str, _name: str, _obj: object, _options: object, lines: list[str]
) -> None:
    lines[:] = one_name_each(lines)


def setup(app: Sphinx) -> ExtensionMetadata:
    app.connect("builder-inited", prepare)
    app.connect("autodoc-process-docstring", process, priority=400)  # before napoleon, at 500
    return {"parallel_read_safe": True, "parallel_write_safe": True}
