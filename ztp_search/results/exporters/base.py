"""What every export format offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ztp_search.errors import ZtpError
from ztp_search.pruning.config_file import ConfigFile
from ztp_search.results.whole_file import in_place_of

if TYPE_CHECKING:
    from ztp_search.backbones.loading import LoadedModel
    from ztp_search.study import StudyReader


@dataclass(frozen=True, slots=True)
class Exported:
    """What there is to export.

    Attributes:
        file: a configuration with its evidence.
        study: the one that it was found in; None where it comes from a file.
        load: loads the file's model, with the weights that it was found with. It takes seconds,
            and raises ModelError, and ConfigError where the weights are others.
    """

    file: ConfigFile
    study: StudyReader | None
    load: Callable[[], LoadedModel]


class Exporter(ABC):
    """Writes a configuration in a form that other tools read."""

    @abstractmethod
    def export(self, what: Exported, path: Path) -> None:
        """Write the file or folder `path`, in place of one that is there.

        Raises OSError where it cannot be written, ConfigError where the format cannot express
        the configuration, and ZtpError without a library that it needs.
        """

    def omits(self, file: ConfigFile) -> str | None:
        """What the format cannot carry of a configuration, as a sentence; None: nothing."""
        return None


class TextExporter(Exporter):
    """A format that is text, and so can be printed too."""

    @abstractmethod
    def text(self, what: Exported) -> str:
        """What is written, ended by a line feed."""

    def export(self, what: Exported, path: Path) -> None:
        text = self.text(what)
        with in_place_of(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="")


def missing(format: str, library: str) -> ZtpError:
    """The refusal of a format whose library is not installed."""
    return ZtpError(
        f"`format` {format} needs {library}; install it with: pip install 'ztp-search[export]'"
    )
