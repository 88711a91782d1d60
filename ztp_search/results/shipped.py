"""Files of `dashboards/`: what is shown, apart from the code that fills it in."""

from __future__ import annotations

from importlib import resources
from pathlib import Path


def shipped(name: str) -> str:
    """The text of a file of `dashboards/`."""
    folder = resources.files("ztp_search") / "dashboards"  # in the wheel
    if not folder.is_dir():
        folder = Path(__file__).resolve().parent.parent.parent / "dashboards"  # in a checkout
    return (folder / name).read_text("utf-8")
