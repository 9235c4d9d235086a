"""What a call leaves changed in torch is seen, and put back for the calls after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from embconform.backends.adapt import as_backend
from embconform.conformance.probes.torch_state import TORCH_STATE_PROBE, _state
from embconform.reference.clause import Profile

CHANGES: dict[str, Callable[[], Any]] = {
    "whether subnormal numbers are flushed to zero": lambda: torch.set_flush_denormal(True),
    "the default device": lambda: torch.set_default_device("meta"),
    "whether autocast is on": lambda: torch.set_autocast_enabled("cpu", True),
    "whether anomalies are detected": lambda: torch.autograd.set_detect_anomaly(True),
    "the precision of float32 products": lambda: torch.set_float32_matmul_precision("medium"),
    "the number of threads": lambda: torch.set_num_threads(1),
    "the default dtype": lambda: torch.set_default_dtype(torch.float64),
    "whether gradients are recorded": lambda: torch.set_grad_enabled(False),
    "whether algorithms are deterministic, or warn": lambda: torch.use_deterministic_algorithms(
        True
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_a_call_changes_is_said_and_put_back(what: str) -> None:
    before = _state()

    def embed(input: Any, weight: Any, **options: Any) -> Any:  # noqa: A002
        found = functional.embedding(input, weight, **options)
        CHANGES[what]()
        return found

    rulings = TORCH_STATE_PROBE.run(as_backend("target", embed), Profile.TORCH, 0, "cpu")
    findings = [ruling.finding for ruling in rulings if ruling.finding]
    assert findings
    assert all(finding.message.endswith(f" changed {what}") for finding in findings)
    assert _state() == before
