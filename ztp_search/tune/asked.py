"""What the settings of a search mean where Ray Tune runs it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ztp_search.driver.start import resolved
from ztp_search.errors import ZtpError
from ztp_search.settings import ResolvedSearch, SearchSettings

TUNES: Mapping[str, str] = {
    "trials": "give `num_samples` to TuneConfig",
    "timeout": "give `time_budget_s` to TuneConfig",
    "racing": "give a `scheduler` to TuneConfig",
    "workers": "give `max_concurrent_trials` to TuneConfig",
    "address": "call ray.init with it",
    "storage": "give `storage_path` to RunConfig",
    "study": "give `name` to RunConfig",
    "refine": "leave it out",
    "candidates": "leave it out",
}
"""Settings that Tune, or nobody, has a say in, and what to do instead."""


def resolved_for_tune(settings: SearchSettings) -> tuple[ResolvedSearch, str]:
    """What is searched, and under which budget.

    Raises:
        ZtpError: what the settings alone show to be wrong, among it those that are Tune's.
    """
    usual = {each.name: each.default for each in dataclasses.fields(SearchSettings)}
    for name, instead in TUNES.items():
        value = getattr(settings, name)
        if value != usual[name]:
            raise ZtpError(f"`{name}` is not for Ray Tune, but got {value!r}; {instead}")
    if len(settings.budgets) > 1:
        raise ZtpError(
            f"`budget` must be one budget, but got {', '.join(settings.budgets)}; "
            "run a Tuner for each"
        )
    return resolved(settings), settings.budgets[0]
