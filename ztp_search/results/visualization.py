"""What configurations do to images, token by token, and what the model makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import RenderableType

from ztp_search.results.html import html_of, picture_html
from ztp_search.results.shown import Shown
from ztp_search.results.tables import visualization_table
from ztp_search.results.token_maps import LayerMap


@dataclass(frozen=True, slots=True)
class NamedOutput:
    """An output of the model: its index, its name where there is one, and its probability.

    Attributes:
        output: its index; None where a logit was not finite.
        name: as the class map or ImageNet has it.
        probability: None where a logit was not finite, and of a label.
    """

    output: int | None
    name: str | None = None
    probability: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Its part of the document."""
        return {"class": self.output, "name": self.name, "probability": self.probability}


@dataclass(frozen=True, slots=True)
class ReducedImage:
    """One configuration on one image.

    Attributes:
        config: what it is called.
        gflops: as in a configuration file.
        prediction: of the pruned model.
        layers: in order.
    """

    config: str
    gflops: Mapping[str, float]
    prediction: NamedOutput
    layers: tuple[LayerMap, ...]

    def to_dict(self) -> dict[str, Any]:
        """Its part of the document."""
        return {
            "config": self.config,
            "gflops": dict(self.gflops),
            "prediction": self.prediction.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
        }


@dataclass(frozen=True, slots=True)
class ImageView:
    """One image, as the model sees it, and what each configuration does to it.

    Attributes:
        name: its file, or its number in its image set.
        pixels: resized and cropped, before normalisation, (H, W, 3).
        label: None where unknown.
        unpruned: the prediction of the unpruned model.
        reduced: by configuration.
    """

    name: str
    pixels: NDArray[np.uint8]
    label: NamedOutput | None
    unpruned: NamedOutput
    reduced: tuple[ReducedImage, ...]

    def to_dict(self) -> dict[str, Any]:
        """Its part of the document."""
        label = None
        if self.label is not None:
            label = {"class": self.label.output, "name": self.label.name}
        return {
            "image": self.name,
            "label": label,
            "unpruned": self.unpruned.to_dict(),
            "configs": [each.to_dict() for each in self.reduced],
        }


@dataclass(frozen=True, slots=True, repr=False)
class Visualization(Shown):
    """What was drawn, or is to be; a notebook shows the picture too, unless that is a PDF.

    Attributes:
        output: the file; "" where there is none.
        model: its name.
        patch_size: height and width of a patch in pixels.
        importance: whether the importance that layers ranked by is drawn too.
        images: what was drawn of each.
    """

    output: str
    model: str
    patch_size: tuple[int, int]
    importance: bool
    images: tuple[ImageView, ...]

    def to_dict(self) -> dict[str, Any]:
        """The document that `ztp-search visualize --json` prints."""
        return {
            "output": self.output,
            "model": self.model,
            "importance": self.importance,
            "images": [image.to_dict() for image in self.images],
        }

    def __rich__(self) -> RenderableType:
        return visualization_table(self.to_dict())

    def _repr_html_(self) -> str:
        return html_of(self.__rich__()) + picture_html(Path(self.output))
