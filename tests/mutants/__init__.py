"""Deliberately wrong embeddings, each planted for the one clause that must catch it."""
