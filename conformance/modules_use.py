"""What a module's modes and switches do to its lookups: eval, zero_grad, requires_grad_."""

from __future__ import annotations

from typing import Any

import torch

from embconform.conformance.finding import Finding
from embconform.conformance.modules_common import (
    Subject,
    described,
    difference,
    run,
    unlike,
)
from embconform.conformance.observe import to_numpy


def eval_mode(subject: Subject) -> Finding | None:
    """Judge that eval() changes nothing, and train() nothing back."""
    ids = subject.ids()
    for options in subject.option_sets():
        wanted = run(subject.filled(**options), ids)
        module = subject.filled(**options)
        if module.eval() is not module:
            return Finding("module.eval() does not return the module")
        finding = difference(run(module, ids), wanted, f"a module in eval mode{described(options)}")
        if finding:
            return finding
        module.weight.data.fill_(0.125)
        finding = difference(
            run(module, ids),
            subject.constant(0.125, trainable=True, **options),
            f"a module in eval mode{described(options)}, its table written anew,",
        )
        module.weight.data.copy_(subject.values())
        finding = finding or difference(
            run(module.train(), ids), wanted, f"a module back in train mode{described(options)}"
        )
        if finding:
            return finding
    return None


def zero_grad(subject: Subject) -> Finding | None:
    """Judge that zero_grad forgets the gradient, by dropping it or by filling it with zeros."""
    for options in subject.option_sets():
        if "max_norm" in options:
            continue
        module = subject.filled(**options)
        _backward(module, subject.ids([0, 2, 2]))
        wanted = to_numpy(module.weight.grad.to_dense())
        for forget in (True, False):
            module.weight.grad = None
            _backward(module, subject.ids([4, 2, 3]))
            module.zero_grad(set_to_none=forget)
            call = f"zero_grad(set_to_none={forget}){described(options)}"
            left = module.weight.grad
            if forget and left is not None:
                return Finding(f"after {call} the table still has a gradient")
            if not forget and (left is None or bool((left.to_dense() != 0).any())):
                return Finding(f"after {call} the gradient is not zeros")
            _backward(module, subject.ids([0, 2, 2]))
            got = to_numpy(module.weight.grad.to_dense())
            finding = unlike(got, wanted, f"the gradient of the pass after {call}")
            if finding:
                return finding
    return None


def _backward(module: Any, ids: torch.Tensor) -> None:
    module(ids).sum().backward()


def freezing(subject: Subject) -> Finding | None:
    """Judge requires_grad_(False), and True again."""
    ids = subject.ids()
    for options in subject.option_sets():
        wanted = run(subject.filled(**options), ids)
        still = subject.constant(0.125, trainable=False, **options)
        module = subject.filled(**options)
        module(ids)
        module.requires_grad_(False)
        which = f"a module after requires_grad_(False){described(options)}"
        module.weight.data.fill_(0.125)
        finding = difference(run(module, ids), still, which)
        module.weight.data.copy_(subject.values())
        module.requires_grad_(True)
        finding = finding or difference(
            run(module, ids), wanted, f"a module trainable again{described(options)}"
        )
        if finding:
            return finding
    return None
