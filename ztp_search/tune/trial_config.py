"""The `config` of a Tune trial: readable parameters, and the configuration that they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ztp_search.errors import ConfigError
from ztp_search.pruning.config import PruningConfig
from ztp_search.pruning.methods import parse_config
from ztp_search.study.parameters import every_value

KEY = "pruning_config"


def trial_config(config: PruningConfig, parameters: Collection[str]) -> dict[str, Any]:
    """What Tune gives to a trial.

    The parameters have the names that they have in a study (`block03.retention`, …, `v_max`), the
    same for every trial, so that they can be compared in Tune's tables. What counts is the
    configuration under "pruning_config", in its JSON form.
    """
    return {**every_value(config, parameters), KEY: config.to_dict()}


def config_of(config: Mapping[str, Any]) -> PruningConfig:
    """The configuration of a Tune trial, for `ztp_search.apply` or `ztp_search.export`.

    Args:
        config: of a trial or result of Tune.

    Raises:
        ConfigError: it holds none, or one that breaks a rule.

    Example:
        >>> from ztp_search import PruningConfig
        >>> config_of({"pruning_config": PruningConfig().to_dict()}) == PruningConfig()
        True
    """
    if KEY not in config:
        raise ConfigError(
            f"a trial's config must hold `{KEY}`, but has {', '.join(config) or 'nothing'}; "
            "let BudgetSearch suggest it"
        )
    return parse_config(config[KEY], KEY)
