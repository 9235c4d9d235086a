"""Copies of a module that go their own way: another table for one of them, another option."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy
from embconform.conformance.probes.modules.changes import OPTIONS_SET, sets
from embconform.conformance.probes.modules.claims import Behaviour, SameBehaviour
from embconform.conformance.probes.modules.common import (
    IDS,
    Claims,
    Subject,
    described,
    run,
    upstream_of,
)

Duplicate = Callable[[Any], Any]
_KINDS: Final = (("Parameter", True), ("tensor", False), ("result", True))
"""What takes the table's place, and whether it is trained."""


def options_of_one(subject: Subject, duplicate: Duplicate, which: str) -> Claims:
    """Set an option on a copy, or on its original: the other one's stays as it was."""
    if subject.backend.compiled:
        return
    ids = subject.ids()
    for given, name, value in OPTIONS_SET:
        wanted: Behaviour | None = None
        for at in (0, 1) if {*given, name} <= subject.able else ():
            module = subject.filled(**given)
            run(module, ids)  # something to share
            pair = (duplicate(module), module)
            if not sets(pair[at], name, value):
                continue
            other = pair[1 - at]
            other.weight.data.copy_(subject.values())
            wanted = wanted or run(subject.filled(**given), ids)
            told = (f"the original of {which}", which)[at]
            what = f"{told}{described(given)}, {name} of the other set to {value} since,"
            yield SameBehaviour(what, run(other, ids), wanted)


def tables_of_copies(subject: Subject, duplicate: Duplicate, which: str) -> Claims:
    """Give a shallow copy, or a replica, a table of its own: each looks its own up."""
    if subject.backend.compiled:
        return
    for place, options in enumerate(subject.option_sets()):
        module = subject.filled(**options).train(place % 2 == 0)
        run(module, subject.ids())  # something to be bound to it
        for told, made in _copies(module, duplicate, which):
            for kind, trained in _KINDS if not options else _KINDS[place % 3 :][:1]:
                told_of = f"{told}{described(options)}, its weight another {kind},"
                yield from _own_table(subject, made(), kind, trained, told_of, options)
                module.weight.data.copy_(subject.values())
                wanted = run(subject.filled(**options), subject.ids())
                what = f"the original of {told_of}"
                yield SameBehaviour(what, run(module, subject.ids()), wanted)


def passes_of_both(subject: Subject, duplicate: Duplicate, which: str) -> Claims:
    """Look up in a module and in its copy before either's backward pass."""
    if subject.backend.compiled or "gradient" not in subject.able:
        return
    for options in subject.option_sets():
        module = subject.filled(**options)
        module(subject.ids())  # something to share
        given = ((module, subject.ids()), (duplicate(module), subject.ids(IDS * 50)))
        outputs = [each(ids) for each, ids in given]
        for (each, ids), output, told in zip(given, outputs, ("the original of ", ""), strict=True):
            fresh = subject.filled(**options)
            seen, wanted = _gradient(each, output), _gradient(fresh, fresh(ids))
            what = f"{told}{which}{described(options)}, both called before either's pass,"
            yield SameBehaviour(what, seen, wanted)


def _gradient(module: Any, output: Any) -> Behaviour:
    output.backward(upstream_of(output))
    return {"the gradient": to_numpy(module.weight.grad.to_dense())}


def _copies(
    module: Any, duplicate: Duplicate, which: str
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """List ways to copy a module without its table."""

    def copied() -> Any:
        made = duplicate(module)
        made._parameters = {}  # copy.copy leaves both with one registry
        return made

    yield which, copied
    if hasattr(module, "_replicate_for_data_parallel"):
        yield "a replica for torch.nn.DataParallel", module._replicate_for_data_parallel


def _own_table(  # noqa: PLR0917
    subject: Subject, made: Any, kind: str, trained: bool, what: str, options: dict[str, Any]
) -> Claims:
    """Give a copy a table, as a Parameter, a tensor or what autograd computed, and compare."""
    table = (subject.values() * 2).requires_grad_(trained)
    fresh = subject.filled(**options)
    fresh.weight.data.copy_(table.detach())
    fresh.weight.requires_grad_(trained)
    if kind == "Parameter":
        table = torch.nn.Parameter(table.detach())
        made.register_parameter("weight", table)
    else:
        made.weight = table.clone() if kind == "result" else table
    yield SameBehaviour(what, _passed(subject, made, table), _passed(subject, fresh, fresh.weight))


def _passed(subject: Subject, module: Any, leaf: Any) -> Behaviour:
    """Look up, and go back to the tensor that the table was made of."""
    leaf.grad = None
    output = module(subject.ids())
    if output.requires_grad:
        output.backward(upstream_of(output))
    seen: Behaviour = {
        "the output": to_numpy(output),
        "requires_grad of the output": bool(output.requires_grad),
        "the table after the call": to_numpy(module.weight),
    }
    if leaf.grad is not None:
        seen["the gradient"] = to_numpy(leaf.grad.to_dense())
    return seen
