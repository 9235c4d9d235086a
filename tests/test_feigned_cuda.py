"""What the suite observes lies on the device that was asked for: no tensor is left on the CPU.

The device is feigned (see support/feigned_cuda.py): where something were not moved, or read without
``cpu()``, the verdicts would not be those of the CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from feigned_cuda import APART, OnCuda, feigned

from embconform.backends.backend import Backend
from embconform.backends.deviations import active, load
from embconform.backends.eager import BACKEND
from embconform.conformance import observe
from embconform.conformance.options import RunOptions
from embconform.conformance.probes.transforms.common import Lab
from embconform.conformance.report import Report, Status
from embconform.conformance.running.engine import run
from embconform.mutants.on_cuda import looks_up_on_the_host
from embconform.reference.clause import DEVICES, Profile

NOT_FEIGNED = {
    "lookup.huge-table": "feigned memory holds no 4 GiB",
    "lookup.near-runs": "a marked output of inference mode can't be written to",
    "module.shallow-copy": "a sparse tensor can't be marked",
    "sparse.optimiser-steps": "a sparse tensor can't be marked",
    "sparse.asked-for": "a sparse tensor can't be marked",
    "training.sparse-adam-step": "a sparse tensor can't be marked",
    "gradient.asked-for": "its sparse gradients are copied, which takes their storage",
    "gradient.non-leaf-table": "a table that is computed loses its mark",
    "gradient.recomputed": "a checkpoint keeps the state of a device that is not there",
    "module.cast": "torch casts no subclass's gradient as it casts a plain tensor's",
    "module.deepcopy": "torch copies no subclass as it copies a plain tensor",
    "module.pickle": "torch pickles no subclass as it pickles a plain tensor",
    "module.hooks": "a module with hooks is copied",
    "module.tied": "its models are copied and pickled",
    "module.freezing": "its modules are copied and pickled",
    "module.table-kept": "its modules are copied and pickled",
}
CASES = (
    "lookup.*,gradient.*,padding.*,max-norm.*,sparse.*,errors.*,"
    "state.repeatable*,state.options-apart,state.outputs-intact"
)
PROBES = "module.*,training.*,transforms.autocast,transforms.functional-call"
"""The other transforms hide tensors in wrappers, which carry no mark; and the mode that moves
tensors is one thread's own, so that state.threads is left out."""


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def judged(device: str, select: str, cases: int = 300) -> Report:
    assert BACKEND.deviations
    rows = active(load(BACKEND.deviations))
    options = RunOptions(
        Profile.TORCH, "quick", cases, device=device, select=select, deviations=rows
    )
    return run(BACKEND, options, target="eager")


def statuses(report: Report) -> dict[str, Status]:
    return {
        result.clause.id: result.status
        for result in report.clauses
        if result.clause.id not in NOT_FEIGNED and result.clause.devices == DEVICES
    }


@pytest.mark.parametrize("select", [CASES, PROBES])
def test_the_verdicts_are_those_of_the_cpu(select: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = statuses(judged("cpu", select))
    with feigned(monkeypatch):
        found = statuses(judged("cuda", select))
    assert found == wanted
    assert sum(status is Status.PASS for status in found.values()) > 25


def broken(report: Report) -> set[str]:
    return {result.clause.id for result in report.clauses if result.status is Status.FAIL}


def test_indices_left_on_the_cpu_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    make = observe._Tensor.__init__

    def stays(self: Any, placed: Any, device: str) -> None:
        make(self, placed, "cpu" if placed.values.dtype.kind == "i" else device)

    monkeypatch.setattr(observe._Tensor, "__init__", stays)
    with feigned(monkeypatch):
        assert "lookup.rows" in broken(judged("cuda", "lookup.rows,gradient.sum", 40))


def test_an_upstream_gradient_left_on_the_cpu_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def stays(self: Any, placed: Any) -> observe._Tensor:
        return observe._Tensor(placed, "cpu")

    monkeypatch.setattr(observe.Observer, "_upstream", stays)
    with feigned(monkeypatch):
        found = broken(judged("cuda", "lookup.rows,gradient.sum", 40))
    assert found == {"gradient.sum"}


def test_a_probes_tensors_left_on_the_cpu_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def stays(self: Lab, array: Any) -> torch.Tensor:
        tensor = observe.to_torch(np.array(array, order="C"))
        return tensor if tensor.dtype == torch.int64 else tensor.to(self.device)

    monkeypatch.setattr(Lab, "tensor", stays)
    with feigned(monkeypatch):
        report = judged("cuda", "state.options-apart,transforms.autocast")
    found = {result.clause.id: result.status for result in report.clauses}
    assert found["state.options-apart"] is Status.FAIL
    assert found["transforms.autocast"] is Status.UNSUPPORTED


def test_an_output_on_the_cpu_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    target = Backend("host", functional=looks_up_on_the_host)
    with feigned(monkeypatch):
        options = RunOptions(Profile.TORCH, "quick", 20, device="cuda", select="lookup.device")
        report = run(target, options, target="host")
        right = judged("cuda", "lookup.device", 20)
    assert broken(report) == {"lookup.device"}
    assert [result.status for result in right.clauses] == [Status.PASS]


def test_the_feigned_device_is_as_strict_as_a_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with feigned(monkeypatch):
        on, off = torch.ones(2, device="cuda"), torch.ones(2)
        assert isinstance(on, OnCuda)
        assert isinstance(off.to("cuda"), OnCuda)
        assert isinstance(on[:1] * 2 + torch.tensor(1.0), OnCuda)
        assert (on.is_cuda, str(on.device)) == (True, "cuda:0")
        assert not isinstance(on.cpu(), OnCuda)
        with pytest.raises(RuntimeError, match=APART):
            on + off
        with pytest.raises(RuntimeError, match=APART):
            torch.nn.functional.embedding(torch.tensor(0), torch.ones(2, 3, device="cuda"))
        with pytest.raises(TypeError, match="numpy"):
            on.numpy()
        leaf = torch.ones(2, device="cuda", requires_grad=True)
        with pytest.raises(RuntimeError, match=APART):
            torch.autograd.backward([leaf * 1], [off])
