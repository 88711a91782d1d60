"""Documents gone wrong, at random: of a tree of JSON, and of text."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3.5, -0.0, 1e-320, 1e308, 10**18, -(10**18), 10**400, "", " ",
    "all", "half", "other", "first 3", "last 0", "4-9", "9-4", "10000000000-99999999999", "\x00",
    "a\nb", "x" * 5_000, "é", "\ud800", "../../etc/passwd", "~", "%s{}", [], [[]], [None], [1, 2],
    [2, 1], [1, 2, 3], {}, {"": None}, {"a": {"b": {}}}, {"low": 1, "high": 0}, ["x"] * 100,
)  # fmt: skip
ODD_TEXT = (
    "{", "}", "[", "]", ",", ":", '"', "'", "\\", "\x00", "\ufeff", "\t", "\n", "\r", "-", "- ",
    "? ", "&a ", "*a", "<<: ", "!!int ", "!!timestamp ", "!!set ", "!", "%", "@", "`", "| ", "> ",
    "#", "---\n", "...\n", "~", "null", "NaN", "Infinity", "-Infinity", ".inf", ".nan", "1e999",
    "0x", "9" * 5_000, "0b1", "1_0", "07", "2026-11-25", "12:30:45", "yes", "[" * 200,
    "{a: " * 200, "\\ud800", "é",
)  # fmt: skip


def changed_tree(tree: Any, rng: random.Random) -> Any:
    """A copy with one to four random changes: values replaced, left out, put in, renamed."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.randint(1, 4)):
        tree = _changed_once(tree, rng)
    return tree


def changed_text(text: str, rng: random.Random) -> bytes:
    """Bytes with one to six random changes: cut, doubled, spliced, flipped."""
    data = text.encode("utf-8", "surrogatepass")
    for _ in range(rng.randint(1, 6)):
        start = rng.randint(0, len(data))
        end = min(len(data), start + rng.choice((0, 1, 2, 10, 100)))
        odd = rng.choice(ODD_TEXT).encode("utf-8", "surrogatepass")
        new = rng.choice((b"", odd, data[start:end] * 2, rng.randbytes(1), odd * 3))
        data = data[:start] + new + data[end:]
    return data


def _changed_once(tree: Any, rng: random.Random) -> Any:
    places = list(_places(tree))
    if not places or rng.random() < 0.02:
        return copy.deepcopy(rng.choice(ODD_VALUES))
    holder, key = rng.choice(places)
    match rng.choice(("replace", "replace", "delete", "rename", "nudge")):
        case "replace":
            holder[key] = copy.deepcopy(rng.choice(ODD_VALUES))
        case "delete":
            del holder[key]
        case "rename" if isinstance(holder, dict):
            holder[rng.choice(("", "layers", "x", "méthode", key + "s"))] = holder.pop(key)
        case _:
            value = holder[key]
            if isinstance(value, int | float) and not isinstance(value, bool):
                holder[key] = rng.choice((-value, value + 1, value % 2 / 2, [value]))
            else:
                holder[key] = [value, value]
    return tree


def _places(tree: Any) -> Any:
    """Each value's holder and key."""
    if not isinstance(tree, dict | list):
        return
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)):
        yield tree, key
        yield from _places(tree[key])


def as_json(tree: Any) -> bytes:
    """JSON that says it, with what Python's writer lets through."""
    return json.dumps(tree).encode()
