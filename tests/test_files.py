"""Text from outside is read within bounds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from ztp_search.errors import ConfigError
from ztp_search.files import (
    MOST_BYTES,
    MOST_LEVELS,
    exists,
    is_file,
    parse_json,
    parse_yaml,
    read_text,
)

LONG = "x" * 300  # longer than names of files can be


def refusal(path: str | Path) -> str:
    with pytest.raises(ConfigError) as error:
        read_text(path, "class map", ConfigError)
    message = str(error.value)
    assert "\n" not in message and "class map" in message
    return message


def test_text_is_read_with_and_without_a_byte_order_mark(tmp_path: Path) -> None:
    for data in ("grün".encode(), "grün".encode("utf-8-sig")):
        (tmp_path / "a").write_bytes(data)
        assert read_text(tmp_path / "a", "class map", ConfigError) == "grün"


def test_a_fifo_that_nobody_writes_to_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert "must be a regular file" in refusal(tmp_path / "fifo")


def test_a_device_without_end_is_refused() -> None:
    assert "must be a regular file" in refusal("/dev/zero")


def test_a_folder_a_missing_file_and_impossible_names_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no", LONG, f"{tmp_path}/{LONG}", "a\x00b"):
        assert "cannot be read" in refusal(path)


def test_a_file_may_have_so_many_bytes_and_no_more(tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate(MOST_BYTES)
    assert len(read_text(tmp_path / "large", "class map", ConfigError)) == MOST_BYTES
    with open(tmp_path / "large", "wb") as file:
        file.truncate(MOST_BYTES + 1)
    assert "at most 8 MiB" in refusal(tmp_path / "large")


def test_what_is_no_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff\xfe")
    assert "no UTF-8" in refusal(tmp_path / "a")


def test_names_that_no_file_can_have_are_of_none(tmp_path: Path) -> None:
    assert exists(tmp_path) and not is_file(tmp_path)
    for name in (LONG, "a\x00b"):
        assert not exists(name) and not is_file(name)


DOCUMENTS = (
    {}, [], 3, -7, 2.5, 1e300, "text", "", True, None, {"a": [1, {"b": None}]}, {"": {"é": "ü"}},
)  # fmt: skip


@pytest.mark.parametrize("document", DOCUMENTS, ids=repr)
def test_what_is_written_is_read(document: object) -> None:
    assert parse_json(json.dumps(document)) == document
    assert parse_yaml(yaml.safe_dump(document, allow_unicode=True)) == document


def test_yaml_has_the_types_that_json_has() -> None:
    text = "date: 2026-11-25\n4: [0x10, 1_000, .5]\n<<: merged\nyes: ~\n"
    assert parse_yaml(text) == {
        "date": "2026-11-25", 4: [16, 1000, 0.5], "<<": "merged", True: None,
    }  # fmt: skip


def test_documents_may_nest_so_deep_and_no_deeper() -> None:
    for parse in (parse_json, parse_yaml):
        assert parse("[" * MOST_LEVELS + "]" * MOST_LEVELS) is not None
        for levels in (MOST_LEVELS + 1, 100_000):
            with pytest.raises(ValueError, match="at most 50 deep"):
                parse("[" * levels + "]" * levels)
    block = "\n".join(" " * level + f"k{level}:" for level in range(MOST_LEVELS + 2))
    with pytest.raises(ValueError, match="at most 50 deep"):
        parse_yaml(block)


def test_a_key_stands_once() -> None:
    for text in ('{"a": 1, "a": 2}', '[{"b": {"a": 1, "a": 1}}]'):
        for parse in (parse_json, parse_yaml):
            with pytest.raises(ValueError, match="key 'a' must stand once"):
                parse(text)


def test_numbers_have_an_end() -> None:
    for parse in (parse_json, parse_yaml):
        assert parse("9" * 400) == int("9" * 400)
        with pytest.raises(ValueError, match="at most 1000 digits"):
            parse("9" * 1_001)
    for text in ("0b" + "1" * 1_000, "0x" + "f" * 1_000):
        with pytest.raises(ValueError, match="at most 1000 digits"):
            parse_yaml(text)


def test_yaml_aliases_are_refused_before_they_multiply() -> None:
    text = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{below}'] * 9)}]\n"
        for below, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(ValueError, match=r"aliases are not read; write out \*a"):
        parse_yaml(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("!!python/object/apply:os.getcwd []", "are not read"),
        ("!!timestamp x", "timestamp are not read"),
        ("!!binary aaaa", "binary are not read"),
        ("!!set {a}", "set are not read"),
        ("? [a, b]\n: c", "keys must be text or numbers"),
        ("? {a: b}\n: c", "keys must be text or numbers"),
        ("!!map x", "must have keys"),
        ("!!int x", "invalid literal"),
        ("a\n--- b", "but found another document"),
        ("a: \x00", "unacceptable character"),
        ("#" * 300_000, "at most 262,144 characters"),
    ],
)
def test_what_else_yaml_may_not_hold(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as error:
        parse_yaml(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "NaN", "[Infinity]", "{'a': 1}", "{} {}", "01"])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_json(text)
