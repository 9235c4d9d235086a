"""Gives the tests pytest's own fixture for running pytest, and no database of failing cases."""

import os
from collections.abc import Iterator

import pytest
import torch

from embconform.conformance.collector import look_less_often

pytest_plugins = ["pytester"]
look_less_often()

os.environ["EMBCONFORM_DATABASE"] = "none"  # what one test finds is nothing to another
os.environ["EMBCONFORM_WORKERS"] = "1"  # the tests have the cores
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before anything imports triton


@pytest.fixture(autouse=True)
def _torch_as_it_was() -> Iterator[None]:
    """Fail a test that leaves torch's settings changed, and put them back for the next."""
    before = _settings()
    yield
    after = _settings()
    if after != before:
        torch.use_deterministic_algorithms(before[0])
        torch.set_default_dtype(before[1])
        torch.set_grad_enabled(before[2])
        pytest.fail(f"torch's settings were {before} before this test and are {after} after it")


def _settings() -> tuple[bool, torch.dtype, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
    )
