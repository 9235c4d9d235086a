"""The embeddings judged, one file a backend, plus their known deviations."""
