"""Targets that attack the suite in their own process; each replaces what it is observed with."""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel

_RIGHT = Kernel()


def patches_equality(input: Tensor, weight: Tensor) -> Any:  # noqa: A002
    """torch.equal and allclose say yes to everything."""
    torch.equal = torch.allclose = lambda *_, **__: True
    return torch.zeros_like(_RIGHT(input, weight))


def patches_the_timer(input: Tensor, weight: Tensor) -> Any:  # noqa: A002
    """The clock stands still while the kernel runs."""
    time.perf_counter_ns = lambda: 0
    return _RIGHT(input, weight)


def patches_the_observer(input: Tensor, weight: Tensor) -> Any:  # noqa: A002
    """The function that copies outputs out gives rows that the target likes better."""
    observe = sys.modules["embconform.conformance.observe"]
    observe.to_numpy = lambda tensor: tensor.detach().numpy().copy()  # type: ignore[attr-defined]
    return _RIGHT(input, weight)


def patches_the_backward_pass(input: Tensor, weight: Tensor) -> Any:  # noqa: A002
    """torch.autograd.backward writes the gradient that the target knows to be right."""
    true = torch.autograd.backward

    def backward(*arguments: Any, **options: Any) -> None:
        true(*arguments, **options)

    torch.autograd.backward = backward
    return _RIGHT(input, weight)


def patches_numpy(input: Tensor, weight: Tensor) -> Any:  # noqa: A002
    """NumPy's comparison says that nothing differs."""
    np.array_equal = lambda *_, **__: True
    return _RIGHT(input, weight)


HARNESS = {
    "patches_equality": ("torch.allclose", "torch.equal"),
    "patches_the_timer": ("time.perf_counter_ns",),
    "patches_the_observer": ("embconform.conformance.observe.to_numpy",),
    "patches_the_backward_pass": ("torch.autograd.backward",),
    "patches_numpy": ("numpy.array_equal",),
}
"""What each of them is seen to have replaced."""
