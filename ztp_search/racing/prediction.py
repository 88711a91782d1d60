"""Who is best at last: accuracy, with what losses tell of it.

Accuracy on n images has a standard error of tenths of a point, and the best trials of a study lie
closer together. Their mean losses tell them apart far better, but measure something else. So each
accuracy is drawn towards what the losses predict, by as much as its own noise makes right: little
where many images were seen or losses predict badly, nearly all the way where they say all there is
to say. This is the empirical best linear predictor of Fay and Herriot (1979), "Estimates of income
for small places: an application of James-Stein procedures to census data".

All trials see the same images, so their errors have a part in common, which the variances below
hold as well and which tells nothing of who is best: accuracies are trusted a little less than they
deserve. Taking that part off was tried: on recorded results it changed nothing on one task and
chose worse winners on another (-0.04 ± 0.03 points), so it stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ztp_search.racing.results import Results
from ztp_search.racing.statistics import Correct, discordant

Floats = npt.NDArray[np.float64]

FEWEST = 5
"""Trials that a regression is fitted to; of fewer, accuracy decides."""
LEAST_LOSS = 1e-5
"""Added before the logarithm is taken of a mean loss."""
SAME = 1e-9
"""Logarithms that lie no farther apart are those of the same loss."""


def predicted_differences(field: Sequence[Results], unpruned: Correct) -> Floats:
    """Predict by how much each trial's accuracy differs from the unpruned model's.

    Args:
        field: Results of each trial, some perhaps on more images than others.
        unpruned: The unpruned model's on all images, (images,).

    Returns:
        (trials,), fractions of one. Without losses these are the differences as they were found.
    """
    found, variance = np.array([_difference(each, unpruned) for each in field]).reshape(-1, 2).T
    if len(field) < FEWEST or any(each.losses is None for each in field):
        return found
    log_loss = np.log([each.loss + LEAST_LOSS for each in field])
    spread = _spread(found, variance, log_loss)
    line = _line(found, variance + spread, log_loss)
    own = spread / (variance + spread)  # how much a trial's own accuracy counts
    predicted: Floats = line + own * (found - line)
    return predicted


def _difference(results: Results, unpruned: Correct) -> tuple[float, float]:
    """Paired difference of accuracy, and its variance with one pair of each kind added."""
    pairs = discordant(results.correct, unpruned[: len(results)])
    return (pairs.wins - pairs.losses) / pairs.images, pairs.variance / pairs.images


def _spread(found: Floats, variance: Floats, log_loss: Floats) -> float:
    """Variance of true accuracies about the regression line, by the method of moments.

    The value at which the weighted squares of residuals add up to their degrees of freedom; 0
    where noise alone explains them.
    """
    freedom = len(found) - (2 if _slope(found, variance, log_loss) < 0 else 1)

    def squares(spread: float) -> float:
        weights = 1 / (variance + spread)
        residuals = found - _line(found, variance + spread, log_loss)
        return float((weights * residuals**2).sum())

    low, high = 0.0, 1.0
    if squares(low) <= freedom:
        return low
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if squares(middle) > freedom else (low, middle)
    return low


def _line(found: Floats, variance: Floats, log_loss: Floats) -> Floats:
    """The regression line of weighted least squares at each trial, (trials,)."""
    weights = 1 / variance
    centre = np.average(log_loss, weights=weights)
    slope = _slope(found, variance, log_loss)
    line: Floats = np.average(found, weights=weights) + slope * (log_loss - centre)
    return line


def _slope(found: Floats, variance: Floats, log_loss: Floats) -> float:
    """Slope of weighted least squares; 0 where it would have more loss mean more accuracy."""
    if np.ptp(log_loss) < SAME:
        return 0.0
    weights = 1 / variance
    x = log_loss - np.average(log_loss, weights=weights)
    return min(0.0, float((weights * x * found).sum() / (weights * x * x).sum()))
