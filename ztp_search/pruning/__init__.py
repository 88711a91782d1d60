"""What a pruning configuration is, does and costs."""
