"""Which of Tune's results is the best."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ztp_search.errors import ZtpError


def best_result(results: Iterable[Any], metric: str = "loss", mode: str = "min") -> Any:
    """The best of those results that have seen most images.

    Tune's own `get_best_result` compares all of them, also such as looked good on the few images
    after which they were stopped.

    Args:
        results: of `Tuner.fit`, of an `Evaluation` each.
        metric, mode: what is compared, "min" or "max".

    Returns:
        One of the results; of equals the first.

    Raises:
        ZtpError: there is none that has the metric.
    """
    if mode not in ("min", "max"):
        raise ZtpError(f"`mode` must be min or max, but got {mode!r}")
    measured = [each for each in results if _has(each.metrics or {}, metric)]
    if not measured:
        raise ZtpError(f"no result has seen images and has {metric!r}; look at their errors")
    most = max(each.metrics["images"] for each in measured)
    through = [each for each in measured if each.metrics["images"] == most]
    better = min if mode == "min" else max
    return better(through, key=lambda each: each.metrics[metric])


def _has(metrics: dict[str, Any], metric: str) -> bool:
    value = metrics.get(metric)
    return "images" in metrics and isinstance(value, int | float) and math.isfinite(value)
