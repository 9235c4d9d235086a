"""Lookups while torch's default device is not the table's, as where models are built on meta."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from embconform.conformance.cases.case import MODE_WORDS, GradMode
from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import grad_context
from embconform.conformance.probes.claims import Equal
from embconform.conformance.probes.transforms.claims import Lookup
from embconform.conformance.probes.transforms.common import (
    Claims,
    Lab,
    Trial,
    compiled_already,
    probe_of,
)

_CLAUSE: Final = "state.default-device"
OTHER: Final = "meta"
"""A device that is everywhere, and that nobody computes on.

A lookup that makes indices of its own there is refused by torch, or reads what nobody wrote: where
the output is tells more than its values.
"""
FEW, SOME = 5, 70


def _under_another_device(lab: Lab) -> Iterator[Trial]:
    if lab.backend.compiled:
        yield compiled_already
        return
    for mode in lab.modes:
        for size in (FEW, SOME):
            ids, table = lab.draw.integers(0, 9, size), lab.table(9, 3)
            yield partial(_called, lab, mode, Lookup(ids, table, {}, lab.profile))


def _called(lab: Lab, mode: GradMode, lookup: Lookup) -> Claims:
    """Make both passes where tensors without a device are made on another one."""
    weight, ids = lab.tensor(lookup.table).requires_grad_(mode == "grad"), lab.tensor(lookup.ids)
    upstream, call = lab.upstream(*lookup.shape), lab.bind(lookup)
    given = lab.tensor(upstream)
    with torch.device(OTHER):
        with grad_context(mode):
            out: Any = call(ids, weight)
        if weight.requires_grad:
            torch.autograd.backward([out], [given])
    what = f"for {lookup} {MODE_WORDS[mode]}, under torch.device({OTHER!r})"
    seen, right = _kind(out), (str(weight.dtype), lookup.shape, str(weight.device))
    yield Equal(f"dtype, shape and device of the output {what}", seen, right)
    if weight.requires_grad:
        right = (str(weight.dtype), lookup.table.shape, str(weight.device))
        yield Equal(f"dtype, shape and device of weight.grad {what}", _kind(weight.grad), right)


def _kind(tensor: Any) -> tuple[str, ...] | tuple[str, tuple[int, ...], str]:
    if not isinstance(tensor, torch.Tensor):
        return (type(tensor).__name__,)
    return str(tensor.dtype), tuple(tensor.shape), str(tensor.device)


DEFAULT_DEVICE_PROBE: Final = probe_of(
    _CLAUSE, _under_another_device, "functional", may_refuse=True
)
