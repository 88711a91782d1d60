"""Which output of the model a class of the data set is.

A data set numbers its classes on its own: by sorted folder names, or as its publisher did. Three
ways lead to the model's numbers, in this order: the user's class map, ImageNet wnids, and the
same number where data set and model have equally many classes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ztp_search.errors import DataError
from ztp_search.files import parse_json, read_text

_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True, slots=True)
class LabelMap:
    """From a data set's own class numbers to the model's outputs.

    outputs: the model's output of each class of the data set; None: the same numbers.
    unlabelled: why no class has a meaning to the model (all labels are then unknown); "" if they
        have one.
    """

    outputs: tuple[int, ...] | None = None
    unlabelled: str = ""


def map_classes(
    names: Sequence[str] | None, num_classes: int, class_map: str | None = None
) -> LabelMap:
    """Map the classes of a data set to the outputs of a model.

    Args:
        names: Of the data set's classes, in its own order; None where it numbers them without
            naming them.
        num_classes: How many outputs the model has.
        class_map: File of the user's; it wins, and must hold every class.

    Raises:
        DataError: A class has no output, or the class map cannot be read; names the first.
    """
    if class_map is not None:
        table = load_class_map(class_map)
        if names is None:
            # Numbers are looked up as they would be written: class 3 is "3".
            names = [str(number) for number in range(_numbered(table, class_map))]
        outputs = _look_up(names, table, f"the class map {class_map}")
    elif names is None:
        return LabelMap()
    else:
        wnids = imagenet_wnids(num_classes)
        if wnids and names and all(_WNID.fullmatch(name) for name in names):
            outputs = _look_up(names, wnids, f"ImageNet's {num_classes} classes")
        elif len(names) > num_classes:
            raise DataError(
                f"labels must lie in 0..{num_classes - 1}, but the data set has {len(names)} "
                f"classes ({_some(names)}); say which output each of them is in a `class_map` file"
            )
        elif len(names) < num_classes:
            return LabelMap(
                unlabelled=f"the data set has {len(names)} classes ({_some(names)}) and the model "
                f"{num_classes}, and nothing says which is which; give a `class_map` file"
            )
        else:
            return LabelMap()
    for name, output in zip(names, outputs, strict=True):
        if not 0 <= output < num_classes:
            raise DataError(
                f"labels must lie in 0..{num_classes - 1}, but class {name!r} maps to {output}; "
                f"correct the class map, or `num_classes`"
            )
    return LabelMap(outputs)


def load_class_map(path: str) -> dict[str, int]:
    """Read a class map: class name -> output of the model.

    Args:
        path: A `.txt` file as timm has it (one name a line, numbered from 0), or a `.json` file
            with an object {name: output} or a list of names in order of the outputs. timm's
            `.pkl` is refused: no pickle from outside.

    Raises:
        DataError: The file cannot be read, or is no class map.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".txt", ".json"):
        raise DataError(f"a class map must be a .txt or .json file, but got {path}; convert it")
    text = read_text(path, "the class map", DataError)
    try:
        content = parse_json(text) if suffix == ".json" else text.splitlines()
    except ValueError as error:
        raise DataError(f"the class map {path} is not valid JSON: {error}") from None
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        names = [name.strip() for name in content]
        while names and not names[-1]:  # blank lines at the end number nothing
            names.pop()
        table = {name: number for number, name in enumerate(names)}
        if len(table) < len(names):
            twice = next(name for number, name in enumerate(names) if table[name] != number)
            raise DataError(f"the class map {path} must name each class once, "
                            f"but has {twice!r} twice")
    elif isinstance(content, dict) and all(type(output) is int for output in content.values()):
        table = content
    else:
        raise DataError(f"the class map {path} must be an object of name: output, or a list of "
                        f"names, but is neither")
    if not table:
        raise DataError(f"the class map {path} names no class")
    return table


def imagenet_wnids(num_classes: int) -> dict[str, int]:
    """wnid -> output of timm's ImageNet models with that many classes; empty if there are none."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": num_classes})
    if subset is None:
        return {}
    return {wnid: output for output, wnid in enumerate(ImageNetInfo(subset).label_names())}


def output_names(num_classes: int, class_map: str | None = None) -> dict[int, str]:
    """Names of a model's outputs, as far as they are known.

    The class map's, where there is one; else what timm calls ImageNet's classes, where the model
    has as many; else none.

    Raises:
        DataError: The class map cannot be read.
    """
    if class_map is not None:
        names: dict[int, str] = {}
        for name, output in load_class_map(class_map).items():
            names.setdefault(output, name)
        return names
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset({"num_classes": num_classes})
    if subset is None:
        return {}
    descriptions = ImageNetInfo(subset).label_descriptions()
    return {output: text.split(",")[0] for output, text in enumerate(descriptions)}


def _numbered(table: dict[str, int], path: str) -> int:
    """How many classes a map keyed by numbers covers."""
    if sorted(table) != sorted(str(number) for number in range(len(table))):
        raise DataError(
            f"the data set numbers its classes without naming them, so the class map {path} must "
            f'have the keys "0" to "{len(table) - 1}", but has {_some(list(table))}'
        )
    return len(table)


def _look_up(names: Sequence[str], table: dict[str, int], where: str) -> tuple[int, ...]:
    missing = [name for name in names if name not in table]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise DataError(
            f"every class must have an output, but class {missing[0]!r}{more} is not in {where}; "
            f"add it in a `class_map` file, or take its images away"
        )
    return tuple(table[name] for name in names)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
