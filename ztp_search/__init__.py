"""Zero-TPrune configurations for vision transformers, found under a GFLOPs budget."""

from typing import TYPE_CHECKING, Any

from ztp_search.errors import ZtpError
from ztp_search.pruning.config import PruningConfig, PruningLayer
from ztp_search.pruning.config_file import load_config

if TYPE_CHECKING:
    from ztp_search.backbones import apply

__all__ = ["PruningConfig", "PruningLayer", "ZtpError", "apply", "load_config"]


def __getattr__(name: str) -> Any:
    """`apply` needs torch and timm; the command line's help must not wait for them."""
    if name == "apply":
        from ztp_search.backbones import apply

        return apply
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
