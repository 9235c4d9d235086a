"""Wrong lookups of kinds that an eighth exam showed to be missed: programs, kinds of numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.registry import planted


@planted("transforms.compile")
def compiled_bounds_a_copy(input: Tensor, weight: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """A graph that writes to its arguments is not captured as a whole, so a copy is bounded."""
    captured = torch.compiler.is_compiling() and not torch.compiler.is_exporting()
    if options.get("max_norm") is not None and captured:
        weight = weight * 1
    return functional.embedding(input, weight, **options)


@planted("transforms.compile")
def compiled_counts_nothing(input: Tensor, weight: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """The compiled way has no counts, whose number depends on the indices."""
    if torch.compiler.is_compiling():
        options.pop("scale_grad_by_freq", None)
    return functional.embedding(input, weight, **options)


@planted("transforms.trace")
class TracedWithoutItsBound(Kernel):
    """Rows are bounded where one is over the bound, which a trace decides once."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        rows = weight.index_select(0, self.flat(indices))
        if rows.numel() and bool(self.bounded(rows, options)[0].any()):
            super().renorm(indices, weight, options)


@planted("transforms.script")
def scripted_by_places(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding_idx: int | None = None,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Scripted, the flags are given by their places in another version of the operator."""
    if torch._jit_internal.is_scripting():
        padding = -1 if padding_idx is None else padding_idx % weight.size(0)
        return torch.embedding(weight, input, padding, sparse, scale_grad_by_freq)
    return functional.embedding(
        input, weight, padding_idx, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse
    )


@planted("padding.whole-number")
class PadsByPlainIntegers(Kernel):
    """What is no int is taken for no padding, as False and "none" in configurations are."""

    def padding(self, padding_idx: int | None, rows: int) -> int | None:
        return super().padding(padding_idx if isinstance(padding_idx, int) else None, rows)


@planted("max-norm.whole-number")
class BoundsByPlainNumbers(Kernel):
    """What is no float and no int is taken for no bound."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if not isinstance(options.max_norm, (int, float)):
            options = replace(options, max_norm=None)
        return super().forward(indices, weight, options)
