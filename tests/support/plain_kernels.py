"""Kernels made of torch's own functions: what the operator needs, with nothing clever in it."""

from __future__ import annotations

import torch

from embconform.backends.gpu.kernels import NO_ROW, encoded
from embconform.backends.gpu.operator import Operator


class PlainKernels:
    def check(
        self, indices: torch.Tensor, rows: int, fault: torch.Tensor, report: torch.Tensor
    ) -> None:
        bad = indices[(indices < 0) | (indices >= rows)]
        if bad.numel():
            report[0] = fault[0] = encoded(int(bad[0]))

    def renorm(
        self,
        weight: torch.Tensor,
        indices: torch.Tensor,
        max_norm: float,
        norm_type: float,
        fault: torch.Tensor,
    ) -> None:
        if fault[0]:
            return
        for row in torch.unique(indices).tolist():
            wide = weight[row].to(torch.float64)
            norm = float(torch.linalg.vector_norm(wide, norm_type))
            if norm > max_norm:
                weight[row] = (wide * (max_norm / (norm + 1e-7))).to(weight.dtype)

    def gather(
        self,
        weight: torch.Tensor,
        indices: torch.Tensor,
        fault: torch.Tensor,
        report: torch.Tensor,
        *,
        padding_idx: int = NO_ROW,
        scale: torch.Tensor | None = None,
    ) -> torch.Tensor:
        self.check(indices, weight.shape[0], fault, report)
        if fault[0]:
            return weight.new_zeros(len(indices), weight.shape[1])
        out = weight[indices.long()]
        if scale is not None:
            out = (out * scale[indices.long()][:, None]).to(weight.dtype)
        out[indices == padding_idx] = 0
        return out

    def scatter(
        self,
        upstream: torch.Tensor,
        indices: torch.Tensor,
        rows: int,
        *,
        padding_idx: int = NO_ROW,
        scale_grad_by_freq: bool = False,
        deterministic: bool = False,
    ) -> torch.Tensor:
        ids = indices.long()
        wide = torch.float64 if upstream.dtype == torch.float64 else torch.float32
        sums = torch.zeros(rows, upstream.shape[1], dtype=wide).index_add_(
            0, ids, upstream.to(wide)
        )
        if scale_grad_by_freq:
            sums /= torch.bincount(ids, minlength=rows).clamp(min=1)[:, None]
        if padding_idx != NO_ROW:
            sums[padding_idx] = 0
        return sums.to(upstream.dtype)


OPERATOR = Operator("plain", PlainKernels)
embedding = OPERATOR.embedding
