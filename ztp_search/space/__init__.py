"""Search spaces, and how a point of one becomes a configuration that meets the budget."""

from ztp_search.space.space import CORNERS, BlockSpace, Scale, SearchSpace
from ztp_search.space.space_file import load_space, parse_space, shipped_spaces

__all__ = [
    "CORNERS", "BlockSpace", "Scale", "SearchSpace", "load_space", "parse_space", "shipped_spaces",
]  # fmt: skip
