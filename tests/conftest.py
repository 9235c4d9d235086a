"""Gives the tests pytest's own fixture for running pytest, and no database of failing cases."""

import os

pytest_plugins = ["pytester"]

os.environ["EMBCONFORM_DATABASE"] = "none"  # what one test finds is nothing to another
os.environ["EMBCONFORM_WORKERS"] = "1"  # the tests have the cores
