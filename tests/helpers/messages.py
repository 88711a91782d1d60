"""What an error says."""

from __future__ import annotations

import pytest

from ztp_search.errors import ZtpError


def one_line(error: pytest.ExceptionInfo[ZtpError]) -> str:
    """The message, which must be one line."""
    message = str(error.value)
    assert message and "\n" not in message
    return message
