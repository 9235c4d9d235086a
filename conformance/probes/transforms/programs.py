"""Lookups as programs of their own: compiled, exported, scripted. Slow: each is built anew."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from io import StringIO
from typing import Any, TypeAlias

import numpy as np

from embconform.backends.backend import Backend
from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.claims import (
    Equal,
    Must,
    Record,
    Refused,
    Unfinished,
    judge_refusable,
)
from embconform.conformance.probes.registry import Probe
from embconform.conformance.probes.transforms.claims import Bounded, GradientOf, Lookup, Rows
from embconform.conformance.probes.transforms.common import Check, Claims, Lab, Trial, observe_check
from embconform.conformance.recording import attempt, read, read_dense
from embconform.reference.clause import Profile

FIRST, LATER = np.array([1, 0, 3, 1, 1, 2, 3]), np.array([3, 0, 0, 2])
"""Indices that a program is built with, and others that it is run with."""
HEIGHT, WIDTH = 5, 3


def _lookups(lab: Lab, *names: str) -> Iterator[Lookup]:
    for options in lab.choices(FIRST, HEIGHT, *names):
        yield Lookup(FIRST, lab.table(HEIGHT, WIDTH), options, lab.profile)


def forms(lab: Lab) -> list[str]:
    """Name the forms that the backend has."""
    return [form for form in ("functional", "module") if form in lab.able]


def made_of(lab: Lab, lookup: Lookup, form: str) -> Any:
    """Make a module that holds the lookup's table."""
    functional = lab.backend.functional
    if form == "module" or functional is None:
        return lab.module(lookup)
    from embconform.conformance.probes.held import Held

    return Held(functional, lab.tensor(lookup.table), lookup.options)


Program: TypeAlias = "Callable[[torch.Tensor], Any]"
Called: TypeAlias = "Callable[[Lab, str, Lookup, Program, torch.Tensor], Claims]"
"""Calls a program that looks up as a lookup does; the tensor is its table."""


def _called_for_rows(
    lab: Lab, what: str, lookup: Lookup, program: Program, weight: torch.Tensor
) -> Claims:
    """Run a program whose gradient is not the lookup's; see docs/findings.md on torch.export."""
    return _called(lab, what, lookup, program, weight, trained=False)


def _called(
    lab: Lab,
    what: str,
    lookup: Lookup,
    program: Program,
    weight: torch.Tensor,
    *,
    trained: bool = True,
) -> Claims:
    """Run a program on the first indices and on others, forward and backward."""
    for ids in (lookup.ids, LATER):
        now = replace(lookup, ids=ids)
        told = f"{what} for {now}"
        out = program(lab.tensor(ids))
        yield Rows(f"the output of {told}", read(out), now)
        if trained and "gradient" in lab.able:
            yield from passed_back(lab, told, now, out, weight)


def passed_back(lab: Lab, told: str, lookup: Lookup, out: Any, weight: torch.Tensor) -> Claims:
    """Go backward from a program's output, and see the gradient and its layout."""
    upstream = lab.upstream(*lookup.shape)
    (gradient,) = torch.autograd.grad(out, weight, lab.tensor(upstream))
    if lookup.options.get("sparse"):
        layout = str(gradient.layout)
        yield Equal(f"the layout of the gradient of {told}", layout, "torch.sparse_coo")
    yield GradientOf(f"the gradient of {told}", read_dense(gradient), lookup, upstream)


def _called_with_max_norm(
    lab: Lab, what: str, lookup: Lookup, program: Program, weight: torch.Tensor
) -> Claims:
    """Run a program with max_norm on indices that it was not built with."""
    now = replace(lookup, ids=LATER)
    out = program(lab.tensor(LATER))
    yield Bounded(f"{what} for {now}", read(out), read(weight), now)


# torch.compile


class Counting:
    """torch.compile's aot_eager backend, which counts how often it is called."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        """Compile a graph."""
        from torch._dynamo.backends.registry import lookup_backend

        self.count += 1
        return lookup_backend("aot_eager")(graph, inputs)


def _compiled(function: Callable[..., Any], counting: Counting | None = None) -> Any:
    """Compile a function anew, whole and for all sizes."""
    torch._dynamo.reset()
    backend = counting or "aot_eager"
    return torch.compile(function, fullgraph=True, dynamic=True, backend=backend)


def _compile(lab: Lab) -> Iterator[Trial]:
    for form in forms(lab):
        for lookup in _lookups(lab, "padding_idx", "scale_grad_by_freq"):
            yield partial(_compiled_rows, lab, lookup, form)
        for lookup in _lookups(lab, "max_norm"):
            if lookup.options:
                yield partial(_compiled_bound, lab, lookup, form)


def _compiled_rows(lab: Lab, lookup: Lookup, form: str) -> Claims:
    module = made_of(lab, lookup, form)
    program = _compiled(module)
    what = f"the compiled {form}"
    yield from _called(lab, what, lookup, program, module.weight)
    bad = [HEIGHT, HEIGHT + 1, -1] if lab.profile is Profile.TORCH else [HEIGHT, HEIGHT + 1]
    for index in bad:
        wrong = lab.tensor(np.append(LATER, index))
        told = f"{what} with index {index} in a table of {HEIGHT} rows"
        yield attempt(told, partial(program, wrong))


def _compiled_bound(lab: Lab, lookup: Lookup, form: str) -> Claims:
    module = made_of(lab, lookup, form)
    program = _compiled(module)
    return _called_with_max_norm(lab, f"the compiled {form}", lookup, program, module.weight)


def _compile_once(lab: Lab) -> Iterator[Trial]:
    for lookup in _lookups(lab, "padding_idx", "scale_grad_by_freq"):
        yield partial(_counted, lab, lookup)


def _counted(lab: Lab, lookup: Lookup) -> Claims:
    """Compile for a first size, then call with others; a lone module keeps its table."""
    counting, functional = Counting(), lab.backend.functional
    if functional is None:
        alone = _compiled(lab.module(lookup), counting)
        sizes = [(number, HEIGHT, WIDTH) for number in (7, 4, 11, 2)]
    else:
        both = _compiled(partial(applied, functional, lookup.options), counting)
        sizes = [(7, 5, 3), (4, 9, 6), (11, 8, 2), (2, 13, 17)]
    first = 0
    for number, height, width in sizes:
        ids = lab.tensor(lab.draw.integers(0, HEIGHT, number))
        if functional is None:
            alone(ids)
        else:
            both(ids, lab.tensor(lab.table(height, width)))
        first = first or counting.count
        yield Must(
            counting.count == first,
            f"{number} indices into a table of {height} x {width} compiled anew, after "
            f"{sizes[0][0]} into one of {sizes[0][1]} x {sizes[0][2]} ({lookup.options})",
            f"{counting.count} compilations",
            f"{first}",
        )


def applied(
    functional: Callable[..., Any], options: dict[str, Any], ids: torch.Tensor, weight: torch.Tensor
) -> Any:
    """Call a function with options."""
    return functional(ids, weight, **options)


# torch.export and torch.jit


def _export(lab: Lab) -> Iterator[Trial]:
    for form in forms(lab):
        for lookup in _lookups(lab, "padding_idx"):
            yield partial(_exported, lab, lookup, form, _called_for_rows)
        for lookup in _lookups(lab, "max_norm"):
            if lookup.options:
                yield partial(_exported, lab, lookup, form, _called_with_max_norm)


def _exported(lab: Lab, lookup: Lookup, form: str, called: Called) -> Claims:
    sizes = ({0: torch.export.Dim.AUTO},)
    made = made_of(lab, lookup, form)
    exported = torch.export.export(made, (lab.tensor(FIRST),), dynamic_shapes=sizes)
    program = exported.module()
    weight = dict(program.named_parameters())["weight"]
    return called(lab, f"the exported {form}", lookup, program, weight)


def _script(lab: Lab) -> Iterator[Trial]:
    for form in forms(lab):
        for lookup in _lookups(lab, "padding_idx", "scale_grad_by_freq"):
            yield partial(_scripted, lab, lookup, form, _called)
        if {"sparse", "gradient"} <= lab.able:
            lookup = Lookup(FIRST, lab.table(HEIGHT, WIDTH), {"sparse": True}, lab.profile)
            yield partial(_scripted, lab, lookup, form, _called)


def _script_max_norm(lab: Lab) -> Iterator[Trial]:
    for form in forms(lab):
        for lookup in _lookups(lab, "max_norm"):
            if lookup.options:
                yield partial(_scripted, lab, lookup, form, _called_with_max_norm)


def _scripted(lab: Lab, lookup: Lookup, form: str, called: Called) -> Claims:
    program, weight = scripted(lab, lookup, form)
    return called(lab, f"the scripted {form}", lookup, program, weight)


def scripted(lab: Lab, lookup: Lookup, form: str) -> tuple[Program, torch.Tensor]:
    """Give a scripted lookup, and its table."""
    from embconform.conformance.probes.held import Held

    made = made_of(lab, lookup, form)
    if isinstance(made, Held):
        function = torch.jit.script(made.function)
        return partial(applied, function, lookup.options, weight=made.weight), made.weight
    return torch.jit.script(made), made.weight


CHECKS: dict[str, Check] = {
    "transforms.compile": _compile,
    "transforms.compile-once": _compile_once,
    "transforms.export": _export,
    "transforms.script": _script,
    "transforms.script-max-norm": _script_max_norm,
}


def observe_program(
    observed: tuple[str, Check],
    backend: Backend,
    profile: Profile,
    seed: int,
    device: str,
    *,
    skip: int = 0,
) -> tuple[Record, ...] | Unfinished:
    """Run every trial of a check in silence, unless the backend is compiled already."""
    if backend.compiled:
        refused = Refused("the backend is compiled already")
        return (Record(observed[0], (refused,), None, 0.0),)
    logging.disable()  # torch logs, and prints, the graph that it can't export
    try:
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            return observe_check(observed, backend, profile, seed, device, skip=skip)
    finally:
        logging.disable(logging.NOTSET)
        torch._dynamo.reset()


PROGRAM_PROBES = tuple(
    Probe(
        clause,
        frozenset({clause}),
        frozenset(),
        partial(observe_program, (clause, check)),
        judge_refusable,
        budgets=frozenset({"default", "thorough"}),
    )
    for clause, check in CHECKS.items()
)
