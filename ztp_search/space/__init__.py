"""Search spaces, and how a point of one becomes a configuration that meets the budget."""
