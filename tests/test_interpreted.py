"""A target that something else runs than its device says so in its report."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
import torch
from torch.nn.functional import embedding

from embconform.backends.backend import Backend
from embconform.conformance.api import check_backend


def test_a_report_names_what_ran_the_kernels() -> None:
    report = check_backend(
        Backend(name="toy", functional=embedding, interpreter="a toy"), select="lookup.shape"
    )
    assert report.environment["interpreter"] == "a toy"
    assert any("a toy" in note and "untested" in note for note in report.notes)


def test_a_report_of_what_runs_as_it_should_has_no_such_note() -> None:
    report = check_backend(Backend(name="toy", functional=embedding), select="lookup.shape")
    assert "interpreter" not in report.environment
    assert not any("untested" in note for note in report.notes)


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed: pip install 'embconform[triton]'",
)
def test_triton_says_where_it_ran() -> None:
    report = check_backend("triton", select="lookup.other-dtypes")
    here = any("Triton's interpreter" in note for note in report.notes)
    assert here == (not torch.cuda.is_available())


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed: pip install 'embconform[triton]'",
)
def test_triton_is_listed_as_ready_though_others_have_imported_triton() -> None:
    code = (
        "import triton; from embconform.backends.catalogue import reason_not_to_run as why; "
        "assert why('embconform.backends.triton:BACKEND') is None"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
