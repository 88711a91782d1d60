"""The project's own configuration file: what `load_config` and `ztp-search evaluate` read."""

from __future__ import annotations

from pathlib import Path

from ztp_search.pruning.config_file import ConfigFile
from ztp_search.results.exporters.base import Exporter


class JsonFile(Exporter):
    """The configuration file itself."""

    def export(self, file: ConfigFile, path: Path) -> None:
        path.write_text(self.text(file), encoding="utf-8")

    def text(self, file: ConfigFile) -> str:
        return file.dumps()
