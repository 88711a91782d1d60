"""What pydantic finds becomes one line: place, rule and value."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ztp_search.validation import first_error


class Layer(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    rate: Annotated[float, Field(gt=0, le=1)]
    count: Annotated[int, Field(ge=0, lt=9)] = 0
    kind: Literal["a", "b"] = "a"
    name: str = ""
    on: bool = True

    @field_validator("name")
    @classmethod
    def check(cls, name: str) -> str:
        if name == "odd":
            raise ValueError("must be even, but got odd")
        if name == "late":
            raise ValueError("too late;\n come earlier")
        return name


class File(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    layers: list[Layer]


def message(data: Any) -> str:
    with pytest.raises(ValidationError) as error:
        File.model_validate(data)
    return first_error(error.value, "mine.json")


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        ({}, "mine.json: layers[1]: key 'rate' is missing"),
        ({"rate": 1.0, "hue": 2}, "mine.json: layers[1]: unknown key 'hue'"),
        ({"rate": "1"}, "mine.json: layers[1].rate must be a number, but got '1'"),
        ({"rate": 0.0}, "mine.json: layers[1].rate must be above 0"),
        ({"rate": 2}, "mine.json: layers[1].rate must be 1"),
        ({"rate": 1.0, "count": -1}, "mine.json: layers[1].count must be 0 or above, but got -1"),
        ({"rate": 1.0, "count": 9}, "mine.json: layers[1].count must be below 9, but got 9"),
        ({"rate": 1.0, "count": True}, "layers[1].count must be an integer, but got True"),
        ({"rate": 1.0, "count": 1.5}, "layers[1].count must be an integer, but got 1.5"),
        ({"rate": 1.0, "kind": "c"}, "layers[1].kind must be 'a' or 'b', but got 'c'"),
        ({"rate": 1.0, "name": None}, "layers[1].name must be text, but got None"),
        ({"rate": 1.0, "on": 1}, "layers[1].on must be true or false, but got 1"),
        ({"rate": 1.0, "name": "odd"}, "mine.json: layers[1].name must be even, but got odd"),
        ({"rate": 1.0, "name": "late"}, "mine.json: layers[1].name: too late; come earlier"),
        ([], "mine.json: layers[1] must be a mapping, but got []"),
    ],
)
def test_the_line_names_place_rule_and_value(layer: Any, expected: str) -> None:
    found = message({"layers": [{"rate": 1.0}, layer]})
    assert expected in found and "\n" not in found


def test_of_several_errors_the_first_counts() -> None:
    assert "layers[0].count" in message({"layers": [{"rate": 1.0, "count": "x"}, {}]})


def test_what_is_wrong_with_the_whole_has_no_place_in_it() -> None:
    assert message(3) == "mine.json must be a mapping, but got 3"
    assert message({}) == "mine.json: key 'layers' is missing; add it"
