"""What pruning layers have made of the patches of one image: who was taken out, where, into whom.

A patch token is called by the number of its patch, which counts row by row. Letters in shapes: P
patches of the unpruned model, T tokens that come into a layer, prefix included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Indices: TypeAlias = NDArray[np.int64]
Scores: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

DROPPED = -1
"""The group of a patch that is in no token any more."""
STAGES = ("s", "i")


class Fate(IntEnum):
    """What has become of a patch by the end of a pruning layer; BEFORE: in an earlier layer."""

    KEPT = 0
    S_DROPPED = 1
    S_MERGED = 2
    I_DROPPED = 3
    I_MERGED = 4
    DROPPED_BEFORE = 5
    MERGED_BEFORE = 6


@dataclass(frozen=True, slots=True)
class LayerMap:
    """One pruning layer at work on one image.

    Attributes:
        after_block: where it stands.
        tokens_in, tokens_out: how many tokens come in and leave, prefix included.
        dropped, merged: by stage ("s", "i"), how many tokens it has taken out and which have
            become so; what was merged into a token that the layer drops is dropped.
        fates: of each patch, by the layer's end, (P,).
        groups_in, groups: the token that each patch is in as the layer begins and ends; `DROPPED`
            where there is none, (P,).
        importance: of the token that each patch was in when tokens were ranked, NaN where it was
            in none, (P,); None where the layer ranks no tokens.
    """

    after_block: int
    tokens_in: int
    tokens_out: int
    dropped: Mapping[str, int]
    merged: Mapping[str, int]
    fates: NDArray[np.uint8]
    groups_in: Indices
    groups: Indices
    importance: Scores | None

    @property
    def taken_out(self) -> Mask:
        """The patches whose token this layer takes out, (P,)."""
        taken_out: Mask = self.groups_in != self.groups
        return taken_out

    def to_dict(self) -> dict[str, Any]:
        """The layer in the document that `ztp-search visualize --json` prints."""
        return {
            "after_block": self.after_block,
            "tokens_in": self.tokens_in,
            "tokens_out": self.tokens_out,
            "dropped": dict(self.dropped),
            "merged": dict(self.merged),
        }


def layer_maps(
    records: Sequence[Mapping[str, Any]], *, patches: int, prefix: int, s_first: bool
) -> tuple[LayerMap, ...]:
    """The layers of a configuration on one image.

    Args:
        records: what `apply(…, record_tokens=True)` leaves of this image, as arrays, layer by
            layer.
        patches: patch tokens of the unpruned model.
        prefix: class, distillation and register tokens, which come first in the sequence.
        s_first: whether the S-stage comes before the I-stage.
    """
    maps: list[LayerMap] = []
    sequence = np.arange(prefix + patches)
    groups = np.arange(patches)
    fates = np.full(patches, Fate.KEPT, np.uint8)
    for record in records:
        layer = _layer_map(record, sequence, groups, fates, prefix, s_first)
        maps.append(layer)
        sequence, groups, fates = record["layer"], layer.groups, layer.fates
    return tuple(maps)


def _layer_map(
    record: Mapping[str, Any],
    sequence: Indices,
    groups_in: Indices,
    fates_before: NDArray[np.uint8],
    prefix: int,
    s_first: bool,
) -> LayerMap:
    """One layer, from what the layers before it have left.

    Args:
        record: of the layer.
        sequence: the tokens that come in, as indices into the unpruned sequence, (T,).
        groups_in, fates_before: as the layer before it left them, (P,).
        prefix: how many tokens stand before the patch tokens.
        s_first: whether the S-stage comes first.
    """
    patches = len(groups_in)
    alive = {stage: _patch_mask(record[stage], patches, prefix) for stage in STAGES}
    came_in = _patch_mask(sequence, patches, prefix)
    first, second = STAGES if s_first else STAGES[::-1]
    removed = {first: came_in & ~alive[first], second: alive[first] & ~alive[second]}  # (P,) each
    ends = np.arange(patches)  # the token that each token has become
    ends[removed["s"] | removed["i"]] = DROPPED
    merged, into = record["merged"] - prefix, record["into"]
    ends[merged] = np.where(into < 0, DROPPED, into - prefix)
    groups = np.where(groups_in == DROPPED, DROPPED, ends[groups_in])
    i_stage = removed["i"].any()
    ranked = alive["s"] if s_first and i_stage else came_in  # by the last stage that ranks
    return LayerMap(
        after_block=record["after_block"],
        tokens_in=len(sequence),
        tokens_out=len(record["layer"]),
        dropped={stage: int((removed[stage] & (ends == DROPPED)).sum()) for stage in STAGES},
        merged={stage: int((removed[stage] & (ends != DROPPED)).sum()) for stage in STAGES},
        fates=_fates(fates_before, groups_in, groups, removed["s"]),
        groups_in=groups_in,
        groups=groups,
        importance=_importance(record["importance"], sequence, groups_in, ranked, prefix),
    )


def _patch_mask(tokens: Indices, patches: int, prefix: int) -> Mask:
    """Which patch tokens are among `tokens`, (P,)."""
    mask = np.zeros(patches, np.bool_)
    mask[tokens[prefix:] - prefix] = True
    return mask


def _fates(
    before: NDArray[np.uint8], groups_in: Indices, groups: Indices, removed_by_s: Mask
) -> NDArray[np.uint8]:
    """What has become of each patch, (P,).

    A patch that was merged before stays so while its token goes from one to another, and is
    dropped with it.
    """
    fates = before.copy()
    fates[(before == Fate.S_DROPPED) | (before == Fate.I_DROPPED)] = Fate.DROPPED_BEFORE
    fates[(before == Fate.S_MERGED) | (before == Fate.I_MERGED)] = Fate.MERGED_BEFORE
    by_s = removed_by_s[groups_in] & (groups_in != DROPPED)
    gone = (groups == DROPPED) & (groups_in != DROPPED)
    fates[gone] = np.where(by_s, Fate.S_DROPPED, Fate.I_DROPPED)[gone]
    own = groups_in == np.arange(len(groups))  # patches whose token is called by them
    merged = own & ~gone & (groups != groups_in)
    fates[merged] = np.where(by_s, Fate.S_MERGED, Fate.I_MERGED)[merged]
    return fates


def _importance(
    scores: Scores | None, sequence: Indices, groups_in: Indices, ranked: Mask, prefix: int
) -> Scores | None:
    """Of the token that each patch is in, NaN where that was not ranked, (P,).

    Args:
        scores: of the tokens that come in, (T,).
        sequence: those tokens, (T,).
        groups_in: the token that each patch is in, (P,).
        ranked: the patch tokens that were ranked, (P,).
        prefix: how many tokens stand before the patch tokens.
    """
    if scores is None:
        return None
    of_token = np.full(len(groups_in), np.nan)
    of_token[sequence[prefix:] - prefix] = scores[prefix:]
    of_token[~ranked] = np.nan
    return np.where(groups_in == DROPPED, np.nan, of_token[groups_in])
