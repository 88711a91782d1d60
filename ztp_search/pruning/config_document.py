"""What a configuration file may hold besides `config`: its keys and their values.

The `config` section is its method's to read; here is the rest, as far as commands read it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
)

from ztp_search.errors import ConfigError
from ztp_search.pruning.config import MOST_BLOCKS, MOST_TOKENS
from ztp_search.pruning.geometry import Geometry
from ztp_search.validation import Section, broken_rule, first_error


def check_document(data: Any, where: str) -> None:
    """Check a whole document but for its `config` section and what contradicts that.

    Args:
        data: What the JSON text means.
        where: The file, for messages.

    Raises:
        ConfigError: names the first key that is unknown, missing or wrong.
    """
    try:
        _Document.model_validate(data)
    except ValidationError as error:
        raise ConfigError(first_error(error, where)) from None


def read_geometry(data: Any, where: str) -> Geometry:
    """The sizes that a file's `model.geometry` states.

    Raises:
        ConfigError: names the first key that is unknown, missing or wrong.
    """
    try:
        return Geometry(**_Sizes.model_validate(data).model_dump())
    except ValidationError as error:
        raise ConfigError(first_error(error, where)) from None


class _Open(BaseModel):
    """A mapping of which commands read these fields; there may be more keys."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)


SIZES = {
    "depth": (1, MOST_BLOCKS),
    "heads": (1, 10_000),
    "embed_dim": (1, MOST_TOKENS),
    "attn_dim": (1, MOST_TOKENS),
    "patch_tokens": (1, MOST_TOKENS),
    "prefix_tokens": (0, MOST_TOKENS),
}
MACS = (0, 10**15)
"""Least and most of each size, far beyond any model's: what is read is counted with."""


def _size(least: int, most: int) -> Any:
    return Annotated[int, Field(ge=least, le=most)]


_WholeNumber = Annotated[int, Field(ge=0)]
_Count = Annotated[int, Field(ge=1)]

if TYPE_CHECKING:
    _Sizes = Section
else:  # the fields of Geometry
    _Sizes = create_model(
        "_Sizes",
        __base__=Section,
        **{name: (kind if kind is bool else _size(*SIZES.get(name, MACS)), ...)
            for name, kind in get_type_hints(Geometry).items()},
    )


class _Model(Section):
    name: str = ""
    kwargs: dict[str, Any] = {}
    weights: str | None = None
    num_classes: int | None = None
    weights_sha256: str | None = None
    geometry: _Sizes | None = None


class _ImageSet(_Open):
    count: _WholeNumber
    sha256: str | None


class _Data(_Open):
    source: str
    split: str | None
    holdout_split: str | None
    class_map: str | None
    config: dict[str, Any]
    seed: _WholeNumber
    skip_unreadable: bool
    images: _ImageSet
    holdout: _ImageSet


class _Runtime(_Open):
    device: str
    precision: str
    batch_size: _Count
    threads: _Count


class _Provenance(_Open):
    data: _Data = _Data.model_construct()
    runtime: _Runtime = _Runtime.model_construct()


class _Document(Section):
    format: Literal["ztp-search/pruning-config"] = "ztp-search/pruning-config"
    version: int = 1
    config: Any
    model: _Model = _Model()
    tokens: Any = None
    gflops: Any = None
    evidence: dict[str, Any] = {}
    provenance: _Provenance = _Provenance()

    @field_validator("version", mode="before")
    @classmethod
    def _known_version(cls, value: Any) -> Any:
        if type(value) is not int or value not in (1, 2):  # True == 1
            raise broken_rule(f"must be 1 or 2, but got {value!r}")
        return value
