"""What made a result: all that its last bits depend on beside the study's own settings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ztp_search.evaluation.runtime import Runtime


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """The kind of device, the precision and the images per forward that results come from.

    device: what a GPU calls itself, or the instructions of a CPU that PyTorch makes use of.
    """

    device: str
    precision: str
    batch_size: int


Origins = Mapping[Origin, int]
"""Of how many images the results come from where."""


def origin_of(runtime: Runtime, batch_size: int) -> Origin:
    """Of results that are made in this process; batch_size: where memory is short, of fewer."""
    if runtime.device == "cpu":
        device = f"CPU ({torch.backends.cpu.get_cpu_capability()})"
    else:
        device = torch.cuda.get_device_name()
    return Origin(device, runtime.precision, batch_size)


def joined(parts: Iterable[Origins]) -> Origins:
    """Of all parts together."""
    whole: Counter[Origin] = Counter()
    for part in parts:
        whole.update(part)
    return whole


def origins_to_json(origins: Origins) -> list[dict[str, Any]]:
    """As a study keeps them: the fields of each, and `images`."""
    return [{**asdict(origin), "images": images} for origin, images in sorted(origins.items())]


def origins_from_json(stored: Iterable[Mapping[str, Any]]) -> Origins:
    """What `origins_to_json` has written."""
    return {
        Origin(each["device"], each["precision"], each["batch_size"]): each["images"]
        for each in stored
    }
