"""What every export format offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from ztp_search.pruning.config_file import ConfigFile


class Exporter(ABC):
    """Writes a configuration file in a form that other tools read."""

    @abstractmethod
    def export(self, file: ConfigFile, path: Path) -> None:
        """Write the file or folder `path`, in place of one that is there.

        Raises OSError where it cannot be written, and ConfigError where the format cannot express
        the configuration.
        """

    def text(self, file: ConfigFile) -> str | None:
        """What goes to stdout where no path is given; None: the format is no text."""
        return None
