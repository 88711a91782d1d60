"""Samplers that make no use of results: uniform points, and points that leave fewer holes."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.spaces import wide
from scipy.stats import qmc

from ztp_search.errors import BudgetError
from ztp_search.samplers import SAMPLERS, MonteCarlo, QuasiMonteCarlo

DIMENSIONS = 38
"""Of `wide`: the locations; share kept, share of S, iterations and share merged after 7 blocks; two
tilts, the corner, four design variants, two thresholds."""


@pytest.mark.parametrize("name", ["monte-carlo", "qmc"])
def test_points_are_uniform(name: str) -> None:
    sampler = SAMPLERS[name](wide(), seed=0)
    array = np.array([sampler.point(index, 0) for index in range(1000)])
    assert ((array >= 0) & (array < 1)).all()
    # the mean of 1,000 uniform numbers has a standard deviation of 0.0091
    assert np.abs(array.mean(axis=0) - 0.5).max() < 5 * 0.0091
    tenths = np.array([np.histogram(column, 10, (0, 1))[0] for column in array.T])
    assert np.abs(tenths - 100).max() < 5 * 10
    correlation = np.corrcoef(array.T) - np.eye(array.shape[1])
    assert np.abs(correlation).max() < 6 / np.sqrt(1000)


def test_monte_carlo_draws_from_seed_index_and_attempt_alone() -> None:
    # studies made before must resume: these are the points they were made with
    sampler = MonteCarlo(wide(), seed=4)
    for index in (0, 1, 77):
        for attempt in (0, 3):
            expected = np.random.default_rng([4, index, attempt]).random(DIMENSIONS)
            assert np.array_equal(sampler.point(index, attempt), expected)
    proposal = sampler.propose(5)
    assert proposal is not None
    point = np.random.default_rng([4, 5, 0]).random(DIMENSIONS)
    assert proposal.config == sampler.decoder.decode(point.tolist())


def test_quasi_monte_carlo_points_depend_on_the_index_alone() -> None:
    # slowly: the whole sequence at once
    sequence = qmc.Sobol(DIMENSIONS, scramble=True, rng=np.random.default_rng([9])).random(1024)
    sampler = QuasiMonteCarlo(wide(), seed=9)
    for index in (700, 0, 255, 256, 1023, 3):
        assert np.array_equal(sampler.point(index, 0), sequence[index])


def test_quasi_monte_carlo_leaves_fewer_holes_than_monte_carlo() -> None:
    # Of 256 points of a Sobol' sequence one falls in each 256th of every axis; of independent
    # ones a share of 1/e stays empty.
    quasi, plain = QuasiMonteCarlo(wide(), seed=2), MonteCarlo(wide(), seed=2)
    even = np.array([quasi.point(i, 0) for i in range(256)])
    random = np.array([plain.point(i, 0) for i in range(256)])
    for column in even.T:
        assert len(np.unique((column * 256).astype(int))) == 256
    filled = [len(np.unique((column * 256).astype(int))) for column in random.T]
    assert max(filled) < 200


def test_a_budget_missed_by_every_point_is_an_error_only_where_none_ever_met_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missed(*_: object) -> None:
        raise BudgetError("one token costs more than the tolerance")

    sampler = MonteCarlo(wide(), seed=0)
    assert sampler.propose(0) is not None
    monkeypatch.setattr(type(sampler.decoder), "decode", missed)
    assert sampler.propose(1) is None
    with pytest.raises(BudgetError, match="tolerance"):
        MonteCarlo(wide(), seed=0).propose(0)
