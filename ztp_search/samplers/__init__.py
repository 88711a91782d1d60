"""Samplers by the name of the setting `sampler`; a new one is a file here and a line below."""

from collections.abc import Mapping

from ztp_search.samplers.adaptive import AdaptiveSampler
from ztp_search.samplers.base import Proposal, Proposer, Sampler
from ztp_search.samplers.cma_es import CmaEs
from ztp_search.samplers.known import Known
from ztp_search.samplers.monte_carlo import MonteCarlo
from ztp_search.samplers.qmc import QuasiMonteCarlo
from ztp_search.samplers.refine import Refine
from ztp_search.samplers.surrogate import Surrogate
from ztp_search.samplers.tpe import Tpe

SAMPLERS: Mapping[str, type[Sampler]] = {
    "monte-carlo": MonteCarlo,
    "qmc": QuasiMonteCarlo,
    "tpe": Tpe,
    "cma-es": CmaEs,
    "surrogate": Surrogate,
}
"""Classes by name, the default first."""

__all__ = [
    "SAMPLERS", "AdaptiveSampler", "CmaEs", "Known", "MonteCarlo", "Proposal", "Proposer",
    "QuasiMonteCarlo", "Refine", "Sampler", "Surrogate", "Tpe",
]  # fmt: skip
