"""from_pretrained, of the modules whose class has it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from embconform.conformance.finding import Finding, equal
from embconform.conformance.modules_common import (
    PADDING,
    Subject,
    described,
    difference,
    refused,
    run,
    table_of,
    unlike,
)
from embconform.conformance.observe import to_numpy

Maker = Callable[..., Any]


def _where_offered(
    check: Callable[[Subject, Maker], Finding | None],
) -> Callable[[Subject], Finding | None]:
    """Refuse where the class has no from_pretrained."""

    @wraps(check)
    def checked(subject: Subject) -> Finding | None:
        cls = type(subject.make())
        make = getattr(cls, "from_pretrained", None)
        if not callable(make):
            return refused(f"{cls.__name__} has no from_pretrained")
        return check(subject, make)

    return checked


def _takes(make: Maker, options: dict[str, Any]) -> bool:
    """Tell whether from_pretrained has arguments of these names."""
    parameters = inspect.signature(make).parameters.values()
    names = {parameter.name for parameter in parameters}
    return options.keys() <= names or any(p.kind is p.VAR_KEYWORD for p in parameters)


@_where_offered
def holds_the_rows(subject: Subject, make: Maker) -> Finding | None:
    """Judge that the given rows are looked up and kept, the padding row included."""
    every = subject.ids(range(5))
    for name in ("float32", "float64"):
        if name not in subject.backend.capabilities.dtypes:
            continue
        for options in ({}, {"padding_idx": PADDING}):
            if not options.keys() <= subject.able or not _takes(make, options):
                continue
            given = subject.values(getattr(torch, name))
            before = to_numpy(given)
            module = make(given, **options)
            which = f"from_pretrained{described(options)}"
            finding = (
                unlike(to_numpy(module(every)), before, f"the output of {which}")
                or unlike(table_of(module), before, f"the table of {which}")
                or unlike(to_numpy(given), before, f"the tensor given to {which}")
            )
            if finding:
                return finding
    return None


@_where_offered
def shares(subject: Subject, make: Maker) -> Finding | None:
    """Judge that weight and the given tensor are one memory."""
    for freeze in (True, False):
        given = subject.values()
        module = make(given, freeze=freeze) if not freeze else make(given)
        every = subject.ids(range(5))
        module(every)
        given[2] = 8.0
        with torch.no_grad():
            module.weight[3] = -8.0
        if float(module(every)[2, 0]) != 8.0:
            return Finding("a later change of the given tensor is not seen by the module")
        if float(given[3, 0]) != -8.0:
            return Finding("a later change of module.weight is not seen in the given tensor")
    return None


@_where_offered
def freezes(subject: Subject, make: Maker) -> Finding | None:
    """Judge the argument freeze, True by default."""
    for call, arguments, wanted in (
        ("from_pretrained(table)", {}, False),
        ("from_pretrained(table, freeze=True)", {"freeze": True}, False),
        ("from_pretrained(table, freeze=False)", {"freeze": False}, True),
    ):
        module = make(subject.values(), **arguments)
        finding = equal(f"weight.requires_grad of {call}", module.weight.requires_grad, wanted)
        if finding:
            return finding
        if "gradient" in subject.able and wanted is not module(subject.ids()).requires_grad:
            return Finding(f"what a module of {call} looks up must require grad: {wanted}")
    return None


@_where_offered
def keeps_options(subject: Subject, make: Maker) -> Finding | None:
    """Judge that options mean what they mean to the constructor."""
    if "gradient" not in subject.able:
        return refused(f"{subject.backend.name} has no gradient to show the options by")
    for options in subject.option_sets():
        if not _takes(make, options):
            continue
        wanted = run(subject.filled(**options), subject.ids())
        got = run(make(subject.values(), freeze=False, **options), subject.ids())
        finding = difference(got, wanted, f"from_pretrained{described(options)}")
        if finding:
            return finding
    return None


@_where_offered
def checks_rank(subject: Subject, make: Maker) -> Finding | None:
    """Judge that a tensor of another rank than 2 is refused."""
    del subject
    for shape in ((4,), (2, 3, 4)):
        try:
            make(torch.ones(shape))
        except Exception:
            continue
        return Finding(
            f"from_pretrained of a tensor of shape {shape} raised nothing",
            "no exception",
            "an exception",
        )
    return None
