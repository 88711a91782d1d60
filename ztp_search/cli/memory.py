"""Limits of a process's address space (`ulimit -v`), and errors that come of them.

Libraries that do not fit end in errors of many kinds: what a loader, an allocator, a thread or Ray
has to say. How much is needed depends on how PyTorch was built, so nothing is refused beforehand;
docs/limits.md says what was measured.
"""

from __future__ import annotations

import errno
from types import ModuleType

resource: ModuleType | None
try:
    import resource  # at once: later there may be no room for it
except ImportError:  # Windows
    resource = None

WORDS = (
    "failed to map segment", "cannot allocate memory", "can't allocate memory", "bad_alloc",
    "can't start new thread", "error return without exception set", "timed out during startup",
)  # fmt: skip
"""In messages of errors that can mean it, in lower case."""


def limited(error: BaseException) -> str | None:
    """What to say of an error that a limit of the address space may have led to; None of others."""
    limit = address_space()
    if limit is None or not _lacks_memory(error):
        return None
    reason = " ".join((str(error) or type(error).__name__).split())[:200]
    return (
        f"`ulimit -v` must leave room for the libraries, about 4 GB with PyTorch's for CUDA and "
        f"several times that with Ray, but it is {limit / 1e9:.1f} GB, and something did not fit "
        f"({reason}); take the limit away (ulimit -v unlimited), and bound memory by a cgroup "
        f"instead, as systemd-run -p MemoryMax=… and docker run --memory do"
    )


def address_space() -> int | None:
    """The bytes that the address space of this process may have; None where they have no bound."""
    if resource is None:
        return None
    limit: int = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _lacks_memory(error: BaseException) -> bool:
    each: BaseException | None = error
    while each is not None:
        if isinstance(each, MemoryError) or getattr(each, "errno", None) == errno.ENOMEM:
            return True
        if any(words in str(each).lower() for words in WORDS):
            return True
        each = each.__cause__ or each.__context__
    return False
