"""Modules that were changed after they were made: options set, cast, a table of another height."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.modules.claims import SameBehaviour
from embconform.conformance.probes.modules.common import (
    IDS,
    PADDING,
    ROWS,
    WIDTH,
    Claims,
    Subject,
    described,
    run,
)

OPTIONS_SET: Final[tuple[tuple[dict[str, Any], str, Any], ...]] = (
    ({}, "padding_idx", PADDING),
    ({"padding_idx": PADDING}, "padding_idx", None),
    ({"padding_idx": PADDING}, "padding_idx", 3),
    ({}, "max_norm", 1.0),
    ({"max_norm": 1.0}, "max_norm", None),
    ({"max_norm": 1.0}, "max_norm", 2.0),
    ({"max_norm": 1.5, "norm_type": 1.0}, "norm_type", 2.0),
    ({"max_norm": 1.5, "norm_type": 2.0}, "norm_type", float("inf")),
    ({}, "scale_grad_by_freq", True),
    ({"scale_grad_by_freq": True}, "scale_grad_by_freq", False),
    ({"padding_idx": PADDING}, "scale_grad_by_freq", True),
    ({}, "sparse", True),
    ({"sparse": True}, "sparse", False),
    ({"padding_idx": PADDING}, "sparse", True),
)
"""Options of the constructor, and then an attribute and its new value."""
_ONE_OF_EACH: Final = tuple(OPTIONS_SET[place] for place in (0, 1, 3, 4, 6, 8, 11))

Put = Callable[[Any, "torch.Tensor"], None]
Make = Callable[["torch.dtype"], Any]


def put_parameter(module: Any, table: torch.Tensor) -> None:
    """Give a module another table, as a Parameter of its own."""
    module.weight = torch.nn.Parameter(table, module.weight.requires_grad)


def put_data(module: Any, table: torch.Tensor) -> None:
    """Give a module's Parameter another table."""
    module.weight.data = table


PUTS: Final[dict[str, Put]] = {"weight": put_parameter, "weight.data": put_data}


def sets(module: Any, name: str, value: Any) -> bool:
    """Set an option, and tell whether the module has it as an attribute that can be set."""
    if not hasattr(module, name):
        return False
    try:
        setattr(module, name, value)
    except Exception:
        return False
    return True


def of_height(subject: Subject, rows: int) -> torch.Tensor:
    """Make a table as high as that, whose first rows are those of :meth:`Subject.values`."""
    table = subject.values()
    return torch.cat([table, -table])[:rows].clone()


def ids_of(subject: Subject, rows: int) -> torch.Tensor:
    """Make indices of a table as high as that, down to its last row."""
    return subject.ids((*IDS, (rows - 1, 0, rows - 1)))


def made_of_height(subject: Subject, rows: int, **options: Any) -> Any:
    """Make a module as high as that at once."""
    if options.get("padding_idx") is not None:
        options["padding_idx"] %= ROWS
    wanted = subject.make(rows, WIDTH, dtype=subject.dtype, **options)
    wanted.weight.data.copy_(of_height(subject, rows))
    return wanted


def replaced(subject: Subject) -> Iterator[tuple[str, Put, int]]:
    """List ways to replace a table by one of another height, of those that the class takes.

    One that refuses such a table where it has no options, in training, need not take it at all.
    """
    for rows in (2 * ROWS, ROWS - 1):
        for name, put in PUTS.items():
            try:
                module = subject.filled()
                put(module, of_height(subject, rows))
                if not subject.backend.compiled:
                    run(module, ids_of(subject, rows))
            except Exception:  # a class may keep its number of rows
                continue
            yield f"a table of {rows} rows put in {name} of one of {ROWS}", put, rows


def changed(subject: Subject) -> Iterator[tuple[str, Make]]:
    """Name changed modules, with what makes one, in whatever dtype."""
    for given, name, value in _ONE_OF_EACH:
        if {*given, name} <= subject.able and sets(subject.filled(**given), name, value):
            told = f"a module{described(given)}, its {name} set to {value} since"
            yield told, partial(_with_option_set, subject, given, name, value)
    for dtype in [getattr(torch, name) for name in subject.backend.capabilities.dtypes]:
        if dtype is not subject.dtype:
            yield f"a module cast to {dtype}", partial(_cast_to, subject, dtype)
    for told, put, rows in replaced(subject):
        yield f"{told}{described(subject.richest())}", partial(_with_another, subject, put, rows)


def _with_option_set(
    subject: Subject, given: dict[str, Any], name: str, value: Any, dtype: torch.dtype
) -> Any:
    module = subject.filled(dtype=dtype, **given)
    setattr(module, name, value)
    return module


def _cast_to(subject: Subject, changed: torch.dtype, dtype: torch.dtype) -> Any:
    return subject.filled(dtype=dtype, **subject.richest()).to(changed)


def _with_another(subject: Subject, put: Put, rows: int, dtype: torch.dtype) -> Any:
    module = subject.filled(dtype=dtype, **subject.richest())
    put(module, of_height(subject, rows).to(dtype))
    return module


def after_changes(
    subject: Subject,
    then: Callable[[Any], Any],
    which: str,
    same: Callable[[Any], Any] = lambda module: module,
    dtype: torch.dtype | None = None,
) -> Claims:
    """Do something to each changed module, and compare what it gives with another one so changed.

    Parameters
    ----------
    subject : Subject
    then : callable
        Takes a module and gives one.
    which : str
        What it gives, for the message.
    same : callable
        What is done to the other one.
    dtype : torch.dtype, optional
        That of the other one before it was changed, where that differs.
    """
    for told, make in () if subject.backend.compiled else changed(subject):
        try:
            wanted = same(make(dtype or subject.dtype))
            ids = ids_of(subject, len(wanted.weight))
            behaviour = run(wanted, ids)
        except Exception:  # other clauses tell
            continue
        yield SameBehaviour(f"{which} {told}", run(then(make(subject.dtype)), ids), behaviour)
