"""A run: what is done in which order, by which processes, and what was counted."""
