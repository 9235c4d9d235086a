"""What a module's modes and switches do to its lookups: eval, zero_grad, requires_grad_."""

from __future__ import annotations

from typing import Any

import numpy as np

from embconform.conformance.claims import Must, SameBits, SameValues
from embconform.conformance.lazy_torch import torch
from embconform.conformance.modules_claims import Behaviour, SameBehaviour
from embconform.conformance.modules_common import IDS, Claims, Subject, described, run
from embconform.conformance.observe import to_numpy


def eval_mode(subject: Subject) -> Claims:
    """See that eval() changes nothing, and train() nothing back."""
    ids = subject.ids()
    for options in subject.option_sets():
        yield _frozen_in_eval(subject, ids, options)
        yield _served_from_elsewhere(subject, options)
        wanted, served = run(subject.filled(**options), ids), _serve(subject.filled(**options), ids)
        module = subject.filled(**options).eval()
        which = f"a module in eval mode under no_grad{described(options)}"
        yield SameBehaviour(which, _serve(module, ids), served)
        module = subject.filled(**options)
        which = f"a module in eval mode{described(options)}"
        yield Must(module.eval() is module, "module.eval() does not return the module")
        yield SameBehaviour(which, run(module, ids), wanted)
        module.weight.data.fill_(0.125)
        seen, other = run(module, ids), subject.constant(0.125, trainable=True, **options)
        yield SameBehaviour(f"{which}, its table written anew,", seen, other)
        module.weight.data.copy_(subject.values())
        which = f"a module back in train mode{described(options)}"
        yield SameBehaviour(which, run(module.train(), ids), wanted)


def _frozen_in_eval(subject: Subject, ids: torch.Tensor, options: dict[str, Any]) -> SameBehaviour:
    """Compare frozen modules in eval mode and in train mode."""
    trained, served = (subject.filled(**options).requires_grad_(False) for _ in range(2))
    which = f"a frozen module in eval mode{described(options)}"
    return SameBehaviour(which, run(served.eval(), ids), run(trained, ids))


def _served_from_elsewhere(subject: Subject, options: dict[str, Any]) -> SameBehaviour:
    """Move the table of a module that serves, then write to it."""
    moved, fresh = (subject.filled(**options).eval() for _ in range(2))
    ids = subject.ids(IDS * 7)  # enough for what is only worth it for many
    _serve(moved, ids)
    moved.weight.data = moved.weight.data.clone()
    for module in (moved, fresh):
        module.weight.data.fill_(0.125)
    which = f"a module in eval mode whose table moved and changed{described(options)}"
    return SameBehaviour(which, _serve(moved, ids), _serve(fresh, ids))


def _serve(module: Any, ids: torch.Tensor) -> Behaviour:
    """Look up as a trained model does."""
    with torch.no_grad():
        return run(module, ids)


def zero_grad(subject: Subject) -> Claims:
    """See that zero_grad forgets the gradient, by dropping it or by filling it with zeros."""
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
            if forget:
                yield Must(left is None, f"after {call} the table still has a gradient")
            else:
                values = np.ones(1) if left is None else to_numpy(left.to_dense())
                wrong = f"after {call} the gradient is not zeros"
                yield SameValues(values, np.zeros_like(values), wrong)
            _backward(module, subject.ids([0, 2, 2]))
            got = to_numpy(module.weight.grad.to_dense())
            yield SameBits(f"the gradient of the pass after {call}", got, wanted)


def _backward(module: Any, ids: torch.Tensor) -> None:
    module(ids).sum().backward()


def freezing(subject: Subject) -> Claims:
    """See requires_grad_(False), and True again."""
    ids = subject.ids()
    for options in subject.option_sets():
        wanted = run(subject.filled(**options), ids)
        still = subject.constant(0.125, trainable=False, **options)
        module = subject.filled(**options)
        module(ids)
        module.requires_grad_(False)
        which = f"a module after requires_grad_(False){described(options)}"
        module.weight.data.fill_(0.125)
        yield SameBehaviour(which, run(module, ids), still)
        module.weight.data.copy_(subject.values())
        module.requires_grad_(True)
        which = f"a module trainable again{described(options)}"
        yield SameBehaviour(which, run(module, ids), wanted)
