"""The embedded dataset: one whole handwritten digit among fragments of others, to be named.

A scene is a pure function of a vector of uniform numbers, and every step is one of + - * /, floor,
minimum and maximum on float32 or float64: no library resampling and no transcendental function,
so scenes are the same bytes on every machine and with every later numpy.

The 1,797 digits that scikit-learn ships (8x8 pixels, real handwriting, UCI "optical recognition
of handwritten digits", test part) are split by source digit; a scene takes its target and its
clutter from the digits of its own split only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ztp_search.errors import DataError

SPLITS = ("train", "search", "holdout")
SIDE_PIXELS = 40
CLASSES = 10

# The k-th digit of a class (in scikit-learn's order) goes to the split at position k mod 5:
# stratified, 60 / 20 / 20 %, and interleaved, so that no split is a stretch of its own.
_SPLIT_CYCLE = ("train", "train", "train", "search", "holdout")
_SEED = 20_260_101

_FRAGMENTS = 8
_WINDOW = 17  # pixels; a fragment lives inside such a square
_LATTICE = 7  # knots per side of the coarse texture
_TARGET_NUMBERS = 9
_FRAGMENT_NUMBERS = 9
_TEXTURE_NUMBERS = 1 + _LATTICE * _LATTICE + SIDE_PIXELS * SIDE_PIXELS
NUMBERS = _TARGET_NUMBERS + _FRAGMENTS * _FRAGMENT_NUMBERS + _TEXTURE_NUMBERS

_EASY_SCALE = 4.0  # canvas pixels per source pixel of a scene of difficulty 0

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


class Scenes(NamedTuple):
    """A batch of rendered scenes."""

    images: NDArray[np.uint8]  # (B, 40, 40)
    labels: NDArray[np.int64]  # (B,), 0 to 9
    target: F32  # (B, 40, 40) the target's own ink in 0..1, before clutter; for training only


class DigitScenes:
    """Map-style dataset of `length` scenes; scene i is a pure function of (split, i).

    Item: (PIL image, mode "L", 40x40 pixels; label 0 to 9).
    """

    def __init__(self, split: str, length: int = 10_000) -> None:
        check_split(split)
        if length < 0:
            raise DataError(f"length must be 0 or more, but got {length}; ask for 1 scene or more")
        self.split = split
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Image.Image, int]]:
        """Many at a time, ten times as fast (the protocol of PyTorch's batched fetching)."""
        for index in indices:
            if not 0 <= index < self.length:
                raise IndexError(f"scene index must be in 0..{self.length - 1}, but got {index}")
        numbers = np.stack([scene_numbers(self.split, index) for index in indices])
        images, labels, _ = render(self.split, numbers)
        pairs = zip(images, labels, strict=True)
        return [(Image.fromarray(image), int(label)) for image, label in pairs]


def check_split(split: str) -> None:
    if split not in SPLITS:
        raise DataError(
            f"split of the embedded digits must be one of {', '.join(SPLITS)}, but got {split!r}; "
            f"use {SPLITS[1]!r}"
        )


def scene_numbers(split: str, index: int) -> F64:
    """The uniform numbers in [0, 1), shape (NUMBERS,), that scene `index` of `split` is made of."""
    seed = np.random.SeedSequence((_SEED, SPLITS.index(split), index))
    return np.random.Generator(np.random.PCG64(seed)).random(NUMBERS)


def render(split: str, numbers: F64, difficulty: float | F64 = 1.0) -> Scenes:
    """Render scenes of `split` from `numbers` (B, NUMBERS), uniform in [0, 1).

    `difficulty` in [0, 1], one for all or shape (B,): 0 is a clean, large, centred digit, 1 the
    dataset; place, size, clutter and texture grow in proportion.
    """
    source = _source(split)
    hard = np.broadcast_to(np.asarray(difficulty, np.float64), numbers.shape[:1])
    of_target, of_fragments, of_texture = np.split(
        numbers, (_TARGET_NUMBERS, NUMBERS - _TEXTURE_NUMBERS), axis=1
    )
    labels = np.floor(of_target[:, 0] * CLASSES).astype(np.int64)
    place = _place(of_target, hard)
    target = _target(source, labels, of_target, place)
    canvas = np.zeros_like(target)
    of_fragments = of_fragments.reshape(len(numbers), _FRAGMENTS, _FRAGMENT_NUMBERS)
    for k in range(_FRAGMENTS):
        strength = np.clip(hard * _FRAGMENTS - k, 0.0, 1.0)
        _add_fragment(canvas, source, of_fragments[:, k], place, strength)
    # Ink never darkens ink: the brighter of clutter and target shows.
    brightness = _between(of_target[:, 8], 0.7, 1.0).astype(np.float32)[:, None, None]
    np.maximum(canvas, target * brightness, out=canvas)
    images = _add_texture(canvas, of_texture, hard)
    pixels = np.floor(images * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    return Scenes(pixels, labels, target)


class _Source(NamedTuple):
    """The digits of one split, grouped by class."""

    padded: F32  # (digits * 100,) 10x10 each: a zero border around 8x8, values 0..1
    start: NDArray[np.int64]  # (10,) first digit of each class
    size: NDArray[np.int64]  # (10,) digits of each class


def source_indices(split: str) -> NDArray[np.int64]:
    """Indices into scikit-learn's `load_digits` of the digits of `split`, grouped by class."""
    check_split(split)
    labels = _digits().target
    of_class = [np.flatnonzero(labels == c) for c in range(CLASSES)]
    cycle = np.array(_SPLIT_CYCLE)
    return np.concatenate([i[cycle[np.arange(len(i)) % len(cycle)] == split] for i in of_class])


@cache
def _digits() -> Any:
    from sklearn.datasets import load_digits  # takes a second, and only this data set needs it

    return load_digits()


@cache
def _source(split: str) -> _Source:
    bunch = _digits()
    indices = source_indices(split)
    padded = np.zeros((len(indices), 10, 10), np.float32)
    padded[:, 1:9, 1:9] = bunch.images[indices] / 16.0
    size = np.bincount(bunch.target[indices], minlength=CLASSES).astype(np.int64)
    return _Source(padded.reshape(-1), np.cumsum(size) - size, size)


def _between(u: F64, low: float, high: float) -> F64:
    return low + (high - low) * u


class _Place(NamedTuple):
    """Where the target stands, each (B,): its centre in pixels and its pixels per source pixel."""

    x: F64
    y: F64
    scale: F64


def _place(u: F64, hard: F64) -> _Place:
    scale = _EASY_SCALE + hard * (_between(u[:, 2], 2.8, 4.0) - _EASY_SCALE)
    # The whole 8x8 source stays on the canvas wherever the digit is placed.
    free = 0.5 * SIDE_PIXELS - 4.0 * scale
    x = hard * free * _between(u[:, 3], -1.0, 1.0) + 0.5 * SIDE_PIXELS
    y = hard * free * _between(u[:, 4], -1.0, 1.0) + 0.5 * SIDE_PIXELS
    return _Place(x, y, scale)


def _target(source: _Source, labels: NDArray[np.int64], u: F64, place: _Place) -> F32:
    """The target's ink (B, 40, 40) in 0..1."""
    digit = source.start[labels] + np.floor(u[:, 1] * source.size[labels]).astype(np.int64)
    pixels = np.arange(SIDE_PIXELS) + 0.5
    return _stroke(
        source, digit, pixels - place.x[:, None], pixels - place.y[:, None],
        place.scale, turn=_between(u[:, 5], -0.2, 0.2), slant=_between(u[:, 6], -0.2, 0.2),
        aspect=_between(u[:, 7], 0.85, 1.15), middle=np.full((2, len(u)), 4.0),
    )


def _add_fragment(canvas: F32, source: _Source, u: F64, place: _Place, strength: F64) -> None:
    """Draw one fragment per scene into `canvas` (B, 40, 40): a digit seen through a small hole."""
    digits = len(source.padded) // 100
    digit = np.floor(u[:, 0] * digits).astype(np.int64)
    # Anywhere on the canvas, taken as a torus around the target; a fragment that would cover the
    # target's middle is pushed out to its rim, or the digit could not be named.
    x = _between(u[:, 1], -0.5, 0.5) * SIDE_PIXELS
    y = _between(u[:, 2], -0.5, 0.5) * SIDE_PIXELS
    push = np.maximum(3.8 * place.scale / np.maximum(np.maximum(abs(x), abs(y)), 0.1), 1.0)
    left = np.floor((place.x + x * push) % SIDE_PIXELS - 0.5 * _WINDOW).astype(np.int64)
    top = np.floor((place.y + y * push) % SIDE_PIXELS - 0.5 * _WINDOW).astype(np.int64)
    offset = np.broadcast_to(np.arange(_WINDOW) + 0.5 - 0.5 * _WINDOW, (len(u), _WINDOW))
    ink = _stroke(
        source, digit, offset, offset,
        scale=_between(u[:, 3], 2.5, 3.5), turn=_between(u[:, 4], -0.6, 0.6),
        slant=np.zeros(len(u)), aspect=np.ones(len(u)),
        # Source point at the centre of the hole: anywhere but at the source's border.
        middle=np.stack([_between(u[:, 5], 1.5, 6.5), _between(u[:, 6], 1.5, 6.5)]),
    )
    radius = _between(u[:, 7], 5.0, 8.0)[:, None, None]
    distance2 = offset[:, None, :] ** 2 + offset[:, :, None] ** 2
    hole = np.clip((radius * radius - distance2) / (2.0 * radius), 0.0, 1.0)  # about 1 pixel soft
    ink *= (hole * (_between(u[:, 8], 0.5, 1.0) * strength)[:, None, None]).astype(np.float32)
    rows = top[:, None] + np.arange(_WINDOW)  # (B, W); part of it may lie outside the canvas
    columns = left[:, None] + np.arange(_WINDOW)
    inside = ((rows >= 0) & (rows < SIDE_PIXELS))[:, :, None]
    inside = inside & ((columns >= 0) & (columns < SIDE_PIXELS))[:, None, :]
    scene, row, column = np.nonzero(inside)
    pixels = (scene, rows[scene, row], columns[scene, column])
    canvas[pixels] = np.maximum(canvas[pixels], ink[inside])


def _stroke(
    source: _Source, digit: NDArray[np.int64], x: F64, y: F64, scale: F64,
    turn: F64, slant: F64, aspect: F64, middle: F64,
) -> F32:
    """Ink (B, Y, X) in 0..1 of `digit` (B,) at canvas offsets x (B, X), y (B, Y) from its centre.

    Bilinear, then steepened, so that strokes have edges although the source is 8x8. `turn` is the
    tangent of the angle, `middle` (2, B) the source point (x, y) that lies at offset 0.
    """
    u = (x / (scale * aspect)[:, None])[:, None, :]  # (B, 1, X), source pixels
    v = (y / scale[:, None])[:, :, None]  # (B, Y, 1)
    t = turn[:, None, None]
    across = u + (t + slant[:, None, None]) * v + middle[0][:, None, None] + 0.5
    down = v - t * u + middle[1][:, None, None] + 0.5
    across = np.clip(across, 0.0, 8.999).astype(np.float32)  # (B, Y, X) in the padded 10x10
    down = np.clip(down, 0.0, 8.999).astype(np.float32)
    column = across.astype(np.int32)
    row = down.astype(np.int32)
    across -= column
    down -= row
    at = digit.astype(np.int32)[:, None, None] * 100 + row * 10 + column
    p = source.padded
    upper = p[at] * (1 - across) + p[at + 1] * across
    lower = p[at + 10] * (1 - across) + p[at + 11] * across
    ink = upper * (1 - down) + lower * down
    steep: F32 = np.clip((ink - np.float32(0.4)) * np.float32(2.5), 0.0, 1.0)
    return steep


def _add_texture(canvas: F32, u: F64, hard: F64) -> F32:
    """Coarse blotches under the ink and grain over all of it; (B, 40, 40) in 0..1."""
    scenes = len(u)
    fine = u[:, 1 + _LATTICE * _LATTICE :].astype(np.float32).reshape(canvas.shape)
    knots = u[:, 1 : 1 + _LATTICE * _LATTICE].astype(np.float32)
    knots = knots.reshape(scenes, _LATTICE, _LATTICE)
    at = (np.arange(SIDE_PIXELS, dtype=np.float32) + np.float32(0.5)) * np.float32(
        (_LATTICE - 1) / SIDE_PIXELS
    )
    low = at.astype(np.int64)
    part = at - low
    rows = knots[:, low] * (1 - part)[:, None] + knots[:, low + 1] * part[:, None]
    coarse = rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part  # (B, 40, 40)
    amount = (hard * _between(u[:, 0], 0.1, 0.4)).astype(np.float32)[:, None, None]
    ground = amount * coarse
    grain = (hard * 0.36).astype(np.float32)[:, None, None] * (fine - np.float32(0.5))
    textured: F32 = np.clip(ground + (1 - ground) * canvas + grain, 0.0, 1.0)
    return textured
