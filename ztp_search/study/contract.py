"""What a resume must find unchanged, among the study's attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ztp_search.errors import StudyError
from ztp_search.study.rows import to_json

PREFIX = "contract."


def contract_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The contract among a study's attributes."""
    stored = attributes.items()
    return {key.removeprefix(PREFIX): value for key, value in stored if key.startswith(PREFIX)}


def is_reserved(key: str) -> bool:
    """Whether an attribute is no result: the contract, or who drives the study."""
    return key == "driver" or key.startswith(PREFIX)


def refuse_differences(study: str, stored: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    """Raises StudyError unless both contracts are the same."""
    differing = differences(stored, asked)
    if differing:
        raise StudyError(
            f"study {study!r} was made with other settings: {', '.join(differing)}; "
            f"use another `study` name, or the old settings"
        )


def completed(asked: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """A contract of which a part is known, with what is not known as it is stored."""
    whole = dict(stored)
    for key, value in asked.items():
        both = isinstance(value, Mapping) and isinstance(stored.get(key), Mapping)
        whole[key] = {**stored[key], **value} if both else value
    return whole


def differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """Every value that differs, named by its path: `geometry.depth 12 (now 24)`."""
    old, new = _leaves(stored, ""), _leaves(asked, "")
    keys = [key for key in sorted({**old, **new}) if old.get(key) != new.get(key)]
    return [f"{key[1:]} {_short(old.get(key))} (now {_short(new.get(key))})" for key in keys]


def _leaves(value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {path: value}
    leaves = [_leaves(item, f"{path}.{key}") for key, item in value.items()]
    return {key: leaf for each in leaves for key, leaf in each.items()}


def _short(value: Any) -> str:
    text = "not set" if value is None else value if isinstance(value, str) else to_json(value)
    return text if len(text) <= 16 else f"{text[:12]}…"
