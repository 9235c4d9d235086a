"""torch.nn.functional.embedding on a set of kernels: options, errors, autograd, torch.compile.

Four operators are registered with torch.library for each set: the lookup, the renorm, and the two
linear maps that are each other's derivative, so that gradients of any order exist.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Final

import torch
from torch.autograd import forward_ad

from embconform.backends.gpu.faults import cells
from embconform.backends.gpu.functions import Maps, is_transformed, linear, one_by_one
from embconform.backends.gpu.kernels import NO_ROW, Kernels

_INDEX_DTYPES: Final = (torch.int64, torch.int32)
_TABLE_DTYPES: Final = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


class Operator:
    """An embedding made of kernels.

    Parameters
    ----------
    name : str
        Part of the operators' names: ``embconform_<name>::lookup`` and so on.
    kernels : callable
        Makes the Kernels at the first launch.
    """

    def __init__(self, name: str, kernels: Callable[[], Kernels]) -> None:
        self._make = kernels
        self._made: Kernels | None = None
        space = f"embconform_{name}"
        self._lookup = _registered(f"{space}::lookup", self._look_up, _fake_rows)
        self._renorm = _registered(f"{space}::renorm_", self._bound, None, mutates=("weight",))
        self._sum = _registered(f"{space}::sum_rows", self._sum_rows, _fake_sum)
        self._spread = _registered(f"{space}::spread_rows", self._spread_rows, _fake_rows)
        self._lookup.register_autograd(self._lookup_backward, setup_context=_keep_lookup)
        self._sum.register_autograd(self._sum_backward, setup_context=_keep_linear)
        self._spread.register_autograd(self._spread_backward, setup_context=_keep_linear)

    @property
    def kernels(self) -> Kernels:
        """The launches themselves."""
        if self._made is None:
            self._made = self._make()
        return self._made

    def embedding(  # noqa: PLR0917, torch.nn.functional.embedding's
        self,
        input: torch.Tensor,  # noqa: A002
        weight: torch.Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> torch.Tensor:
        """Look up rows, as :func:`torch.nn.functional.embedding` does.

        Parameters
        ----------
        input : Tensor
            int32 or int64, any shape and strides.
        weight : Tensor
            Shape (V, D), any strides.
        padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse
            As there.

        Returns
        -------
        Tensor
            Shape (*input.shape, D).

        Raises
        ------
        IndexError
            If an index is outside 0..V-1; the table is unchanged then.
        AssertionError
            If padding_idx is outside -V..V-1.
        RuntimeError
            If a dtype, a shape or a device is unusable; in the backward pass, if the gradient is to
            be sparse and scaled.
        """
        _check(input, weight)
        padding = _padding(padding_idx, weight.shape[0])
        if max_norm is not None:
            self._renorm(weight.detach(), input, float(max_norm), float(norm_type))
        settings = (input, padding, scale_grad_by_freq, sparse, max_norm is not None)
        primal, tangent = forward_ad.unpack_dual(weight)  # type: ignore[no-untyped-call]
        if tangent is None:
            return self._rows(weight, settings)
        # an operator of torch.library drops a tangent without a word: docs/findings.md
        rows = self._rows(primal, settings)
        return forward_ad.make_dual(rows, tangent[input])  # type: ignore[no-any-return, no-untyped-call]

    def _rows(
        self, weight: torch.Tensor, settings: tuple[torch.Tensor, int, bool, bool, bool]
    ) -> torch.Tensor:
        """Look rows up by what :meth:`_look_up` takes beside the table."""
        indices, *count, sparse, checked = settings
        if sparse or not is_transformed():
            return self._lookup(weight, *settings)  # type: ignore[no-any-return]
        rows = weight.shape[0]
        maps = Maps(
            lookup=lambda table, ids: self._lookup(table, ids, *count, False, checked),
            sum=lambda upstream, ids: self._sum(upstream, ids, rows, *count),
            spread=lambda table, ids: self._spread(table, ids, rows, *count),
        )
        return linear(weight, indices, maps)

    def _look_up(  # noqa: PLR0917, an operator's
        self,
        weight: torch.Tensor,
        indices: torch.Tensor,
        padding_idx: int,
        scale_grad_by_freq: bool,
        sparse: bool,
        checked: bool,
    ) -> torch.Tensor:
        flat = indices.reshape(-1).contiguous()
        lending = cells(weight.device, weight.shape[0], wait=not checked)
        with _on_device(weight), lending as lent:
            rows = self.kernels.gather(weight, flat, lent.fault, lent.report)
        return _shaped(rows, (*indices.shape, weight.shape[1]))

    def _bound(
        self, weight: torch.Tensor, indices: torch.Tensor, max_norm: float, norm_type: float
    ) -> None:
        flat = indices.reshape(-1).contiguous()
        with _on_device(weight), cells(weight.device, weight.shape[0]) as lent:
            self.kernels.check(flat, weight.shape[0], lent.fault, lent.report)
            self.kernels.renorm(weight, flat, max_norm, norm_type, lent.fault)

    def _sum_rows(
        self,
        upstream: torch.Tensor,
        indices: torch.Tensor,
        rows: int,
        padding_idx: int,
        scale_grad_by_freq: bool,
    ) -> torch.Tensor:
        flat = indices.reshape(-1).contiguous()
        with _on_device(upstream):
            return self.kernels.scatter(
                upstream.reshape(flat.numel(), upstream.shape[-1]),
                flat,
                rows,
                padding_idx=padding_idx,
                scale_grad_by_freq=scale_grad_by_freq,
                deterministic=torch.are_deterministic_algorithms_enabled(),
            )

    def _spread_rows(
        self,
        table: torch.Tensor,
        indices: torch.Tensor,
        rows: int,
        padding_idx: int,
        scale_grad_by_freq: bool,
    ) -> torch.Tensor:
        flat = indices.reshape(-1).contiguous()
        scale = None
        if scale_grad_by_freq:
            wide = torch.float64 if table.dtype == torch.float64 else torch.float32
            scale = torch.bincount(flat, minlength=rows).clamp_(min=1).to(wide).reciprocal_()
        with _on_device(table), cells(table.device, rows) as lent:
            spread = self.kernels.gather(
                table, flat, lent.fault, lent.report, padding_idx=padding_idx, scale=scale
            )
        return _shaped(spread, (*indices.shape, table.shape[1]))

    def _lookup_backward(self, ctx: Any, upstream: torch.Tensor) -> tuple[Any, ...]:
        (indices,) = ctx.saved_tensors
        rows, padding_idx, scale_grad_by_freq, sparse = ctx.settings
        if sparse and scale_grad_by_freq:
            raise RuntimeError("a sparse gradient can't be scaled by frequency")
        if sparse:
            gradient = _sparse(upstream, indices, rows, padding_idx)
        else:
            settings = (rows, padding_idx, scale_grad_by_freq)
            gradient = _with_tangent(self._sum, upstream, indices, *settings)
        return gradient, None, None, None, None, None

    def _sum_backward(self, ctx: Any, upstream: torch.Tensor) -> tuple[Any, ...]:
        (indices,) = ctx.saved_tensors
        spread = _with_tangent(self._spread, upstream, indices, *ctx.settings)
        return spread, None, None, None, None

    def _spread_backward(self, ctx: Any, upstream: torch.Tensor) -> tuple[Any, ...]:
        (indices,) = ctx.saved_tensors
        summed = _with_tangent(self._sum, upstream, indices, *ctx.settings)
        return summed, None, None, None, None


def _with_tangent(linear: Any, tensor: torch.Tensor, *rest: Any) -> Any:
    """Apply a linear operator to a tensor, and to its tangent, which torch.library would drop."""
    primal, tangent = forward_ad.unpack_dual(tensor)  # type: ignore[no-untyped-call]
    if tangent is None:
        return linear(tensor, *rest)
    made = linear(primal, *rest), linear(tangent, *rest)
    return forward_ad.make_dual(*made)  # type: ignore[no-untyped-call]


def _shaped(rows: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Reshape what nobody else has, so that autograd lets users write to it: it is no view."""
    return torch.ops.aten._unsafe_view.default(rows, shape)  # type: ignore[no-any-return]


def _on_device(tensor: torch.Tensor) -> AbstractContextManager[None]:
    return torch.cuda.device_of(tensor)  # type: ignore[no-untyped-call]


def _registered(
    name: str,
    run: Callable[..., Any],
    fake: Callable[..., Any] | None,
    mutates: tuple[str, ...] = (),
) -> Any:
    """Register an operator; one that gives nothing needs no word on what it gives."""
    made = torch.library.custom_op(name, run, mutates_args=mutates)
    if fake is not None:
        made.register_fake(fake)
    made.register_vmap(partial(one_by_one, made))
    return made


def _fake_rows(table: torch.Tensor, indices: torch.Tensor, *_: Any) -> torch.Tensor:
    return table.new_empty((*indices.shape, table.shape[1]))


def _fake_sum(upstream: torch.Tensor, indices: torch.Tensor, rows: int, *_: Any) -> torch.Tensor:
    return upstream.new_empty((rows, upstream.shape[-1]))


def _keep_lookup(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    weight, indices, padding_idx, scale_grad_by_freq, sparse, _ = inputs
    ctx.save_for_backward(indices)
    ctx.settings = (weight.shape[0], padding_idx, scale_grad_by_freq, sparse)


def _keep_linear(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
    _, indices, *settings = inputs
    ctx.save_for_backward(indices)
    ctx.settings = tuple(settings)


def _sparse(
    upstream: torch.Tensor, indices: torch.Tensor, rows: int, padding_idx: int
) -> torch.Tensor:
    """Give the upstream rows as a sparse gradient, one entry an index, none for padding."""
    flat = indices.reshape(1, -1).to(torch.int64, copy=True)
    values = upstream.reshape(indices.numel(), upstream.shape[-1])
    if padding_idx == NO_ROW:
        values = values.clone()  # the caller may write to the upstream gradient later
    else:
        kept = (flat[0] != padding_idx).nonzero()[:, 0]
        flat, values = flat[:, kept], values[kept]
    size = (rows, upstream.shape[-1])
    return torch.sparse_coo_tensor(flat, values, size, check_invariants=False)


def _check(indices: torch.Tensor, weight: torch.Tensor) -> None:
    """Refuse what no embedding can be made of."""
    if indices.dtype not in _INDEX_DTYPES:
        raise RuntimeError(f"indices must be int64 or int32, not {indices.dtype}")
    if weight.dim() != 2:
        raise RuntimeError(f"weight must have 2 dimensions, not {weight.dim()}")
    if indices.device != weight.device:
        raise RuntimeError(f"indices are on {indices.device}, weight is on {weight.device}")


def _padding(padding_idx: int | None, rows: int) -> int:
    """Count a negative padding_idx from the end."""
    if padding_idx is None:
        return NO_ROW
    if not -rows <= padding_idx < rows:
        raise AssertionError(f"padding_idx {padding_idx} must lie in {-rows}..{rows - 1}")
    return padding_idx % rows if rows else NO_ROW
