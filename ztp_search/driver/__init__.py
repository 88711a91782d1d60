"""The search loop: what is sampled, raced, stored and confirmed."""
