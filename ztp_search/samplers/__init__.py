"""Samplers by the name that `--sampler` takes; a new one is a file here and a line below."""

from collections.abc import Mapping

from ztp_search.samplers.base import Sampler
from ztp_search.samplers.monte_carlo import MonteCarlo

SAMPLERS: Mapping[str, type[Sampler]] = {"monte-carlo": MonteCarlo}

__all__ = ["SAMPLERS", "MonteCarlo", "Sampler"]
