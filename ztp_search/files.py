"""Text files from outside: read within bounds, so that no file hangs the reader or fills memory.

Only regular files are opened: a FIFO would wait for ever and a device has no end. YAML knows no
aliases and only the types that JSON has; no document may nest deeply, hold a key twice, or hold a
number without end.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import yaml

MOST_BYTES = 8 * 2**20
"""Of a text file; a class map of 20,000 classes takes a tenth."""
MOST_YAML = 2**18
"""Characters of YAML, which takes a second to read a tenth of a megabyte."""
MOST_LEVELS = 50
"""Of lists and mappings in each other."""
MOST_DIGITS = 1_000
"""Of a whole number: its field says how large it may be, and can say so in its own words."""
YAML = (".yaml", ".yml")


def exists(path: str | os.PathLike[str]) -> bool:
    """Whether there is anything of that name; of a name that none can have, there is not."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # longer than names can be; with a NUL
        return False


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is a regular file of that name, or a link to one."""
    return exists(path) and Path(path).is_file()


def read_text(path: str | os.PathLike[str], what: str, error: type[Exception]) -> str:
    """The text of a regular file of at most `MOST_BYTES` bytes of UTF-8.

    Args:
        path: the file.
        what: what it is, for messages, as in "class map".
        error: what is raised, with one line.
    """
    name = f"{what} {os.fspath(path)}"
    try:
        # O_NONBLOCK: a FIFO that nobody writes to is opened all the same
        with open(path, "rb", opener=lambda p, flags: os.open(p, flags | _NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise error(f"{name} must be a regular file; copy what it gives into one")
            data = file.read(MOST_BYTES + 1)
    except OSError as problem:
        raise error(f"{name} cannot be read: {problem.strerror}") from None
    except ValueError as problem:  # a NUL in the name
        raise error(f"{name!r} cannot be read: {problem}") from None
    if len(data) > MOST_BYTES:
        raise error(f"{name} must have at most {MOST_BYTES // 2**20} MiB, but has more; shorten it")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise error(f"{name} is no UTF-8 text: {problem}") from None


_NONBLOCK = getattr(os, "O_NONBLOCK", 0)


def parse_json(text: str) -> Any:
    """What JSON text means.

    Raises:
        ValueError: says in one line what is wrong with it.
    """
    try:
        data = json.loads(
            text,
            parse_constant=_no_constant,
            parse_int=_integer,
            object_pairs_hook=_mapping,
        )
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_levels(data)
    return data


def parse_yaml(text: str) -> Any:
    """What YAML text means, of the types that JSON has.

    Raises:
        ValueError: says in one line what is wrong with it.
    """
    if len(text) > MOST_YAML:
        raise ValueError(f"YAML must have at most {MOST_YAML:,} characters, but has {len(text):,}")
    try:
        data = _yaml_loader()(text).get_single_data()
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except Exception as problem:  # PyYAML lets AttributeError and others through, of bad scalars
        raise ValueError(" ".join(str(problem).split())) from None
    _check_levels(data)
    return data


# ---- what both refuse ------------------------------------------------------------------------

_TOO_DEEP = f"lists and mappings must lie at most {MOST_LEVELS} deep in each other"


def _check_levels(data: Any) -> None:
    level = [data] if isinstance(data, dict | list) else []
    for _ in range(MOST_LEVELS):
        values = (item.values() if isinstance(item, dict) else item for item in level)
        level = [each for some in values for each in some if isinstance(each, dict | list)]
    if level:
        raise ValueError(_TOO_DEEP)


def _integer(text: str) -> int:
    _check_digits(text)
    return int(text)


def _check_digits(text: str) -> None:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"numbers must have at most {MOST_DIGITS} digits, but got {text:.20}…")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _mapping(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key!r:.80} must stand once, but stands twice")
        found[key] = value
    return found


@cache
def _yaml_loader() -> type[yaml.SafeLoader]:
    """A loader of JSON's types; PyYAML is imported when it is asked for."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml comes without types
        yaml_constructors: ClassVar[dict[Any, Any]] = {}
        yaml_implicit_resolvers = {  # 2026-11-25 is text, and "<<" a key like others
            first: [(tag, pattern) for tag, pattern in resolvers if _tag(tag) in _TYPES]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                alias = self.peek_event()
                raise ValueError(f"aliases are not read; write out *{alias.anchor}")
            return super().compose_node(parent, index)

        def fetch_flow_collection_start(self, token: Any) -> Any:
            if self.flow_level > MOST_LEVELS:
                raise ValueError(_TOO_DEEP)
            return super().fetch_flow_collection_start(token)

        def integer(self, node: Any) -> int:
            _check_digits(self.construct_scalar(node))
            return int(self.construct_yaml_int(node))

        def mapping(self, node: Any) -> dict[Any, Any]:
            if not isinstance(node, yaml.MappingNode):
                raise ValueError(f"a mapping must have keys, but got {node.value!r:.80}")
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for key in keys:
                if isinstance(key, dict | list):
                    raise ValueError(f"keys must be text or numbers, but got {key!r:.80}")
            values = [self.construct_object(value, deep=True) for _, value in node.value]
            return _mapping(zip(keys, values, strict=True))

        def sequence(self, node: Any) -> list[Any]:
            return [self.construct_object(each, deep=True) for each in node.value]

        def unknown(self, node: Any) -> Any:
            raise ValueError(f"values of type {node.tag} are not read; write text or numbers")

    for name, read in {
        "null": Loader.construct_yaml_null, "bool": Loader.construct_yaml_bool,
        "int": Loader.integer, "float": Loader.construct_yaml_float,
        "str": Loader.construct_yaml_str, "seq": Loader.sequence, "map": Loader.mapping,
    }.items():  # fmt: skip
        Loader.add_constructor(f"{_PREFIX}{name}", read)
    Loader.add_constructor(None, Loader.unknown)
    return Loader


_PREFIX = "tag:yaml.org,2002:"
_TYPES = ("null", "bool", "int", "float", "str", "seq", "map")


def _tag(tag: str) -> str:
    return tag.removeprefix(_PREFIX)
