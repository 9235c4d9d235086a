"""Give pytest's benchmarks a test for each cell, and ids that can be compared from run to run."""

import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parents[1])


def pytest_generate_tests(metafunc):
    """Make a test of each workload, pass and backend of the profile."""
    if "cell_name" not in metafunc.fixturenames:
        return
    if ROOT not in sys.path:
        sys.path.insert(0, ROOT)
    from benchmarks.common import BACKENDS, profile

    sizes = profile()
    cells = [
        (workload, name, backend)
        for workload in sizes["workloads"]
        for name in sizes["passes"]
        for backend in BACKENDS[: sizes["backends"]]
    ]
    metafunc.parametrize("cell_name", cells, ids=["-".join(cell) for cell in cells])
