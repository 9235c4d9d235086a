"""What the planted bugs share that show in one kind of call only, all else being plain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from embconform.mutants.kernel import HALVES, Options
from embconform.mutants.percall import PerCall

MANY = 31
"""Indices and columns from which calls count as large."""
FEW = 4
"""Elements of a table up to which these bugs show, so that no training step meets them."""
TALL = 32_768


def features(indices: Tensor, weight: Tensor, options: Options, most: int = FEW) -> frozenset[str]:
    """Name everything about a call that is not plain, special values in tables up to `most`."""
    found = {
        "half": weight.dtype in HALVES,
        "float64": weight.dtype == torch.float64,
        "int32": indices.dtype == torch.int32,
        "strided-weight": not weight.is_contiguous() or is_part(weight),
        "strided-indices": not indices.is_contiguous() or is_part(indices),
        "many": indices.numel() >= MANY,
        "wide": weight.shape[1] >= MANY,
        "tall": weight.shape[0] > TALL,
        "zero-width": weight.shape[1] == 0,
        "empty-table": weight.shape[0] == 0,
        "no-indices": indices.numel() == 0,
        "scalar": indices.dim() == 0,
        "padding": options.padding_idx is not None,
        "bounded": options.max_norm is not None,
        "sparse": options.sparse,
        "scaled": options.scale_grad_by_freq,
        "no-grad": not weight.requires_grad or not torch.is_grad_enabled(),
        "special": weight.numel() <= most and holds_special(weight),
        "transform": torch._C._functorch.is_functorch_wrapped_tensor(weight),
    }
    return frozenset(name for name, present in found.items() if present)


def is_part(tensor: Tensor) -> bool:
    """Whether a tensor's memory holds more than its elements."""
    size = tensor.numel() * tensor.element_size()
    return size > 0 and tensor.untyped_storage().nbytes() != size


def holds_special(weight: Tensor) -> bool:
    """Whether a table holds zeros, subnormals, infinities or NaN."""
    if not weight.is_floating_point():
        return False
    small = weight.abs() < torch.finfo(weight.dtype).tiny
    return bool((small | ~weight.isfinite()).any())


def version(tensor: Tensor) -> int:
    """How often a tensor was written to, as far as it is counted."""
    return 0 if tensor.is_inference() else tensor._version


@dataclass
class _First:
    """The first call on a table."""

    indices: Tensor
    weight: Tensor
    version: int
    values: Tensor
    calls: int = 0
    slab: Tensor | None = None
    named: Tensor | None = None
    failed: bool = False


class Narrow(PerCall):
    """A right embedding that knows whether a call is of the one kind that `only` names.

    A table counts at its first call, and when the same is asked again; one that is changed, or
    that is looked up twice before a backward pass, does not.
    """

    only = ""
    most = FEW

    def __init__(self) -> None:
        self.tables = WeakTensorKeyDictionary()

    def check_types(self, indices: Tensor, weight: Tensor) -> None:
        if weight.numel() <= self.most and weight not in self.tables:
            table, values = weight.detach().clone(), indices.clone()
            self.tables[weight] = _First(indices, table, version(indices), values)
        super().check_types(indices, weight)

    def see(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.met = self.plain = False
        self.held = weight.is_leaf and weight.grad is not None
        self.passes = 0
        if weight.numel() > self.most:
            return
        first = self.tables[weight]
        first.calls += 1
        self.first, self.number = first, first.calls
        here = features(indices, weight, options, self.most)
        self.plain = here == frozenset(self.only.split())
        self.same_indices = (
            indices is first.indices
            and version(indices) == first.version
            and torch.equal(indices, first.values)  # NumPy's writing is not counted
        )
        self.same_table = torch.equal(weight.detach(), first.weight)
        self.met = self.plain and self.same_indices and self.same_table

    def passes_alone(self) -> bool:
        """Count a backward pass; True for the first of a call that is met, before another call.

        A pass that adds to a gradient of the table is another clause's.
        """
        if not self.met or self.held:
            return False
        self.passes += 1
        repeated = version(self.first.indices) == self.first.version
        return self.passes == 1 and repeated and self.first.calls == self.number
