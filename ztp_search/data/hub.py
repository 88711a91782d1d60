"""The Hugging Face hub, where it answers; and what to say where something outside went wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

OFFLINE_COMMAND = "ztp-search --space digits --budget 68%"
"""What runs without network; errors about the network name it."""


@contextlib.contextmanager
def hub() -> Iterator[bool]:
    """Use the Hugging Face hub inside, or only its cache where it does not answer; says which.

    Without this the client tries each file for 23 seconds before it gives up.
    """
    from huggingface_hub import constants, get_session

    offline = constants.HF_HUB_OFFLINE
    answers = not offline
    if answers:
        try:
            get_session().head(constants.ENDPOINT, timeout=5.0)  # seconds
        except Exception:  # the HTTP library's own, which changes with the client's version
            answers = False
    constants.HF_HUB_OFFLINE = not answers
    try:
        yield answers
    finally:
        constants.HF_HUB_OFFLINE = offline


def one_line(error: BaseException) -> str:
    """What an exception says, on one line and not too long, or its name."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:199] + "…"
