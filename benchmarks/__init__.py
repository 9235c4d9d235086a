"""Thin classes over embconform.performance, for asv and for pytest-benchmark.

asv imports every module of this package in the environment of every commit, in a new process for
every parameter: nothing here imports torch, embconform or pytest before it is needed.
"""
