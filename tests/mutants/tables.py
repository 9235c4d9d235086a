"""Wrong for tables out of the ordinary, and for callers that come all at once."""

from __future__ import annotations

import random
from typing import ClassVar

import torch
from torch import Tensor

from embconform.backends.backend import Backend, Capabilities
from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.registry import planted


@planted("lookup.other-dtypes")
class IntegersThroughFloat(Kernel):
    """Tables that are not floating point pass through float64 and lose bits past 2**53."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if weight.is_floating_point() or weight.is_complex():
            return super().lookup(indices, weight, options)
        return super().lookup(indices, weight.double(), options).to(weight.dtype)


@planted("lookup.other-dtypes")
class ConjugatesComplexRows(Kernel):
    """Complex rows are read through a view whose imaginary part has the wrong sign."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        rows = super().lookup(indices, weight, options)
        return rows.conj().resolve_conj() if weight.is_complex() else rows


@planted("lookup.huge-table")
class OffsetsIn32Bits(Kernel):
    """The offset of a row is kept in 32 bits and wraps (ORT#28107)."""

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if weight.numel() < 2**31:
            return super().lookup(indices, weight, options)
        offsets = (indices.long() * weight.shape[1]) % 2**31
        return super().lookup(offsets // weight.shape[1], weight, options)


@planted("state.threads")
class SharedScratch(Kernel):
    """The indices go through a buffer that all threads share."""

    scratch: ClassVar[list[Tensor]] = [torch.empty(0, dtype=torch.long)]

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        self.scratch[0] = indices.long().clone()
        weight.sum().item()  # time for another thread to come by
        shared = self.scratch[0]
        if shared.shape != indices.shape:
            shared = shared.reshape(-1).repeat(indices.numel() + 1)[: indices.numel()]
            shared = shared.reshape(indices.shape).clamp(max=len(weight) - 1)
        return super().lookup(shared, weight, options)


@planted("gradient.changed-indices")
class SavesTheCallersTensor(Kernel):
    """The backward pass reads the caller's index tensor again, whatever it holds by then."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        return super().gradient(upstream, self.theirs.clone(), height, options)

    def __call__(self, input: Tensor, weight: Tensor, *rest: object, **options: object) -> Tensor:  # noqa: A002
        out = super().__call__(input.clone(), weight, *rest, **options)  # type: ignore[arg-type]
        self.theirs = input
        return out


@planted("max-norm.nan-rows")
class NanRowsZeroed(Kernel):
    """A row whose norm is NaN is set to zero, to be safe."""

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        super().renorm(indices, weight, options)
        with torch.no_grad():
            rows = torch.unique(self.flat(indices).long())
            bad = rows[weight[rows].isnan().any(dim=1)]
            weight[bad] = 0


class _AnyOrder(Kernel):
    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        order = torch.tensor(random.SystemRandom().sample(range(len(flat)), len(flat)))
        return super().dense(upstream[order.long()], flat[order.long()], height, counts)


@planted("gradient.deterministic")
def IgnoresTheFlag() -> Backend:  # noqa: N802
    """Adds in any order, says so, and does it under use_deterministic_algorithms too."""
    return Backend(
        name="IgnoresTheFlag",
        functional=_AnyOrder(),
        capabilities=Capabilities(deterministic=False),
    )
