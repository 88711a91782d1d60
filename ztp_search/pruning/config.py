"""A pruning configuration: where tokens are pruned, how many, and how they are ranked.

Both classes are frozen and check themselves when made. `to_dict` is the only way to JSON, and
`methods.parse_config` the way back. Counts are not computed here: see `tokens.token_counts`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ztp_search.errors import ConfigError

CHOICES: Mapping[str, tuple[str, ...]] = {
    "variant": ("zero-tprune", "zero-tprune-uni"),
    "partition": ("sequential-u", "sequential-i", "alternate", "random", "position"),
    "features": ("key", "query", "value", "x"),
    "metric": ("cosine", "euclidean", "manhattan"),
    "order": ("i'-s-i", "i-s"),
    "aggregation": ("eir", "mean", "max"),
    "similar": ("drop", "merge"),
    "sizes": ("ignore", "track"),
}
"""The named design variants of the method; the first of each is the default, and the paper's."""

RETENTION_UNIT = 10_000
"""Searched retention rates are multiples of 1/RETENTION_UNIT: readable, and fine enough for 5,000
tokens."""

MOST_BLOCKS, MOST_TOKENS, MOST_ITERATIONS = 1_000, 1_000_000, 10_000
"""More than any model has, and any ranking needs."""


@dataclass(frozen=True, slots=True)
class PruningLayer:
    """One pruning layer.

    Attributes:
        after_block: the transformer block it follows, counted from 1.
        retention: r in (0, 1]; of n incoming patch tokens the I-stage prunes
            n - round_half_up(r n).
        s_tokens: patch tokens that the S-stage prunes; 0 skips the I'- and S-stages.
        wpr_iterations: iterations of weighted PageRank in the I-stage, at least 1.
        merge_share: share in [0, 1] of the tokens pruned by the I-stage, the most similar first,
            that are merged into their most similar kept token instead of dropped.

    Raises:
        ConfigError: names the first field that is wrong.

    Example:
        >>> PruningLayer(3, retention=0.8, s_tokens=10, wpr_iterations=5)
        PruningLayer(after_block=3, retention=0.8, s_tokens=10, wpr_iterations=5, merge_share=0.0)
    """

    after_block: int
    retention: float = 1.0
    s_tokens: int = 0
    wpr_iterations: int = 1
    merge_share: float = 0.0

    def __post_init__(self) -> None:
        where = f"layer after block {self.after_block}"
        for name in ("after_block", "s_tokens", "wpr_iterations"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"{name} must be an integer, but got {value!r} ({where})")
        if not 1 <= self.after_block <= MOST_BLOCKS:
            raise ConfigError(
                f"1 <= after_block <= {MOST_BLOCKS} must hold, but got {self.after_block}"
            )
        for name in ("retention", "merge_share"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ConfigError(f"{name} must be a number, but got {value!r} ({where})")
        if not 0.0 < self.retention <= 1.0:
            raise ConfigError(f"0 < retention <= 1 must hold, but got {self.retention} ({where})")
        if not 0.0 <= self.merge_share <= 1.0:
            raise ConfigError(
                f"0 <= merge_share <= 1 must hold, but got {self.merge_share} ({where})"
            )
        object.__setattr__(self, "retention", float(self.retention))
        object.__setattr__(self, "merge_share", float(self.merge_share))
        if not 0 <= self.s_tokens <= MOST_TOKENS:
            raise ConfigError(
                f"0 <= s_tokens <= {MOST_TOKENS} must hold, but got {self.s_tokens} ({where})"
            )
        if not 1 <= self.wpr_iterations <= MOST_ITERATIONS:
            raise ConfigError(
                f"1 <= wpr_iterations <= {MOST_ITERATIONS} must hold, but got "
                f"{self.wpr_iterations} ({where})"
            )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; `merge_share` stands in it where it is not 0."""
        out = {name: getattr(self, name) for name in LAYER_FIELDS}
        if not self.merge_share:
            del out["merge_share"]
        return out


LAYER_FIELDS = tuple(field.name for field in dataclasses.fields(PruningLayer))


@dataclass(frozen=True, slots=True)
class PruningConfig:
    """Pruning layers in ascending order of block, and how importance is computed.

    Attributes:
        method: the name in `methods.METHODS` of the method that this configures.
        layers: ascending by block, at most one behind each.
        v_min, v_max: heads whose variance (squared coefficient of variation of their scores over
            patch tokens) lies outside [v_min, v_max] do not count (VHF).
        variant: where WPR starts from: "zero-tprune" gives the class token sqrt(N) times the
            score of another, "zero-tprune-uni" all the same.
        partition: which half of the tokens the S-stage may take: "sequential-u" the less
            important one, "sequential-i" the more important one, "alternate" every other token by
            importance, "position" every other one by position (as ToMe), "random" a fixed half.
        features: what tokens are compared by: "key", "query" or "value" of the block's attention,
            or "x", the block's output.
        metric: "cosine", "euclidean" or "manhattan".
        order: "i'-s-i" has the S-stage first, "i-s" the I-stage.
        aggregation: of the heads' scores: "eir" (root of the mean square), "mean" or "max".
        similar: whether the S-stage's tokens "drop" or "merge".
        sizes: whether merged tokens "track" how many patches they stand for (ToMe's proportional
            attention), or "ignore" it.

    Raises:
        ConfigError: names the first field that is wrong.

    Example:
        >>> config = PruningConfig((PruningLayer(3, 0.8), PruningLayer(6, 0.7)), features="x")
        >>> [layer.after_block for layer in config.layers]
        [3, 6]
    """

    method: ClassVar[str] = "zero-tprune"

    layers: tuple[PruningLayer, ...] = ()
    v_min: float = 0.01
    v_max: float = 12.5
    variant: str = field(default="zero-tprune")
    partition: str = field(default="sequential-u")
    features: str = field(default="key")
    metric: str = field(default="cosine")
    order: str = field(default="i'-s-i")
    aggregation: str = field(default="eir")
    similar: str = field(default="drop")
    sizes: str = field(default="ignore")

    def __post_init__(self) -> None:
        blocks = [layer.after_block for layer in self.layers]
        if blocks != sorted(set(blocks)):
            raise ConfigError(
                f"pruning layers must ascend by after_block, each block once, but got {blocks}"
            )
        for name in ("v_min", "v_max"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e308:
                raise ConfigError(f"{name} must be a finite number, but got {value!r}")
            object.__setattr__(self, name, float(value))
        if not 0.0 <= self.v_min <= self.v_max:
            raise ConfigError(
                "0 <= v_min <= v_max must hold, but got "
                f"v_min={self.v_min}, v_max={self.v_max}"
            )
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ConfigError(
                    f"{name} must be one of {', '.join(choices)}, but got {getattr(self, name)!r}"
                )

    @property
    def merges(self) -> bool:
        """Whether it goes beyond the paper, by fields that version 1 of the file has not."""
        return (
            self.similar != "drop"
            or self.sizes != "ignore"
            or self.partition == "position"
            or any(layer.merge_share for layer in self.layers)
        )

    def to_dict(self) -> dict[str, Any]:
        """The JSON form.

        `variant` always stands in it, other design variants where they are not the default, and
        the method not at all: it is Zero-TPrune.
        """
        out: dict[str, Any] = {
            "variant": self.variant,
            "v_min": self.v_min,
            "v_max": self.v_max,
            "layers": [layer.to_dict() for layer in self.layers],
        }
        for name, choices in CHOICES.items():
            if getattr(self, name) != choices[0]:
                out[name] = getattr(self, name)
        return out

    @classmethod
    def from_dict(cls, data: Any, where: str = "config") -> PruningConfig:
        """Read the JSON form back.

        Args:
            data: A mapping, of which only `layers` is needed.
            where: The place of `data`, for messages.

        Raises:
            ConfigError: names the first key that is unknown, missing or wrong.
        """
        check_keys(data, where, {"layers"}, {"method", "v_min", "v_max", *CHOICES})
        if data.get("method", cls.method) != cls.method:
            raise ConfigError(f"{where}.method must be {cls.method}, but got {data['method']!r}")
        if not isinstance(data["layers"], list):
            raise ConfigError(f"{where}.layers must be a list, but got {data['layers']!r}")
        layers = []
        for index, item in enumerate(data["layers"]):
            optional = set(LAYER_FIELDS) - {"after_block"}
            check_keys(item, f"{where}.layers[{index}]", {"after_block"}, optional)
            layers.append(PruningLayer(**item))
        rest = {key: value for key, value in data.items() if key not in ("layers", "method")}
        return cls(layers=tuple(layers), **rest)

    def digest(self) -> str:
        """SHA-256 of the canonical JSON form."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


def check_keys(
    data: Any,
    where: str,
    required: set[str],
    optional: set[str],
    error: type[Exception] = ConfigError,
) -> None:
    """Raise `error` by name unless `data` is a mapping with just these keys."""
    if not isinstance(data, Mapping):
        raise error(f"{where} must be a mapping with {', '.join(sorted(required | optional))}, "
                    f"but got {data!r}")
    known = ", ".join(sorted(required | optional))
    for key in data:
        if key not in required | optional:
            raise error(f"{where}: unknown key {key!r}; known are {known}")
    for key in sorted(required):
        if key not in data:
            raise error(f"{where}: key {key!r} is missing; known are {known}")
