"""Refusals that are unkind: wrong type, no index in the message, traces left behind."""

from __future__ import annotations

import torch
from torch import Tensor

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.registry import planted


@planted("errors.exception-type")
class RaisesRuntimeError(Kernel):
    """A bad index raises RuntimeError, as under Inductor."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        try:
            super().check_range(indices, weight, options)
        except IndexError as error:
            raise RuntimeError(str(error)) from None


@planted("errors.exception-type")
class AssertsForInt32(Kernel):
    """A bad int32 index fails an assertion."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        try:
            super().check_range(indices, weight, options)
        except IndexError as error:
            kind = AssertionError if indices.dtype == torch.int32 else IndexError
            raise kind(str(error)) from None


@planted("errors.names-the-index")
class NamesNothing(Kernel):
    """The message is that of torch: index out of range in self."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        try:
            super().check_range(indices, weight, options)
        except IndexError:
            raise IndexError("index out of range in self") from None


@planted("errors.names-the-index")
class NamesFirstIndex(Kernel):
    """The message names the first index of the call, good or bad."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        try:
            super().check_range(indices, weight, options)
        except IndexError:
            first = int(indices.reshape(-1)[0])
            raise IndexError(f"index {first} is out of bounds for a table") from None


@planted("errors.names-the-index")
class NamesPositionOfIndex(Kernel):
    """The message gives the place of the bad index instead of its value."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        try:
            super().check_range(indices, weight, options)
        except IndexError:
            flat = indices.reshape(-1)
            place = int(((flat < 0) | (flat >= weight.shape[0])).int().argmax())
            raise IndexError(f"the index at place {place} is out of bounds") from None


@planted("errors.atomic")
class RenormsBeforeCheck(Kernel):
    """The good rows are renormed before the bad index is met, as in torch 2.13."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        try:
            super().check_range(indices, weight, options)
        except IndexError:
            flat = self.flat(indices)
            good = flat[(flat >= 0) & (flat < weight.shape[0])]
            if options.max_norm is not None:
                with torch.no_grad():
                    self.renorm(good, weight, options)
            raise


@planted("errors.atomic")
class ClampsIndicesBeforeRaising(Kernel):
    """Bad indices are clamped in the caller's memory, for safety, before the error is raised."""

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        try:
            super().check_range(indices, weight, options)
        except IndexError:
            if weight.shape[0]:
                indices.copy_(indices.clamp(0, weight.shape[0] - 1))
            raise


@planted("errors.next-call-works")
class ErrorLeavesZeros(Kernel):
    """An error leaves a flag behind, and the next call returns its empty buffer."""

    broken = False

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        try:
            super().check_range(indices, weight, options)
        except IndexError:
            self.broken = True
            raise

    def rows(self, flat: Tensor, weight: Tensor) -> Tensor:
        rows = super().rows(flat, weight)
        rows = torch.zeros_like(rows) if self.broken else rows
        self.broken = False
        return rows


@planted("errors.next-call-works")
class ErrorReportedAgain(Kernel):
    """The error flag is sticky: the next call raises as well, whatever its indices."""

    error: IndexError | None = None

    def check_range(self, indices: Tensor, weight: Tensor, options: Options) -> None:
        late, self.error = self.error, None
        if late is not None:
            raise IndexError(str(late))
        try:
            super().check_range(indices, weight, options)
        except IndexError as error:
            self.error = error
            raise
