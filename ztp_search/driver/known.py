"""What is known before a search and races in it: enqueued files and hand-set schedules."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ztp_search.errors import ConfigError
from ztp_search.pruning.config import PruningConfig
from ztp_search.space.decoder import Decoder


def known_configs(
    enqueued: Mapping[str, PruningConfig], decoder: Decoder
) -> dict[PruningConfig, dict[str, str]]:
    """What is known beforehand and meets the budget, with where it comes from.

    The enqueued configurations first, then the hand-set schedules.
    """
    known: dict[PruningConfig, dict[str, str]] = {}
    for name, config in enqueued.items():
        if not decoder.refusal(config):
            known.setdefault(config, {})["enqueued"] = name
    for name, config in decoder.hand_set().items():
        known.setdefault(config, {})["hand_set"] = name
    return known


def check_enqueued(
    enqueued: Mapping[str, PruningConfig], decoders: Collection[Decoder]
) -> None:
    """Refuse what can be a trial under none of the budgets.

    Raises:
        ConfigError: names the file and why.
    """
    for name, config in enqueued.items():
        reasons = []
        for decoder in decoders:
            try:
                reasons.append(decoder.refusal(config))
            except ConfigError as error:
                raise ConfigError(f"`enqueue` {name} does not fit the model: {error}") from None
        if all(reasons):
            raise ConfigError(
                f"`enqueue` {name} can be no trial of this search: {reasons[0]}; give another file"
            )
