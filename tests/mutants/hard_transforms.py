"""Transforms and training that go wrong where a transform, an option and a shape meet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from embconform.mutants.kernel import Options
from embconform.mutants.percall import PerTable
from embconform.mutants.registry import planted
from embconform.mutants.transforms_parts import Parts, wrong


@wrong("transforms.forward-mode")
class JvpOfRankTwo(Parts):
    """The jvp rule flattens indices of two axes along the wrong one."""

    def tangent(self, direction: Tensor, ids: Tensor, options: Options) -> Any:
        right = super().tangent(direction, ids, options)
        return right.transpose(0, 1).reshape(right.shape) if ids.dim() == 2 else right


@wrong("transforms.forward-over-reverse")
class GradientJvpOfBoth(Parts):
    """Padding and frequencies together: the jvp rule of the backward pass counts padding's rows."""

    def tangent_of_gradient(
        self, direction: Tensor, ids: Tensor, height: int, options: Options
    ) -> Tensor:
        if options.padding_idx is not None and options.scale_grad_by_freq:
            options = replace(options, scale_grad_by_freq=False)
        return super().tangent_of_gradient(direction, ids, height, options)


@wrong("transforms.jacobian")
class LastMemberOnly(Parts):
    """The gradient of more than two members is written by the last one of equal indices."""

    def gradient_by_member(self, size: int, dims: Any, arguments: Any, shape: Any) -> Tensor:
        right = super().gradient_by_member(size, dims, arguments, shape)
        if size > 2:
            right = torch.cat([right[:-1], right[-1:] * 0])
        return right


@wrong("transforms.per-sample-gradient")
class FirstMembersPadding(Parts):
    """Only the first member's padding row is masked, rows being numbered through all tables."""

    def gradient_by_member(self, size: int, dims: Any, arguments: Any, shape: Any) -> Tensor:
        height, options = shape
        right = super().gradient_by_member(size, dims, arguments, shape)
        bare = (height, replace(options, padding_idx=None))
        whole = super().gradient_by_member(size, dims, arguments, bare)
        return torch.cat([right[:1], whole[1:]])


@wrong("transforms.vmap-indices")
class InnerAxisOfMembers(Parts):
    """Members along an axis other than the first are looked up in the wrong order."""

    def rows_by_member(self, size: int, dims: Any, arguments: Any, options: Options) -> Tensor:
        right = super().rows_by_member(size, dims, arguments, options)
        return right.flip(0) if dims[1] not in (None, 0) else right


@wrong("transforms.vmap-tables")
class TablesOfInnerAxis(Parts):
    """Tables along their last axis are looked up as if the members were in front."""

    def rows_by_member(self, size: int, dims: Any, arguments: Any, options: Options) -> Tensor:
        right = super().rows_by_member(size, dims, arguments, options)
        return right.flip(-1) if dims[0] == 2 and dims[1] is None else right


@wrong("transforms.func-grad")
class FuncGradOfPaddingAndCounts(Parts):
    """torch.func.grad takes another rule, which forgets padding where frequencies count, too."""

    def look_up(self, ids: Tensor, weight: Tensor, options: Options) -> Tensor:
        inside = torch._C._functorch.is_gradtrackingtensor(weight)
        if inside and options.padding_idx is not None:
            options = replace(options, padding_idx=None)
        return super().look_up(ids, weight, options)


@planted("training.sgd-step")
class ThirdPassStale(PerTable):
    """From the third pass over a float64 table on, the gradient of its first index is lost."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        number = self.next_pass()
        if number >= 3 and upstream.dtype == torch.float64 and indices.numel():
            upstream = upstream.clone()
            upstream.view(-1, upstream.shape[-1])[0] = 0
        return super().gradient(upstream, indices, height, options)


@planted("training.padding-row-unmoved")
class PaddingMovesOnceATen(PerTable):
    """Every tenth pass over a table is flushed without the padding mask."""

    def gradient(self, upstream: Tensor, indices: Tensor, height: int, options: Options) -> Tensor:
        if self.next_pass() % 10 == 0:
            options = replace(options, padding_idx=None)
        return super().gradient(upstream, indices, height, options)


@planted("training.skip-gram")
class StepOfRareWords(PerTable):
    """In vocabularies from 300 words on, a word named once in a batch gets its gradient halved."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if height >= 300 and self.next_pass() > 1:
            once = torch.bincount(flat, minlength=height) == 1
            right = torch.where(once.unsqueeze(1), right / 2, right)
        return right


@planted("training.adagrad-step")
class SmallGradientsVanish(PerTable):
    """From the second pass on gradients below a thousandth of the largest are dropped."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        right = super().dense(upstream, flat, height, counts)
        if self.next_pass() > 1 and right.numel() and right.isfinite().all():
            right = torch.where(right.abs() < right.abs().amax() / 50, 0.0, right)
        return right


@planted("training.sparse-adam-step")
class SparseThirdPass(PerTable):
    """The third sparse gradient of a table names its rows in the order of the second."""

    def sparse(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if self.next_pass() == 3 and flat.numel() > 1:
            upstream = upstream.flip(0)
        return super().sparse(upstream, flat, height, counts)
