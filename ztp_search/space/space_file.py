"""The YAML form of a search space.

`search_spaces/` ships some, and a user's own file has the same form:

    format: ztp-search/space
    version: 1
    base: deit_small            # optional
    about: what it is for       # optional
    model: {name: …}            # optional, as are data and defaults
    data: {source: …}
    defaults: {trials: 500, images: 2000, holdout: 2500, batch_size: 64}
    pruning:
      after_block: all          # or a list of blocks
      layers: [2, all]
      retention: [0.5, 1.0]
      s_tokens: [0, half]
      wpr_iterations: {first 3: [30, 50], last 3: [1, 1], other: [5, 10]}
      v_min: {low: 0.001, high: 0.3, log: true}
      v_max: [0.7, 50.0]
      kept: [0.4, 1.0]          # optional, as are all that follow
      merge_share: [0.0, 1.0]
      similar: [drop, merge]
      sizes: track

Block numbers count from 1. retention, s_tokens, wpr_iterations, kept (the share of tokens that a
layer leaves, whichever stage takes the others) and merge_share hold one `[low, high]` for all
blocks, or a mapping from blocks to `[low, high]`: `4`, `4-9`, `first 3`, `last 3`, `other`. One
number means both ends. `half` is half of the tokens that come in, in s_tokens; `all`, in layers,
every block but the last. Design variants (variant, partition, features, metric, order,
aggregation, similar, sizes) hold one name, or a list of which the search takes any; what is not
stated is as in the paper.

`base` names a shipped space, or another file by its path from this one. Then only what differs
need be stated: the keys of each section (model, data, defaults, pruning) take the place of the
base's, each as a whole, and all others are the base's. A base is a whole space itself, and may
have a base of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ztp_search.errors import SpaceError
from ztp_search.files import is_file, parse_yaml, read_text
from ztp_search.pruning.config import CHOICES
from ztp_search.space.space import SearchSpace

if TYPE_CHECKING:
    from ztp_search.space.space_document import SpaceDocument

SECTIONS = ("model", "data", "defaults", "pruning")


def shipped_spaces() -> dict[str, str]:
    """The spaces that come with the package: name -> text of the YAML file."""
    folder = resources.files("ztp_search") / "search_spaces"  # in the wheel
    if not folder.is_dir():
        folder = Path(__file__).resolve().parent.parent.parent / "search_spaces"  # in a checkout
    files = {item.name: item for item in folder.iterdir() if item.name.endswith(".yaml")}
    return {name.removesuffix(".yaml"): files[name].read_text("utf-8") for name in sorted(files)}


def load_space(name_or_path: str) -> SearchSpace:
    """Read a search space.

    Args:
        name_or_path: Name of a shipped space, or path of a YAML file.

    Raises:
        SpaceError: There is no such space, or its file breaks a rule; names file, field, value
            and fix.

    Example:
        >>> load_space("deit_small").variants["similar"]
        ('drop', 'merge')
    """
    source = _find(name_or_path, Path())
    if source is None:
        raise SpaceError(
            f"search space {name_or_path!r} is neither a file nor a shipped space; "
            f"shipped are {', '.join(shipped_spaces())}"
        )
    return _space(source)


def parse_space(text: str, name: str) -> SearchSpace:
    """Read a search space from YAML text, as if it stood in a file called `name`.

    Raises:
        SpaceError: The text breaks a rule; names `name`, field, value and fix.
    """
    return _space(_Source(name, text, str(Path(name).resolve())))


@dataclass(frozen=True, slots=True)
class _Source:
    """The text of a space file. key: the same for the same file, whatever it is called."""

    name: str
    text: str
    key: str


def _find(name_or_path: str, folder: Path) -> _Source | None:
    """A shipped space, or else a file whose path is seen from `folder`; None: neither."""
    shipped = shipped_spaces()
    if name_or_path in shipped:
        return _Source(name_or_path, shipped[name_or_path], name_or_path)
    path = folder / name_or_path
    if not is_file(path):
        return None
    name = str(path) if folder.parts else name_or_path
    return _Source(name, read_text(path, "search space", SpaceError), str(path.resolve()))


def _space(source: _Source) -> SearchSpace:
    stated, document = _document(source, ())
    pruning = document.pruning
    return SearchSpace(
        name=source.name,
        about=" ".join(document.about.split()),
        after_block=pruning.after_block,
        layers=pruning.layers,
        retention=pruning.retention,
        s_tokens=pruning.s_tokens,
        wpr_iterations=pruning.wpr_iterations,
        kept=pruning.kept,
        merge_share=pruning.merge_share,
        v_min=pruning.v_min.scale(),
        v_max=pruning.v_max.scale(),
        variants=pruning.model_dump(include=set(CHOICES), exclude_unset=True),
        model=document.model.stated(),
        data=document.data.stated(),
        defaults=document.defaults.stated(),
        sha256=_digest(stated["pruning"]),
    )


def _digest(pruning: Mapping[str, Any]) -> str:
    """What a study is held to: the ranges as they are stated, bases included."""
    return hashlib.sha256(yaml.safe_dump(pruning, sort_keys=True).encode()).hexdigest()


# ---- a file and its bases --------------------------------------------------------------------


def _document(
    source: _Source, derived: tuple[_Source, ...]
) -> tuple[Mapping[str, Any], SpaceDocument]:
    """What a file states together with its bases: as YAML has it, and validated.

    derived: the files that have led here, each of which names the next one as its base.
    """
    stated = _load_yaml(source)
    if isinstance(stated, dict) and "base" in stated:
        base, _ = _document(_base(stated["base"], source, derived), (*derived, source))
        stated = _merged(base, stated)
    return stated, _validated(stated, source.name)


def _load_yaml(source: _Source) -> Any:
    try:
        return parse_yaml(source.text)
    except ValueError as error:
        raise SpaceError(f"{source.name}: this is no valid YAML: {error}") from None


def _base(base: Any, source: _Source, derived: tuple[_Source, ...]) -> _Source:
    found = _find(base, Path(source.name).parent) if isinstance(base, str) else None
    if found is None:
        raise SpaceError(
            f"{source.name}: base must be a shipped space ({', '.join(shipped_spaces())}) or the "
            f"path of a file from this one, but got {base!r}; correct it or leave it out"
        )
    line = (*derived, source)
    if found.key in [each.key for each in line]:
        names = " > ".join(each.name for each in (*line, found))
        raise SpaceError(
            f"{source.name}: base must not lead back to a space that it is the base of, but got "
            f"{names}; leave one of them out"
        )
    return found


def _merged(base: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    """What a file states over what its base states; sections key by key."""
    merged = dict(stated)
    if "about" in base:
        merged.setdefault("about", base["about"])
    for section in SECTIONS:
        below, above = base.get(section, {}), stated.get(section, {})
        merged[section] = {**below, **above} if isinstance(above, dict) else above
    return merged


def _validated(stated: Any, name: str) -> SpaceDocument:
    # here, as the command line imports this module, and pydantic takes a tenth of a second
    from pydantic import ValidationError

    from ztp_search.space.space_document import SpaceDocument
    from ztp_search.validation import first_error

    try:
        return SpaceDocument.model_validate(stated)
    except ValidationError as error:
        raise SpaceError(first_error(error, name)) from None
