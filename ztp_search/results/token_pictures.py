"""An image with the patches that pruning took out painted over, and the lines drawn upon it.

Pixels are painted with numpy alone; lines and dots are given in units of patches, x to the right
and y down from the upper left corner. Letters in shapes: H and W pixels, R rows and C columns of
patches, P = R C patches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ztp_search.results.token_maps import DROPPED, Fate, Indices, LayerMap, Mask

Pixels = NDArray[np.uint8]
Lines = NDArray[np.float64]

S_COLOUR, I_COLOUR, BEFORE_COLOUR = "#0072b2", "#e69f00", "#e6e6e6"
"""Okabe and Ito's blue and orange, told apart by all eyes and in grey; and grey."""
DROPPED_COLOURS = {
    Fate.S_DROPPED: S_COLOUR, Fate.I_DROPPED: I_COLOUR, Fate.DROPPED_BEFORE: BEFORE_COLOUR,
}  # fmt: skip


def grid_of(pixels: Pixels, patch_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of patches of an image, (H, W, 3)."""
    return pixels.shape[0] // patch_size[0], pixels.shape[1] // patch_size[1]


def painted(pixels: Pixels, patch_size: tuple[int, int], layer: LayerMap) -> Pixels:
    """The image as a layer leaves it, (H, W, 3).

    Patches that are dropped have the colour of their stage, and patches that share a token the
    mean colour of all of these.

    Args:
        pixels: the image, (H, W, 3).
        patch_size: height and width of a patch in pixels.
        layer: the layer.
    """
    rows, columns = grid_of(pixels, patch_size)
    height, width = patch_size
    out = pixels.copy()
    inner = out[: rows * height, : columns * width]  # what lies beyond is in no patch
    patches = inner.reshape(rows, height, columns, width, 3).swapaxes(1, 2)  # (R, C, h, w, 3)
    patches = patches.reshape(rows * columns, height * width, 3)
    shared = shares_token(layer.groups)
    means = patches.mean(1)  # (P, 3)
    for token in np.unique(layer.groups[shared]):
        together = layer.groups == token
        patches[together] = np.rint(means[together].mean(0)).astype(np.uint8)
    for fate, colour in DROPPED_COLOURS.items():
        patches[layer.fates == fate] = rgb(colour)
    blocks = patches.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    inner[:] = blocks.reshape(rows * height, columns * width, 3)
    return out


def shares_token(groups: Indices) -> Mask:
    """The patches that are in one token with others, (P,)."""
    alive = groups != DROPPED
    patches_in = np.bincount(groups[alive], minlength=len(groups))  # by token
    shared: Mask = alive & (patches_in[groups] > 1)
    return shared


def outlines(groups: Indices, columns: int) -> Lines:
    """The borders of patches that share a token with others, towards other tokens' patches.

    Returns:
        Line segments in units of patches, (segments, 2 ends, x and y).
    """
    grid = groups.reshape(-1, columns)
    shared = np.pad(shares_token(groups).reshape(grid.shape), 1)
    token = np.pad(grid, 1, constant_values=DROPPED - 1)
    differ = (token[:, 1:] != token[:, :-1]) & (shared[:, 1:] | shared[:, :-1])
    y, x = np.nonzero(differ[1:-1])  # between column x - 1 and x
    upright = np.stack([np.stack([x, y], 1), np.stack([x, y + 1], 1)], 1)
    differ = (token[1:] != token[:-1]) & (shared[1:] | shared[:-1])
    y, x = np.nonzero(differ[:, 1:-1])
    level = np.stack([np.stack([x, y], 1), np.stack([x + 1, y], 1)], 1)
    return np.concatenate([upright, level]).astype(np.float64)


def corners(mask: Mask, columns: int) -> Lines:
    """The upper left corners of the patches in a mask, in units of patches, (patches, x and y)."""
    y, x = np.nonzero(mask.reshape(-1, columns))
    return np.stack([x, y], 1).astype(np.float64)


def relative_importance(layer: LayerMap, columns: int) -> NDArray[np.float64] | None:
    """Importance over the mean of all patch tokens that were ranked, by patch, (R, C).

    NaN where the token of a patch was not ranked; None where the layer ranks none.
    """
    if layer.importance is None:
        return None
    once = layer.groups_in == np.arange(len(layer.groups_in))  # a patch of each token
    relative: NDArray[np.float64] = layer.importance / np.nanmean(layer.importance[once])
    return relative.reshape(-1, columns)


def rgb(colour: str) -> tuple[int, int, int]:
    """#rrggbb as three numbers from 0 to 255."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return red, green, blue
