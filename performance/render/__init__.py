"""Bench results for people and programs."""
