"""The project's own configuration file."""

from __future__ import annotations

from ztp_search.pruning.config_file import ConfigFile


def export_json(file: ConfigFile) -> str:
    """The configuration file itself: what `load_config` and `ztp-search evaluate` read."""
    return file.dumps()
