"""A right embedding in small parts, so that a planted bug is one part done wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

HALVES = (torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Options:
    """The keyword arguments of a call; padding_idx is None or not negative."""

    padding_idx: int | None = None
    max_norm: float | None = None
    norm_type: float = 2.0
    scale_grad_by_freq: bool = False
    sparse: bool = False


class Kernel:
    """torch.nn.functional.embedding in parts; right as it stands."""

    def __call__(  # noqa: PLR0917
        self,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Tensor:
        self.check_types(input, weight)
        padding_idx = self.padding(padding_idx, weight.shape[0])
        options = Options(padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
        return self.forward(input, weight, options)

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        """Check the range, renorm, look up."""
        self.check_range(indices, weight, options)
        if options.max_norm is not None:
            with torch.no_grad():
                self.renorm(indices, weight, options)
        return _Lookup.apply(weight, indices, self, options)

    # Checks

    def check_types(self, indices: Tensor, weight: Tensor) -> None:
        if indices.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"indices must be int32 or int64, not {indices.dtype}")
        if weight.dim() != 2:
            raise RuntimeError(f"the table must have 2 dimensions, not {weight.dim()}")

    def padding(self, padding_idx: int | None, rows: int) -> int | None:
        """Refuse a padding_idx outside the table and count a negative one from the end."""
        if padding_idx is None or padding_idx == 0:  # 0 is legal for an empty table
            return padding_idx
        if not -rows <= padding_idx < rows:
            raise ValueError(f"padding_idx {padding_idx} is outside a table of {rows} rows")
        return padding_idx % rows

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        if not indices.numel():
            return
        low, high = (int(end) for end in indices.aminmax())
        if low < 0 or high >= weight.shape[0]:
            bad = low if low < 0 else high
            raise IndexError(f"index {bad} is out of bounds for a table of {weight.shape[0]} rows")

    # max_norm

    def renorm(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        """Renorm the looked-up rows in place; runs under no_grad, after the checks."""
        named = self.distinct(self.flat(indices))
        if named.numel() and weight.shape[1]:
            rows = weight.index_select(0, named)
            over, bounded = self.bounded(rows, options)
            named = named[over]
            traced: Any = torch._C._get_tracing_state()  # of rows that other calls do not have
            if named.numel() or traced is not None:
                weight.index_copy_(0, named.long(), bounded[over].to(weight.dtype))

    def distinct(self, flat: Tensor) -> Tensor:
        return flat.unique()

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        """Which rows exceed the bound, and all rows as they would be scaled, in float64."""
        assert options.max_norm is not None
        rows = rows.double()
        norms = self.norms(rows, options.norm_type)
        scaled = rows * self.scale(norms, options.max_norm).unsqueeze(1)
        overflowed = torch.isinf(norms) & torch.isfinite(rows).all(1)
        if overflowed.any():
            small = rows / rows.abs().amax(1, keepdim=True).clamp(min=1.0)
            again = self.scale(self.norms(small, options.norm_type), options.max_norm)
            scaled = torch.where(overflowed.unsqueeze(1), small * again.unsqueeze(1), scaled)
        return norms > options.max_norm, scaled

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        return torch.linalg.vector_norm(rows, norm_type, dim=1)

    def scale(self, norms: Tensor, max_norm: float) -> Tensor:
        return max_norm / (norms + 1e-7)

    # Lookup

    def flat(self, indices: Tensor) -> Tensor:
        return indices.reshape(-1)

    def lookup(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        """The rows of the table, in new memory; called outside autograd."""
        rows = self.rows(self.flat(indices), weight).contiguous()
        # no view of `rows`: autograd lets nobody write to a view that a Function made
        return torch.ops.aten._unsafe_view(rows, (*indices.shape, weight.shape[1]))

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        return weight.index_select(0, flat)

    # Gradient

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        """The gradient of a table of this height, in the dtype and width of upstream."""
        flat = self.flat(indices).long()
        upstream = upstream.reshape(flat.numel(), upstream.shape[-1])
        counts = self.counts(flat, height) if options.scale_grad_by_freq else None
        flat, upstream = self.without_padding(flat, upstream, options)
        if options.sparse:
            return self.sparse(upstream, flat, height, counts)
        return self.dense(upstream, flat, height, counts)

    def counts(self, flat: Tensor, height: int) -> Tensor:
        """How often each row is named; 1 where it is not."""
        return torch.bincount(flat, minlength=height).clamp(min=1)

    def without_padding(
        self, flat: Tensor, upstream: Tensor, options: Options
    ) -> tuple[Tensor, Tensor]:
        if options.padding_idx is None:
            return flat, upstream
        kept = flat != options.padding_idx
        return flat[kept], upstream[kept]

    def accumulator(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float32 if dtype in HALVES else dtype

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        dtype = self.accumulator(upstream.dtype)
        summed = torch.zeros(height, upstream.shape[1], dtype=dtype, device=upstream.device)
        summed.index_add_(0, flat, upstream.to(dtype))
        if counts is not None:
            summed /= counts.unsqueeze(1)
        return summed.to(upstream.dtype)

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if counts is not None:
            upstream = upstream / counts[flat].unsqueeze(1).to(upstream.dtype)
        size = (height, upstream.shape[1])
        rows, values = flat.unsqueeze(0).clone(), upstream.clone()  # the caller may write to his
        return torch.sparse_coo_tensor(rows, values, size, check_invariants=False)

    def second(self, direction: Tensor, indices: Tensor, options: Options) -> Tensor:
        """The derivative of (gradient * direction).sum() by upstream; differentiable itself."""
        flat = self.flat(indices).long()
        rows = direction.index_select(0, flat)
        if options.scale_grad_by_freq:
            counts = self.counts(flat, direction.shape[0])[flat]
            rows = rows / counts.unsqueeze(1).to(rows.dtype)
        if options.padding_idx is not None:
            rows = rows.masked_fill((flat == options.padding_idx).unsqueeze(1), 0.0)
        return rows.reshape(*indices.shape, direction.shape[1])


class _Lookup(torch.autograd.Function):
    """The lookup; its backward pass is differentiable."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, indices: Tensor, kernel: Kernel, options: Options) -> Any:
        ctx.save_for_backward(indices)
        ctx.call = kernel, weight.shape[0], options
        return kernel.lookup(indices, weight, options)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        (indices,) = ctx.saved_tensors
        return _Gradient.apply(upstream[0], indices, ctx.call), None, None, None


class _Gradient(torch.autograd.Function):
    """The gradient of the table as a function of the upstream gradient."""

    @staticmethod
    def forward(
        ctx: Any, upstream: Tensor, indices: Tensor, call: tuple[Kernel, int, Options]
    ) -> Any:
        ctx.save_for_backward(indices)
        ctx.call = call
        kernel, height, options = call
        return kernel.gradient(upstream, indices, height, options)

    @staticmethod
    def backward(ctx: Any, *direction: Any) -> Any:
        (indices,) = ctx.saved_tensors
        kernel, _, options = ctx.call
        (rows,) = direction
        rows = rows.to_dense() if rows.is_sparse else rows
        return kernel.second(rows, indices, options), None, None
