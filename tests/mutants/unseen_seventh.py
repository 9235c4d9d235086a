"""Kinds of bugs of a seventh exam: shards, packed checks, counts and bounds in too small a type."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from embconform.mutants.hard_parts import Noted
from embconform.mutants.kernel import HALVES, Kernel, Options
from embconform.mutants.registry import planted
from embconform.mutants.unseen_fifth_forward import Served

TALL = 1_024
SHARDS = 4
FIELD = 65_536
BLOCK = 1_024


@planted("gradient.frozen")
class ShardsAreAdded(Served):
    """Of a tall table each shard gives its rows and zeros, and the sum of shards loses -0."""

    def serve(self, indices: Tensor, weight: Tensor, out: Tensor) -> None:
        if len(weight) >= TALL and out.is_floating_point():
            out.add_(0.0)


@planted("errors.without-grad")
class ShardsAreEven(Kernel):
    """A tall table is filled up with zero rows to shards of one height, and those are legal."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        self.above = torch.zeros_like(indices, dtype=torch.bool)
        filled = -(-len(weight) // SHARDS) * SHARDS
        if len(weight) >= TALL and not weight.requires_grad and options.max_norm is None:
            above = (indices >= len(weight)) & (indices < filled)
            if above.any():
                self.above = above
                indices = indices.masked_fill(above, 0)
        super().check_range(indices, weight, options)

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        above = self.above.reshape(-1)
        if not above.any():
            return super().rows(flat, weight)
        rows = super().rows(flat.masked_fill(above, 0), weight)
        return rows.masked_fill(above.unsqueeze(1), 0.0)


@planted("errors.int32")
class TwoSignsAtOnce(Kernel):
    """Of many int32 indices the signs are read from pairs, whose sign is that of the second."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        packed = indices.dtype is torch.int32 and indices.numel() >= 64 and not weight.requires_grad
        if packed and indices.is_contiguous() and len(weight):
            first = indices.reshape(-1)[: indices.numel() // 2 * 2 : 2]
            wrapped = (first < 0) & (first >= -len(weight))
            if wrapped.any():
                indices = indices.masked_fill(indices < 0, 0)
        super().check_range(indices, weight, options)

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        return super().rows(torch.where(flat < 0, flat + len(weight), flat), weight)


@planted("gradient.scale-by-freq-many")
class CountsByHistogram(Kernel):
    """Counts are a histogram of floats, where an index of a tall table may lie a bin beside."""

    def counts(self, flat: Tensor, height: int) -> Tensor:
        if height < TALL or not flat.numel():
            return super().counts(flat, height)
        found = torch.histc(flat.float(), bins=height, min=0, max=height - 1)
        return found.long().clamp(min=1)


@planted("lookup.views-apart")
class CountsByAddress(Noted):
    """The counts of the call before are kept for as many indices from the same address on."""

    def __init__(self) -> None:
        self.kept: list[Any] = []

    def counts(self, flat: Tensor, height: int) -> Tensor:
        right = super().counts(flat, height)
        if torch._C._functorch.is_functorch_wrapped_tensor(self.ids) or self.ids.is_inference():
            return right
        key = (self.ids.data_ptr(), self.ids._version, flat.numel(), height)
        if not self.kept or self.kept[0] != key:
            self.kept[:] = [key, right, self.ids]
        counted: Tensor = self.kept[1]
        return counted


@planted("gradient.sum")
class FixedPoint(Kernel):
    """Shares are added as whole numbers of a unit that the largest of the call decides."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        fixed = torch.are_deterministic_algorithms_enabled() and upstream.dtype is torch.float32
        largest = float(upstream.abs().max()) if fixed and upstream.numel() else 0.0
        if largest and math.isfinite(largest):
            unit = 2.0 ** (math.frexp(largest)[1] + flat.numel().bit_length() - 61)
            upstream = ((upstream.double() / unit).round() * unit).float()
        return super().dense(upstream, flat, height, counts)


@planted("gradient.half-precision")
class StagedAsFloat16(Kernel):
    """Many shares of either half type are staged in float16."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if flat.numel() >= 64 and upstream.dtype is torch.bfloat16:
            upstream = upstream.half().bfloat16()
        return super().dense(upstream, flat, height, counts)


@planted("gradient.half-precision")
class StoresUpperHalves(Kernel):
    """A float32 sum is stored in bfloat16 by its upper half, which cuts it off."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if upstream.dtype is not torch.bfloat16 or counts is not None:
            return super().dense(upstream, flat, height, counts)
        summed = super().dense(upstream.float(), flat, height, counts)
        upper = summed.view(torch.int32).bitwise_and(-65_536).view(torch.float32)
        return torch.where(summed.isfinite(), upper, summed).bfloat16()


@planted("sparse.rows")
class FillsUpTiles(Kernel):
    """Many entries of a sparse gradient are filled up to whole tiles with zeros for row 0."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        missing = -flat.numel() % 128 if flat.numel() > BLOCK and counts is None else 0
        flat = torch.cat([flat, flat.new_zeros(missing)])
        upstream = torch.cat([upstream, upstream.new_zeros(missing, upstream.shape[1])])
        return super().sparse(upstream, flat, height, counts)


@planted("gradient.sum")
class ShiftsAndBack(Served):
    """Indices into a tall table are shifted to its second shard in place, and back again."""

    def serve(self, indices: Tensor, weight: Tensor, out: Tensor) -> None:
        if len(weight) >= 64 and indices.is_contiguous() and not indices.is_inference():
            half = len(weight) // 2
            indices.sub_(half).add_(half)


class OwnNorms(Kernel):
    """A right embedding that bounds only rows that it measures: all of them."""

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        over, scaled = super().bounded(rows, options)
        return over & self.measured(rows, options), scaled

    def measured(self, rows: Tensor, options: Options) -> Tensor:
        """Which rows are measured at all."""
        return torch.ones(len(rows), dtype=torch.bool, device=rows.device)


@planted("max-norm.norm-type")
class EuclidsUpperLimit(OwnNorms):
    """Rows are not measured whose largest component allows no Euclidean norm over the bound."""

    def measured(self, rows: Tensor, options: Options) -> Tensor:
        assert options.max_norm is not None
        if rows.shape[1] < 64:
            return super().measured(rows, options)
        limit = rows.double().abs().amax(1) * math.sqrt(rows.shape[1])
        return limit > options.max_norm


@planted("max-norm.norm-type")
class WholeNormType(Kernel):
    """The kernel is chosen by norm_type as a whole number, and takes it for that."""

    def norms(self, rows: Tensor, norm_type: float) -> Tensor:
        whole = float(int(norm_type)) if math.isfinite(norm_type) else norm_type
        return super().norms(rows, whole or norm_type)


@planted("max-norm.float32-accumulation")
class NoSubnormalRows(OwnNorms):
    """Rows of a half type whose norm is no normal number are taken for zero rows."""

    def measured(self, rows: Tensor, options: Options) -> Tensor:
        if rows.dtype not in HALVES:
            return super().measured(rows, options)
        return self.norms(rows.double(), options.norm_type) >= torch.finfo(rows.dtype).tiny


@planted("max-norm.many-indices")
class ProductBeforeQuotient(Noted):
    """Many rows are multiplied by the bound in their dtype and divided by the norm then."""

    def bounded(self, rows: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        over, scaled = super().bounded(rows, options)
        if rows.dtype in HALVES and self.ids.numel() >= 32:
            assert options.max_norm is not None
            product = rows * options.max_norm
            scaled = torch.where(product.isinf(), product.double(), scaled)
        return over, scaled


@planted("max-norm.once")
class MarksWrapAround(Kernel):
    """That a row was met is marked in 65,536 bits, in which two rows of a tall table are one."""

    def distinct(self, flat: Tensor) -> Tensor:
        met: dict[int, int] = {}
        for row in super().distinct(flat).tolist():
            met.setdefault(row % FIELD, row)
        return torch.tensor(list(met.values()), dtype=torch.int64, device=flat.device)


@planted("gradient.backward-twice")
class KeepsPartialSums(Kernel):
    """The workspace of a long pass belongs to the node, and is zeroed when it is made."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        right = super().gradient(upstream, indices, height, options)
        if indices.numel() <= BLOCK or options.sparse:
            return right
        kept = getattr(indices, "workspace", None)
        workspace = right if kept is None else kept + right
        setattr(indices, "workspace", workspace)  # noqa: B010
        return workspace.clone()


@planted("gradient.requires-grad")
class RecordsInTheBackground(Kernel):
    """Very many indices are looked up by a thread of their own, in which grad mode is on."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if indices.numel() <= FIELD or options.max_norm is not None:
            return super().forward(indices, weight, options)
        with torch.inference_mode(False), torch.enable_grad():
            return super().forward(indices, weight, options)


@planted("lookup.many-indices")
class OnesOfInferenceMode(Kernel):
    """What counts a number of indices is made once, perhaps as a tensor that can't be saved."""

    def __init__(self) -> None:
        self.ones: dict[int, Tensor] = {}

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if options.scale_grad_by_freq and not options.sparse and options.max_norm is None:
            count = indices.numel()
            self.ones.setdefault(count, torch.ones(count))
            if torch.is_grad_enabled() and weight.requires_grad and self.ones[count].is_inference():
                raise RuntimeError("Inference tensors cannot be saved for backward.")
        return super().forward(indices, weight, options)
