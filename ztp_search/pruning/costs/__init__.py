"""Cost models by name; a new one is a file here and a line below."""

from collections.abc import Mapping

from ztp_search.pruning.costs.base import CostModel, LayerCost
from ztp_search.pruning.costs.gflops import Gflops

COST_MODELS: Mapping[str, type[CostModel]] = {"gflops": Gflops}
"""Classes by name."""

__all__ = ["COST_MODELS", "CostModel", "Gflops", "LayerCost"]
