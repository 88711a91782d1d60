"""The project's own configuration file: what `load_config` and `ztp-search evaluate` read."""

from __future__ import annotations

import yaml

from ztp_search.results.exporters.base import Exported, TextExporter


class JsonFile(TextExporter):
    """The configuration file itself; all other formats are derived from what it holds."""

    def text(self, what: Exported) -> str:
        return what.file.dumps()


class YamlFile(TextExporter):
    """The same document as YAML."""

    def text(self, what: Exported) -> str:
        document = what.file.to_dict()
        return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=100))
