"""Modules whose table lies in memory otherwise than their constructor puts it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.modules.common import Subject, takes


def tables(subject: Subject) -> Iterator[tuple[str, torch.Tensor]]:
    """Name a tensor of its own, and views, if the backend takes them."""
    table = subject.values()
    yield "tensor", table.clone()
    if "strided" in subject.able:
        yield "columns of a wider tensor", torch.cat([table, table], dim=1)[:, : table.shape[1]]
        yield "rows of a taller tensor", torch.cat([table, table])[len(table) :]
        yield "transposed tensor", table.t().contiguous().t()


def on_tables(
    subject: Subject, *, trainable: bool, **options: Any
) -> Iterator[tuple[str, Any, torch.Tensor]]:
    """Make modules whose table is one of :func:`tables`, each named and with that tensor.

    By from_pretrained where the class has it, else as the Parameter that a user sets. A module
    that keeps its table otherwise is left out: other clauses say where it must not.
    """
    make = getattr(type(subject.make()), "from_pretrained", None)
    for kind, given in tables(subject):
        try:
            if callable(make) and takes(make, "freeze", *options):
                module = make(given, freeze=not trainable, **options)
            else:
                module = subject.filled(**options)
                module.weight = torch.nn.Parameter(given, trainable)
        except Exception:  # it need not take a view
            continue
        if module.weight.data_ptr() == given.data_ptr() and module.weight.shape == given.shape:
            yield f"a table that is {_article(kind)}", module, given


def _article(kind: str) -> str:
    return kind if kind.startswith(("columns", "rows")) else f"a {kind}"
