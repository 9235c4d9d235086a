"""The founding document's layer, written wrongly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from embconform.mutants.registry import planted
from embconform.reference import textbook as right


class Formula:
    """The document's layer in parts; right as it stands."""

    __name__: str

    def __call__(
        self,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
    ) -> Tensor:
        output = self.rows(input, weight)
        if padding_idx is not None:
            output = self.masked(output, (input == padding_idx).unsqueeze(-1))
        if max_norm is not None and output.numel():
            output = self.bounded(output, max_norm, norm_type)
        return output

    def rows(self, indices: Tensor, weight: Tensor) -> Tensor:
        return right.embedding(indices, weight)

    def masked(self, output: Tensor, mask: Tensor) -> Tensor:
        return output.masked_fill(mask, 0.0)

    def bounded(self, output: Tensor, max_norm: float, norm_type: float) -> Tensor:
        """Scale by constants where the row is within the bound, by the quotient elsewhere."""
        with torch.no_grad():
            within = max_norm / self.norms(output, norm_type) >= 1
        over = torch.where(within, 1.0, output)
        quotient = max_norm / self.norms(over, norm_type)
        return output * torch.where(within, 1.0, quotient)

    def norms(self, output: Tensor, norm_type: float) -> Tensor:
        return output.norm(p=norm_type, dim=-1, keepdim=True)


def wrong(clause: str) -> Callable[[type[Formula]], Formula]:
    """Plant an instance of the decorated class, under the class's name."""

    def record(made: type[Formula]) -> Formula:
        formula = made()
        formula.__name__ = made.__name__
        planted(clause, profile="textbook")(formula)
        return formula

    return record


# Lookup


@wrong("lookup.fresh-output")
class ScalarIsAView(Formula):
    """weight[input] as the document writes it: a 0-d index gives a view of the table."""

    def rows(self, indices: Tensor, weight: Tensor) -> Tensor:
        return super().rows(indices, weight) if indices.dim() else weight[indices]


@wrong("errors.zero-width")
class WidthlessUnchecked(Formula):
    """weight[input] as the document writes it: torch checks no index of a table without columns."""

    def rows(self, indices: Tensor, weight: Tensor) -> Tensor:
        return super().rows(indices, weight) if weight.shape[1] else weight[indices]


@wrong("errors.too-large")
class ClampsIndices(Formula):
    """Ids are clamped into the table, after which the document's indexing can't raise."""

    def rows(self, indices: Tensor, weight: Tensor) -> Tensor:
        return super().rows(indices.clamp(max=max(weight.shape[0] - 1, 0)), weight)


@wrong("gradient.sum")
class EqualIndicesCountOnce(Formula):
    """Distinct rows are looked up once and then copied: of equal indices one gets a gradient."""

    def rows(self, indices: Tensor, weight: Tensor) -> Tensor:
        output = super().rows(indices, weight)
        _, inverse = indices.reshape(-1).unique(return_inverse=True)
        last = torch.zeros(inverse.numel(), dtype=torch.long)
        last.scatter_reduce_(0, inverse, torch.arange(inverse.numel()), "amax")
        first = torch.arange(inverse.numel()) == last[inverse]
        return torch.where(first.reshape(*indices.shape, 1), output, output.detach())


# Padding


@wrong("padding.output-is-zero")
class NoMask(Formula):
    """padding_idx is accepted and has no effect on the output; its gradient is masked."""

    def masked(self, output: Tensor, mask: Tensor) -> Tensor:
        return torch.where(mask, output.detach(), output)


@wrong("padding.output-is-zero")
class MultipliesByTheMask(Formula):
    """The mask multiplies: a padding row that holds Inf or NaN comes out as NaN."""

    def masked(self, output: Tensor, mask: Tensor) -> Tensor:
        masked = output.masked_fill(mask, 0.0)
        return torch.where(mask, output.detach() * 0.0, masked)


@wrong("padding.nonfinite-upstream")
class MultipliesByTheMaskBackward(Formula):
    """`output * mask`: an upstream gradient of Inf at padding times 0 is NaN in the table."""

    def masked(self, output: Tensor, mask: Tensor) -> Tensor:
        finite = torch.where(output.isfinite(), output, 0.0)
        return torch.where(mask, finite, output) * (~mask).to(output.dtype)


@wrong("padding.gradient-is-zero")
class MasksTheData(Formula):
    """The mask is laid over the output's data, unseen by autograd: the gradient leaks."""

    def masked(self, output: Tensor, mask: Tensor) -> Tensor:
        output = output.clone()
        output.detach().masked_fill_(mask, 0.0)
        return output


@wrong("padding.gradient-is-zero")
class ScalesBeforeTheMask(Formula):
    """Scale, then mask, with the literal quotient: a zero padding row has the gradient NaN."""

    def __call__(
        self,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
    ) -> Tensor:
        output = super().__call__(input, weight, None, max_norm, norm_type)
        if padding_idx is None:
            return output
        mask = (input == padding_idx).unsqueeze(-1)
        if max_norm is not None:
            norms = self.norms(super().rows(input, weight), norm_type)
            output = torch.where(mask, output * torch.clamp(max_norm / norms, max=1.0), output)
        return self.masked(output, mask)


@wrong("padding.zero-is-an-index")
class ZeroMeansNoPadding(Formula):
    """`if padding_idx:` takes padding_idx=0 for no padding."""

    def __call__(
        self,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
    ) -> Tensor:
        return super().__call__(input, weight, padding_idx or None, max_norm, norm_type)


@wrong("padding.row-untouched")
class ZeroesTheRow(Formula):
    """w0 = 0 taken literally: each call zeroes the stored row (fairseq#4076's relative)."""

    def __call__(
        self,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
    ) -> Tensor:
        if padding_idx is not None:
            weight.detach()[padding_idx] = 0.0
        return super().__call__(input, weight, padding_idx, max_norm, norm_type)


# Normalisation


@wrong("max-norm.value")
class TorchEpsilon(Formula):
    """The 1e-7 of torch.nn.Embedding is added to the norm."""

    def norms(self, output: Tensor, norm_type: float) -> Tensor:
        return super().norms(output, norm_type) + 1e-7


@wrong("max-norm.value")
class NormOverTheBatch(Formula):
    """The norm is taken over the last axis of the indices instead of over the columns."""

    def norms(self, output: Tensor, norm_type: float) -> Tensor:
        axis = -2 if output.dim() > 1 else -1
        return output.norm(p=norm_type, dim=axis, keepdim=True)


@wrong("max-norm.under-bound-keeps-bits")
class ScalesShortRowsUp(Formula):
    """The clamp is forgotten: rows within the bound are stretched to it."""

    def bounded(self, output: Tensor, max_norm: float, norm_type: float) -> Tensor:
        norms = self.norms(output.detach(), norm_type)
        short = (norms <= max_norm) & (norms > 0)
        stretched = output * (max_norm / torch.where(short, norms, 1.0))
        return torch.where(short, stretched, super().bounded(output, max_norm, norm_type))


@wrong("max-norm.norm-type")
class AlwaysEuclid(Formula):
    """norm_type is accepted and ignored."""

    def norms(self, output: Tensor, norm_type: float) -> Tensor:
        return super().norms(output, 2.0)


@wrong("max-norm.norm-type")
class CubesWithoutAbs(Formula):
    """(w ** p).sum() ** (1 / p) for odd p: negative components cancel."""

    def norms(self, output: Tensor, norm_type: float) -> Tensor:
        if norm_type != 3:
            return super().norms(output, norm_type)
        return (output**3).sum(-1, keepdim=True).abs() ** (1 / 3)


@wrong("max-norm.zero-bound")
class ZeroIsNoBound(Formula):
    """`if max_norm:` takes max_norm=0 for no bound."""

    def bounded(self, output: Tensor, max_norm: float, norm_type: float) -> Tensor:
        return super().bounded(output, max_norm, norm_type) if max_norm else output


@wrong("max-norm.table-untouched")
class RenormsTheTable(Formula):
    """The table is renormed in place as torch.nn.Embedding does; the output is right."""

    def __call__(
        self,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
    ) -> Tensor:
        output = super().__call__(input, weight, padding_idx, max_norm, norm_type)
        if max_norm is not None and weight.numel():
            with torch.no_grad():
                bounded = super().__call__(input, weight, None, max_norm, norm_type)
                weight.detach()[input] = bounded
        return output


@wrong("max-norm.gradient-through-scale")
class StraightThrough(Formula):
    """The scale is detached: the gradient of a long row is scaled and misses its second term."""

    def norms(self, output: Tensor, norm_type: float) -> Tensor:
        return super().norms(output, norm_type).detach()


@wrong("max-norm.gradient-through-scale")
class GradientPassesByTheScale(Formula):
    """The gradient passes by the scale altogether, as torch.nn.Embedding's does."""

    def bounded(self, output: Tensor, max_norm: float, norm_type: float) -> Tensor:
        bounded = super().bounded(output.detach(), max_norm, norm_type)
        return bounded + (output - output.detach()) if output.isfinite().all() else bounded


@wrong("max-norm.gradient-through-scale")
class ClampLetsGradientsPass(Formula):
    """A straight-through clamp: a row within the bound has a gradient as if it were scaled."""

    def bounded(self, output: Tensor, max_norm: float, norm_type: float) -> Tensor:
        norms = self.norms(output, norm_type)
        within = (norms.detach() > 0) & (max_norm / norms.detach() >= 1)
        leak = (max_norm / norms - (max_norm / norms).detach()).nan_to_num(0.0)
        bounded = super().bounded(output, max_norm, norm_type)
        return torch.where(within, bounded + output.detach() * leak, bounded)


@wrong("max-norm.zero-row-gradient")
class LiteralFormula(Formula):
    """clamp(max_norm / norms, max=1) as the document writes it: a zero row has the gradient NaN."""

    def bounded(self, output: Tensor, max_norm: float, norm_type: float) -> Tensor:
        return output * torch.clamp(max_norm / self.norms(output, norm_type), max=1.0)


@wrong("max-norm.zero-row-gradient")
class ZeroRowStaysZero(Formula):
    """A zero row is given the norm Inf to be safe: its gradient is 0 and it never moves."""

    def bounded(self, output: Tensor, max_norm: float, norm_type: float) -> Tensor:
        zero = (output == 0).all(-1, keepdim=True)
        bounded = super().bounded(output, max_norm, norm_type)
        return torch.where(zero, bounded.detach(), bounded)


@wrong("max-norm.wide-rows")
class NormOfTheFirstThousand(Formula):
    """Of rows wider than 1024 only the first 1024 columns count for the norm."""

    def norms(self, output: Tensor, norm_type: float) -> Tensor:
        return super().norms(output[..., :1024], norm_type)


@wrong("max-norm.later-calls")
class RemembersItsNorms(Formula):
    """Norms are cached by the addresses and shapes: a later call scales by old ones."""

    def __init__(self) -> None:
        self.cached: dict[object, Tensor] = {}

    def __call__(
        self,
        input: Tensor,  # noqa: A002
        weight: Tensor,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
    ) -> Tensor:
        self.key = (weight.data_ptr(), weight.dtype, weight.shape, input.data_ptr(), input.shape)
        return super().__call__(input, weight, padding_idx, max_norm, norm_type)

    def bounded(self, output: Tensor, max_norm: float, norm_type: float) -> Tensor:
        norms = self.norms(output.detach(), norm_type)
        stale = self.cached.setdefault(self.key, norms)
        return super().bounded(output, max_norm, norm_type) * (norms / stale).nan_to_num(1.0)


@wrong("errors.negative-wraps")
class CountsFromTheEnd(Formula):
    """weight[input], as the document has it: a negative index reads from the end of the table."""
