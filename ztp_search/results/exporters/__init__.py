"""Formats that `ztp-search export --format` writes; a new one is a file here and a line below.

An exporter turns a `ConfigFile` into the text of one file, or raises ConfigError where the
format cannot express the configuration.
"""

from collections.abc import Callable, Mapping

from ztp_search.pruning.config_file import ConfigFile
from ztp_search.results.exporters.json_file import export_json

EXPORTERS: Mapping[str, Callable[[ConfigFile], str]] = {"json": export_json}

__all__ = ["EXPORTERS", "export_json"]
