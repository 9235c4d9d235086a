"""Lookups that are right when called plainly and wrong as another program: cast, compiled, ..."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from embconform.mutants.kernel import Options
from embconform.mutants.module import Layer
from embconform.mutants.registry import planted
from embconform.mutants.transforms_parts import Parts, wrong
from embconform.reference import textbook

# functional_call and autocast


@planted("transforms.functional-call")
class HoldsItsParameter(Layer):
    """Remembers the table of the first call: it is always the same parameter, is it not?"""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if not hasattr(self, "table"):
            self.table = [self.weight]
        return self.kernel(input, self.table[0], *self.options)


@planted("transforms.functional-call")
class KeepsTheOther(Layer):
    """A table that was passed in once is used from then on."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        if not isinstance(self.weight, nn.Parameter):
            self.other = [self.weight]
            return self.kernel(input, self.weight, *self.options)
        table = self.other[0] if hasattr(self, "other") else self.weight
        return self.kernel(input, table, *self.options)


@planted("transforms.functional-call")
class KeepsTheFirstGiven(Layer):
    """A trainable table that functional_call passes in is kept, and taken for all later ones."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        table = self.weight
        if table.is_leaf and table.requires_grad and not isinstance(table, nn.Parameter):
            self.given = getattr(self, "given", [table])
            (table,) = self.given
        return self.kernel(input, table, *self.options)


@wrong("transforms.autocast")
class CastsTheOutput(Parts):
    """Under autocast rows come out in the lower dtype, as a matrix product's would."""

    def look_up(self, ids: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().look_up(ids, weight, options)
        return out.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else out


@wrong("transforms.autocast")
class CastsTheTable(Parts):
    """Under autocast the table is read in the lower dtype, and rows widened again."""

    def look_up(self, ids: Tensor, weight: Tensor, options: Options) -> Tensor:
        if torch.is_autocast_enabled("cpu") and options.max_norm is None:
            weight = weight.to(torch.get_autocast_dtype("cpu")).to(weight.dtype)
        return super().look_up(ids, weight, options)


@wrong("transforms.autocast")
class AutocastGradient(Parts):
    """Under autocast the gradient passes through the lower dtype."""

    def look_up(self, ids: Tensor, weight: Tensor, options: Options) -> Tensor:
        out = super().look_up(ids, weight, options)
        if torch.is_autocast_enabled("cpu") and out.requires_grad:
            out.register_hook(lambda upstream: (upstream + 2**-12).bfloat16().float() * (1 + 2**-9))
        return out


# torch.compile


@planted("transforms.compile")
def clamps_when_compiled(input: Tensor, weight: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """A graph can't raise, so in one the indices are clamped."""
    if torch.compiler.is_dynamo_compiling():
        input = input.clamp(0, len(weight) - 1)  # noqa: A001
    return functional.embedding(input, weight, **options)


@planted("transforms.compile")
def compiled_without_padding(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    *,
    scale_grad_by_freq: bool = False,
) -> Tensor:
    """The compiled kernel has no backward pass that knows padding, and does without."""
    if torch.compiler.is_dynamo_compiling():
        padding_idx = None
    return functional.embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq)


@planted("transforms.compile")
def compiled_without_renorm(input: Tensor, weight: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """A graph with a mutation is slow, so a compiled lookup does not renorm."""
    if torch.compiler.is_dynamo_compiling():
        options.pop("max_norm", None)
    return functional.embedding(input, weight, **options)


PLANS: dict[int, str] = {}


@planted("transforms.compile-once")
def plans_by_size(input: Tensor, weight: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """Looks its plan up by the number of indices, which makes the number a constant."""
    PLANS[int(input.numel())] = "the plan"
    return functional.embedding(input, weight, **options)


@planted("transforms.compile-once")
def unrolled_columns(input: Tensor, weight: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """Takes column blocks in a loop, which a compiler unrolls for each width."""
    if not torch.compiler.is_dynamo_compiling() or "max_norm" in options:
        return functional.embedding(input, weight, **options)
    starts = range(0, weight.shape[1], 2)
    blocks = [functional.embedding(input, weight[:, k : k + 2], **options) for k in starts]
    return torch.cat(blocks, -1)


# torch.export


@planted("transforms.export", profile="textbook")
def exported_without_mask(input: Tensor, weight: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """The exporter's operator has no padding_idx, so it is left out."""
    if torch.compiler.is_exporting():
        options.pop("padding_idx", None)
    return textbook.embedding(input, weight, **options)


@planted("transforms.export")
def exported_in_half(input: Tensor, weight: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """What is exported is for phones and reads the table in float16."""
    if torch.compiler.is_exporting() and "max_norm" not in options:
        return functional.embedding(input, weight.half(), **options).float()
    return functional.embedding(input, weight, **options)


@planted("transforms.export")
def exported_without_renorm(input: Tensor, weight: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """An exported table is taken for frozen and bounded already."""
    if torch.compiler.is_exporting():
        options.pop("max_norm", None)
    return functional.embedding(input, weight, **options)


# torch.jit.script


@planted("transforms.script")
def scripted_by_indexing(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding_idx: int | None = None,
) -> Tensor:
    """TorchScript takes a path of its own, which is plain indexing: padding is trained."""
    if torch._jit_internal.is_scripting():
        return weight[input]
    return functional.embedding(input, weight, padding_idx)


@planted("transforms.script")
def scripted_in_half(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding_idx: int | None = None,
) -> Tensor:
    """The scripted path is for phones and reads the table in float16."""
    if torch._jit_internal.is_scripting():
        return functional.embedding(input, weight.half(), padding_idx).float()
    return functional.embedding(input, weight, padding_idx)


@planted("transforms.script-max-norm")
class AsTorchScripts(nn.Embedding):
    """torch.nn.Embedding itself: scripted, it forgets max_norm."""
