"""Samplers by the name that `--sampler` takes; a new one is a file here and a line below."""

from collections.abc import Mapping

from ztp_search.samplers.base import Proposal, Sampler
from ztp_search.samplers.from_optuna import CmaEs, Nsga2, Tpe
from ztp_search.samplers.monte_carlo import MonteCarlo
from ztp_search.samplers.qmc import QuasiMonteCarlo
from ztp_search.samplers.refine import Refine
from ztp_search.samplers.seen import Seen

SAMPLERS: Mapping[str, type[Sampler]] = {
    "monte-carlo": MonteCarlo,
    "qmc": QuasiMonteCarlo,
    "tpe": Tpe,
    "cma-es": CmaEs,
    "nsga2": Nsga2,
}

__all__ = [
    "SAMPLERS", "CmaEs", "MonteCarlo", "Nsga2", "Proposal", "QuasiMonteCarlo", "Refine",
    "Sampler", "Seen", "Tpe",
]  # fmt: skip
