"""from_pretrained, of the modules whose class has it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from itertools import product
from typing import Any

from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy
from embconform.conformance.probes.claims import Equal, Must, Refused, SameBits
from embconform.conformance.probes.modules.claims import SameBehaviour
from embconform.conformance.probes.modules.common import (
    PADDING,
    Check,
    Claims,
    Subject,
    combinations_of,
    described,
    run,
    table_of,
    takes,
)
from embconform.conformance.probes.modules.layouts import tables
from embconform.conformance.recording import attempt, plain

Maker = Callable[..., Any]


def _where_offered(check: Callable[[Subject, Maker], Claims]) -> Check:
    """Refuse where the class has no from_pretrained."""

    @wraps(check)
    def checked(subject: Subject) -> Claims:
        cls = type(subject.make())
        make = getattr(cls, "from_pretrained", None)
        if callable(make):
            yield from check(subject, make)
        else:
            yield Refused(f"{cls.__name__} has no from_pretrained")

    return checked


@_where_offered
def holds_the_rows(subject: Subject, make: Maker) -> Claims:
    """See that the given rows are looked up and kept, the padding row included."""
    every = subject.ids(range(5))
    for name in ("float32", "float64"):
        if name not in subject.backend.capabilities.dtypes:
            continue
        for options in ({}, {"padding_idx": PADDING}):
            if not options.keys() <= subject.able or not takes(make, *options):
                continue
            given = subject.values(getattr(torch, name))
            before = to_numpy(given)
            module = make(given, **options)
            which = f"from_pretrained{described(options)}"
            yield SameBits(f"the output of {which}", to_numpy(module(every)), before)
            yield SameBits(f"the table of {which}", table_of(module), before)
            yield SameBits(f"the tensor given to {which}", to_numpy(given), before)


@_where_offered
def of_a_subclass(subject: Subject, make: Maker) -> Claims:
    """See that from_pretrained of a subclass makes one, and that its forward is called."""
    cls: Any = type(subject.make())

    def construct(module: Any, *arguments: Any, **options: Any) -> None:
        cls.__init__(module, *arguments, **options)
        module.factor = 2.0

    def forward(module: Any, ids: torch.Tensor) -> Any:
        return cls.forward(module, ids) * module.factor

    bodies = ({"forward": forward, "factor": 2.0}, {"forward": forward, "__init__": construct})
    for options, body in product(({}, subject.richest()), subject.few(bodies)):
        if not takes(make, *options):
            continue
        scaled: Any = type(f"Scaled{cls.__name__}", (cls,), dict(body))
        own = " with a constructor of its own" * ("__init__" in body)
        for freeze in (True, False):
            module = scaled.from_pretrained(subject.values(), freeze=freeze, **options)
            call = f"from_pretrained(table, freeze={freeze}{_written(options)}) of a subclass{own}"
            yield Must(isinstance(module, scaled), f"{call} makes a {type(module).__name__}")
            yield Must(hasattr(module, "factor"), f"{call} lacks what its constructor sets")
            plainly = subject.filled(**options)(subject.ids())
            got = to_numpy(module(subject.ids()))
            yield SameBits(f"the output of {call}", got, to_numpy(plainly) * 2.0)


@_where_offered
def draws_nothing(subject: Subject, make: Maker) -> Claims:
    """See that torch's generator is where it was."""
    for options in subject.option_sets():
        if takes(make, *options):
            before = torch.get_rng_state()
            make(subject.values(), **options)
            same = torch.equal(before, torch.get_rng_state())
            call = f"from_pretrained(table{_written(options)})"
            yield Must(same, f"{call} draws from torch's generator")


@_where_offered
def shares(subject: Subject, make: Maker) -> Claims:
    """See that weight and the given tensor are one memory, also where that is a view."""
    for freeze in (True, False):
        for kind, given in tables(subject):
            module = make(given, freeze=freeze) if not freeze else make(given)
            every = subject.ids(range(5))
            module(every)
            given[2] = 8.0
            with torch.no_grad():
                module.weight[3] = -8.0
            found = float(module(every)[2, 0])
            what = f"what the module looks up after the given {kind} changed to 8.0"
            yield Equal(what, found, 8.0)
            what = f"the given {kind} after module.weight changed to -8.0"
            yield Equal(what, float(given[3, 0]), -8.0)
    if not subject.backend.compiled:
        yield from _shares_with_options(subject, make)


def _shares_with_options(subject: Subject, make: Maker) -> Claims:
    """See the same with every set of options, each on one kind of tensor."""
    for place, options in enumerate(combinations_of(subject.able)):
        for freeze in (True, False) if takes(make, *options) else ():
            kinds = list(tables(subject))
            kind, given = kinds[(place + freeze) % len(kinds)]
            module = make(given, freeze=freeze, **options)
            module(subject.ids())
            given[2] = 8.0
            call = f"from_pretrained({kind}, freeze={freeze}{_written(options)})"
            what = f"the table of {call}, after a call and a write to what was given,"
            yield SameBits(what, table_of(module), to_numpy(given))


@_where_offered
def freezes(subject: Subject, make: Maker) -> Claims:
    """See the argument freeze, True by default, and that a frozen module can be set free."""
    for options in subject.option_sets():
        if not takes(make, *options):
            continue
        for arguments in ({}, {"freeze": True}, {"freeze": False}):
            module = make(subject.values(), **arguments, **options)
            call = f"from_pretrained(table{_written(arguments | options)})"
            seen, wanted = plain(module.weight.requires_grad), not arguments.get("freeze", True)
            yield Equal(f"weight.requires_grad of {call}", seen, wanted)
            if "gradient" in subject.able:
                seen = plain(module(subject.ids()).requires_grad)
                yield Equal(f"requires_grad of what a module of {call} looks up", seen, wanted)
        if "gradient" in subject.able:
            free = run(make(subject.values(), **options).requires_grad_(True), subject.ids())
            which = f"a module of from_pretrained, trainable since,{described(options)}"
            yield SameBehaviour(which, free, run(subject.filled(**options), subject.ids()))
    for arguments in ({}, {"freeze": True}, {"freeze": False}):
        yield from _donated(subject, make, arguments)


def _donated(subject: Subject, make: Maker, arguments: dict[str, Any]) -> Claims:
    """Make a module of another one's weight, and of a tensor; see that these stay as they were."""
    for trainable in (True, False):
        module = subject.filled()
        module.weight.requires_grad_(trainable)
        donors = {
            "another module's weight": module.weight,
            "a tensor": subject.values().clone().requires_grad_(trainable),
        }
        for kind, donor in donors.items():
            made, wanted = make(donor, **arguments), not arguments.get("freeze", True)
            call = f"from_pretrained({kind}{_written(arguments)})"
            seen = plain(made.weight.requires_grad)
            yield Equal(f"weight.requires_grad of {call}", seen, wanted)
            told = f"requires_grad of {kind}, which was {'trainable' if trainable else 'frozen'},"
            yield Equal(f"{told} after {call}", plain(donor.requires_grad), trainable)
            made.requires_grad_(not wanted)
            change = f"requires_grad_({not wanted}) of a module of {call}"
            yield Equal(f"{told} after {change}", plain(donor.requires_grad), trainable)


def _written(arguments: dict[str, Any]) -> str:
    return "".join(f", {name}={value}" for name, value in arguments.items())


@_where_offered
def keeps_options(subject: Subject, make: Maker) -> Claims:
    """See that options mean what they mean to the constructor."""
    if "gradient" not in subject.able:
        yield Refused(f"{subject.backend.name} has no gradient to show the options by")
        return
    for options in subject.option_sets():
        if takes(make, *options):
            wanted = run(subject.filled(**options), subject.ids())
            got = run(make(subject.values(), freeze=False, **options), subject.ids())
            yield SameBehaviour(f"from_pretrained{described(options)}", got, wanted)


@_where_offered
def checks_rank(subject: Subject, make: Maker) -> Claims:
    """See that a tensor of another rank than 2 is refused."""
    del subject
    for shape in ((4,), (2, 3, 4)):
        call = f"from_pretrained of a tensor of shape {shape}"
        yield attempt(call, partial(make, torch.ones(shape)))
