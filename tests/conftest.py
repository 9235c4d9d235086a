"""Gives the tests pytest's own fixture for running pytest, and no database of failing cases."""

import os

import torch

pytest_plugins = ["pytester"]

os.environ["EMBCONFORM_DATABASE"] = "none"  # what one test finds is nothing to another
os.environ["EMBCONFORM_WORKERS"] = "1"  # the tests have the cores
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton
