"""Zero-TPrune configurations for vision transformers, found under a GFLOPs budget."""

from ztp_search.backbones import apply
from ztp_search.config import PruningConfig, PruningLayer
from ztp_search.config_file import load_config
from ztp_search.errors import ZtpError

__all__ = ["PruningConfig", "PruningLayer", "ZtpError", "apply", "load_config"]
