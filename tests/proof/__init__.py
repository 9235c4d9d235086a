"""Proof that the checks work: what becomes of the planted bugs and of the right embeddings."""
