"""Checks that are not a sequence of calls on one table: modules, transforms, training, threads."""
