"""What pydantic finds wrong with a file or a setting, as one line for the person who wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import PydanticCustomError

KINDS = {
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "sequence_str": "a list",
    "is_instance_of": "a list",  # of settings and files, Sequence alone is checked by its class
    "string_type": "text",
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
}
"""What a value must be, by pydantic's name for its being something else."""
LIMITS = {
    "greater_than": "above {gt}",
    "greater_than_equal": "{ge} or above",
    "less_than": "below {lt}",
    "less_than_equal": "{le} or below",
    "literal_error": "{expected}",
}


def broken_rule(rule: str) -> PydanticCustomError:
    """The error for a rule of our own, which `first_error` quotes as it stands."""
    return PydanticCustomError("rule", "{rule}", {"rule": rule})


class Section(BaseModel):
    """A mapping with no other keys than its fields; it may lack those that have a default."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, data: Any) -> Any:
        for key in data if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                raise broken_rule(f"unknown key {key!r}; known are {', '.join(cls.model_fields)}")
        return data


def first_error(error: ValidationError, where: str) -> str:
    """The first error, on one line: where it is, the rule, and the value that breaks it.

    A rule of our own (a ValueError or PydanticCustomError raised by a validator) is quoted as it
    stands: as the rest of the sentence where it begins with "must", else after a colon.

    Args:
        error: What pydantic raised.
        where: The file, or the part of one, that was validated.

    Returns:
        For example "mine.yaml: defaults.trials must be 1 or above, but got 0".
    """
    found = error.errors(include_url=False)[0]
    kind, context = found["type"], found.get("ctx", {})
    at = found["loc"]
    if kind == "missing":
        return f"{_place(where, at[:-1])}: key {at[-1]!r} is missing; add it"
    if kind in ("extra_forbidden", "invalid_key"):
        return f"{_place(where, at[:-1])}: unknown key {str(at[-1])!r}; correct it or leave it out"
    if kind in KINDS or kind in LIMITS:
        rule = KINDS.get(kind) or LIMITS[kind].format(**context)
        message = f"must be {rule}, but got {found['input']!r}"
    else:
        message = found["msg"].removeprefix("Value error, ")
    separator = " " if message.startswith("must ") else ": "
    return " ".join(f"{_place(where, at)}{separator}{message}".split())


def _place(where: str, path: Sequence[Any]) -> str:
    """`mine.yaml: pruning.layers[0]`."""
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return f"{where}: {text.removeprefix('.')}" if text else where


def first_setting_error(error: ValidationError, owner: str) -> str:
    """The first error among the settings that a user gave in Python or on the command line.

    Args:
        error: What pydantic raised.
        owner: The class of the settings.

    Returns:
        For example "`trials` must be 1 or above, but got 0".
    """
    found = error.errors(include_url=False)[0]
    kind = found["type"]
    name = str(found["loc"][0]) if found["loc"] else ""
    if kind in ("missing", "missing_keyword_only_argument", "missing_argument"):
        return f"{owner} needs `{name}`"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{owner} has no `{name}`"
    rule = KINDS.get(kind) or LIMITS.get(kind, "").format(**found.get("ctx", {}))
    must = f"must be {rule}" if rule else found["msg"]
    return " ".join(f"`{name}` {must}, but got {found['input']!r}".split())
