"""What a module's constructor makes, takes and refuses."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from embconform.conformance.finding import Finding, equal
from embconform.conformance.modules_common import PADDING, ROWS, WIDTH, Subject, refused, table_of
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array


def parameter(subject: Subject) -> Finding | None:
    """Judge that weight is the only parameter, and trainable."""
    module = subject.make(5, 3)
    found = [(name, tuple(value.shape)) for name, value in module.named_parameters()]
    return equal("parameters", found, [("weight", (5, 3))]) or equal(
        "weight.requires_grad", module.weight.requires_grad, True
    )


def padding_row(subject: Subject) -> Finding | None:
    """Judge row padding_idx of new tables, and that the other rows are drawn."""
    torch.manual_seed(subject.seed)
    wants_zeros = subject.profile is Profile.TORCH
    for padding in (0, 2, 6, -2) if wants_zeros else (0, 2, 6):
        zeros = (table_of(subject.make(7, 5, padding_idx=padding)) == 0).all(axis=1)
        if zeros[padding] != wants_zeros:
            right = "zeros" if wants_zeros else "drawn like the others"
            return Finding(f"row padding_idx={padding} of a new table must be {right}, and is not")
        zeros[padding] = False
        if zeros.any():
            row = int(np.argmax(zeros))
            return Finding(f"with padding_idx={padding}, row {row} of a new table is zero as well")
    return None


def seeded(subject: Subject) -> Finding | None:
    """Judge that torch.manual_seed rules the draw."""

    def draw() -> tuple[Array, Array]:
        torch.manual_seed(subject.seed)
        return table_of(subject.make(6, 4)), table_of(subject.make(6, 4))

    (first, second), (again, _) = draw(), draw()
    if not np.array_equal(first, again):
        return Finding("torch.manual_seed does not reproduce a new table")
    if np.array_equal(first, second):
        return Finding("two tables drawn one after the other are equal")
    return None


def dtype_argument(subject: Subject) -> Finding | None:
    """Judge the dtype of the table that the constructor makes."""
    for name in subject.backend.capabilities.dtypes:
        module = subject.make(dtype=getattr(torch, name))
        seen = str(module.weight.dtype).removeprefix("torch.")
        out = str(module(subject.ids()).dtype).removeprefix("torch.")
        finding = equal(f"weight.dtype with dtype=torch.{name}", seen, name) or equal(
            f"the output's dtype with dtype=torch.{name}", out, name
        )
        if finding:
            return finding
    return None


def attributes(subject: Subject) -> Finding | None:
    """Judge the attributes that repeat the constructor's arguments."""
    given: dict[str, Any] = {
        "padding_idx": PADDING,
        "max_norm": 1.5,
        "norm_type": 1.0,
        "scale_grad_by_freq": True,
        "sparse": True,
    }
    given = {name: value for name, value in given.items() if name in subject.able}
    module = subject.make(**given)
    for name, value in {"num_embeddings": ROWS, "embedding_dim": WIDTH, **given}.items():
        seen = getattr(module, name, "missing")
        if not np.isscalar(seen) or seen != value:
            return equal(f"module.{name}", str(seen), str(value))
    return None


def padding_normalised(subject: Subject) -> Finding | None:
    """Judge the attribute padding_idx of a module made with a negative one."""
    for negative in (-1, -ROWS):
        module = subject.make(padding_idx=negative)
        if not hasattr(module, "padding_idx"):
            return refused(f"{type(module).__name__} has no attribute padding_idx")
        finding = equal(
            f"module.padding_idx of Embedding({ROWS}, {WIDTH}, padding_idx={negative})",
            module.padding_idx,
            ROWS + negative,
        )
        if finding:
            return finding
    return None


def shown(subject: Subject) -> Finding | None:
    """Judge what repr says."""
    text = repr(subject.make(17, 29))
    for what, size in (("num_embeddings", "17"), ("embedding_dim", "29")):
        if size not in re.findall(r"\d+", text):
            brief = " ".join(text.split())[:80]
            return Finding(
                f"repr of Embedding(17, 29) is {brief!r} and does not name {what}", brief, size
            )
    return None


def _must_raise(make: Callable[[], object], what: str) -> Finding | None:
    """Demand an exception."""
    try:
        make()
    except Exception:
        return None
    return Finding(f"{what} raised nothing", "no exception", "an exception")


def padding_out_of_range(subject: Subject) -> Finding | None:
    """Judge that the constructor refuses a padding_idx outside the table."""
    for padding in (ROWS, -ROWS - 1, 2**40):
        call = f"Embedding({ROWS}, {WIDTH}, padding_idx={padding})"
        finding = _must_raise(partial(subject.make, padding_idx=padding), call)
        if finding:
            return finding
    for padding in (ROWS - 1, -ROWS):
        subject.make(padding_idx=padding)
    return None


def weight_shape(subject: Subject) -> Finding | None:
    """Judge the constructor's argument _weight."""
    cls = type(subject.make())
    if "_weight" not in inspect.signature(cls).parameters:
        return refused(f"{cls.__name__} has no argument _weight")
    for shape in ((ROWS, WIDTH + 1), (ROWS + 1, WIDTH), (WIDTH, ROWS), (ROWS * WIDTH,)):
        table = torch.ones(shape)
        call = f"Embedding({ROWS}, {WIDTH}, _weight=<shape {shape}>)"
        finding = _must_raise(partial(subject.make, _weight=table), call)
        if finding:
            return finding
    table = subject.values()
    seen = table_of(subject.make(_weight=table))
    if not np.array_equal(seen, table.cpu().numpy()):
        return Finding("a module made with _weight does not hold it")
    return None
