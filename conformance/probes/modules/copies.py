"""What becomes of a module that is copied, pickled or cast."""

from __future__ import annotations

import copy
import io
import pickle
import sys
from collections.abc import Callable
from typing import Any, Final

from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy
from embconform.conformance.probes.claims import Equal, Must, Refused, SameBits
from embconform.conformance.probes.modules.claims import CastOf, SameBehaviour
from embconform.conformance.probes.modules.common import (
    Claims,
    Subject,
    described,
    run,
    serve,
    table_of,
)
from embconform.conformance.probes.modules.layouts import on_tables


def cast(subject: Subject) -> Claims:
    """See to(dtype), and double() and float() there and back."""
    names = subject.backend.capabilities.dtypes
    for before, after in (
        ("float64", "float32"),
        ("float32", "float64"),
        ("float32", "float16"),
        ("float32", "bfloat16"),
    ):
        if before in names and after in names:
            yield from _cast(subject, before, after)
            yield from _cast_with_options(subject, before, after)
    if {"float32", "float64"} <= set(names):
        module = subject.filled(dtype=torch.float32)
        table = table_of(module)
        module.double()
        module(subject.ids())
        module.float()
        yield SameBits("the table after double() and float()", table_of(module), table)
        for name in ("overwrite", "swap"):
            for trainable in subject.few((True, False)):
                yield from _cast_by(subject, name, trainable)
    for here, there in _THERE_AND_BACK:
        if {here, there} <= set(names):
            for options in ({}, subject.richest()):
                yield from _there_and_back(subject, here, there, options)


_THERE_AND_BACK: Final = (
    ("float32", "float64"),
    ("float64", "float32"),
    ("float32", "bfloat16"),
    ("float32", "float16"),
)


def _there_and_back(subject: Subject, here: str, there: str, options: dict[str, Any]) -> Claims:
    """Cast to another dtype and back, over and over, with a write to the table before each cast.

    What a cast has rounded, or what was written since, must not come back.
    """
    dtype, which = getattr(torch, here), f"a module{described(options)}"
    cases = [(which, subject.filled(dtype=dtype, **options))]
    if not options and not subject.backend.compiled:
        views = on_tables(subject, trainable=True)
        cases += [(f"a module on {kind}", module.to(dtype)) for kind, module, _ in views][-1:]
    writes = _writes(subject)
    for name, module in cases:
        for write in writes if not options else ("a step",):
            for before, after in ((here, there), (there, here)):
                writes[write](module)
                given = table_of(module)
                module.to(getattr(torch, after))
                what = f"the table of {name} cast from {before} to {after} after {write}"
                yield CastOf(what, table_of(module), given, after)
    if subject.backend.compiled:
        return
    module, wanted = cases[0][1], subject.filled(dtype=dtype, **options)
    wanted.weight.data.copy_(module.weight.data)
    which = f"{which}, cast from {here} to {there} and back,"
    yield SameBehaviour(which, run(module, subject.ids()), run(wanted, subject.ids()))


def _writes(subject: Subject) -> dict[str, Callable[[Any], Any]]:
    """List ways to change a table."""
    return {
        "nothing": lambda _: None,
        "a step": _step,
        "load_state_dict": lambda module: module.load_state_dict({"weight": subject.values() * 3}),
        "a write to weight.data": lambda module: module.weight.data.mul_(0.3),
    }


def _step(module: Any) -> None:
    with torch.no_grad():
        module.weight.mul_(1.1)


def _cast_by(subject: Subject, way: str, trainable: bool) -> Claims:
    """Cast where torch is told to make new Parameters, or to swap what they hold."""
    flags = torch.__future__
    get = getattr(flags, f"get_{way}_module_params_on_conversion")
    put = getattr(flags, f"set_{way}_module_params_on_conversion")
    before = get()
    for options in ({}, subject.richest()):
        module = subject.filled(dtype=torch.float32, **options)
        module.weight.requires_grad_(trainable)
        run(module, subject.ids())  # something to cache
        try:
            put(True)
            module.double()
        except RuntimeError:  # torch swaps no Parameter that anybody else holds
            return
        finally:
            put(before)
        fresh = subject.filled(dtype=torch.float64, **options)
        fresh.weight.requires_grad_(trainable)
        for each in (module, fresh):
            each.weight.data.fill_(0.125)
        frozen = "" if trainable else "frozen "
        which = (
            f"a {frozen}module{described(options)} after double(), by {put.__name__}, and a write"
        )
        yield SameBehaviour(which, run(module, subject.ids()), run(fresh, subject.ids()))
        for each in (module, fresh):
            each.weight.data.fill_(0.25)
        got, wanted = (serve(each.eval(), subject.ids()) for each in (module, fresh))
        yield SameBehaviour(f"{which}, in eval mode", got, wanted)


def _cast(subject: Subject, before: str, after: str) -> Claims:
    """Cast a module whose values the narrower dtype does not hold."""
    module, ids = subject.filled(dtype=getattr(torch, before)), subject.ids()
    with torch.no_grad():
        module.weight.mul_(1 + 2.0**-11)
    given, what, weight = table_of(module), f"{before} to {after}", module.weight
    module(ids)  # something to cache
    moved = module.to(getattr(torch, after))
    yield Must(moved.weight is weight, f"a cast from {what} puts another Parameter in its place")
    yield Must(
        isinstance(moved.weight, torch.nn.Parameter) and bool(moved.weight.requires_grad),
        f"weight cast from {what} is no trainable Parameter any more",
    )
    yield CastOf(f"the table cast from {what}", table_of(moved), given, after)
    seen = run(moved, ids)
    output = seen["the output"]
    yield CastOf(f"the output after a cast from {what}", output, given, after, to_numpy(ids))
    if "gradient" in subject.able:
        dtype = str(moved.weight.dtype)
        yield Equal(f"the gradient's dtype, {what}", seen["the dtype of the gradient"], dtype)
    yield Must(moved is module, "module.to(dtype) returned another module; it works in place")


def _cast_with_options(subject: Subject, before: str, after: str) -> Claims:
    """Compare a module after a cast with one that was made with the dtype."""
    ids, dtype = subject.ids(), getattr(torch, after)
    for options in subject.option_sets():
        module = subject.filled(dtype=getattr(torch, before), **options)
        module.to(dtype)
        wanted = run(subject.filled(dtype=dtype, **options), ids)
        which = f"a module cast from {before} to {after}{described(options)}"
        yield SameBehaviour(which, run(module, ids), wanted)


def deepcopy(subject: Subject) -> Claims:
    """See copy.deepcopy."""
    return _same_but_apart(subject, copy.deepcopy, "a deepcopy")


def shallow(subject: Subject) -> Claims:
    """See that copy.copy gives another module on the same Parameter."""
    for options in ({}, subject.richest()):
        for trainable in (True, False):
            module = subject.filled(**options)
            module.weight.requires_grad_(trainable)
            made = copy.copy(module)
            which = f"a shallow copy{described(options)}{'' if trainable else ', frozen'}"
            yield Must(made is not module, f"{which} is the module itself")
            yield Must(made.weight is module.weight, f"{which} has another weight")
            module.weight.data.fill_(0.125)
            wanted = subject.constant(0.125, trainable=trainable, **options)
            yield SameBehaviour(which, run(made, subject.ids()), wanted)


def pickled(subject: Subject) -> Claims:
    """See pickle and torch.save, where the class is one that pickle can find by name."""
    cls = type(subject.make())
    if not importable(cls):
        yield Refused(f"pickle can't import {cls.__module__}.{cls.__qualname__}")
        return
    yield from _same_but_apart(subject, unpickled, "a pickled copy")
    yield from _same_but_apart(subject, _saved, "a copy by torch.save")


def importable(cls: type) -> bool:
    """Tell whether pickle can find a class by its name."""
    home: Any = sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        home = getattr(home, name, None)
    return home is cls


def unpickled(module: Any) -> Any:
    """Send a module through pickle."""
    return pickle.loads(pickle.dumps(module))


def _saved(module: Any) -> Any:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def _same_but_apart(subject: Subject, duplicate: Callable[[Any], Any], which: str) -> Claims:
    """Demand a module that does the same, with a table of its own."""
    own = subject.dtype
    others = [getattr(torch, name) for name in subject.backend.capabilities.dtypes]
    sets = [(options, own) for options in subject.option_sets()]
    if not subject.backend.compiled:
        sets += [(subject.richest(), dtype) for dtype in others if dtype is not own]
    for options, dtype in sets:
        for frozen in (False, True):
            module = subject.filled(dtype=dtype, **options)
            module.weight.requires_grad_(not frozen)
            if "max_norm" not in options:
                module(subject.ids())  # something to cache
            module.eval()
            made = duplicate(module)
            cast = "" if dtype is own else f" of {dtype}"
            what = f"{which}{cast}{described(options)}{', frozen' * frozen}"
            yield Must(not made.training, f"{what} is in training mode, and was made in eval mode")
            yield from _apart(subject, module, made, what, options)
    if subject.backend.compiled:
        return
    for kind, module, _ in on_tables(subject, trainable=True, **subject.richest()):
        what = f"{which} of a module on {kind}{described(subject.richest())}"
        yield from _apart(subject, module, duplicate(module), what, subject.richest())


def _apart(subject: Subject, module: Any, made: Any, what: str, options: dict[str, Any]) -> Claims:
    """Compare the copy with the original, before and after each changes alone."""
    ids, table, dtype = subject.ids(), table_of(module), module.weight.dtype
    yield SameBits(f"the table of {what}", table_of(made), table)
    yield Must(isinstance(made.weight, torch.nn.Parameter), f"weight of {what} is no Parameter")
    got = run(made, ids)
    yield SameBits(f"the original's table after a call of {what}", table_of(module), table)
    yield SameBehaviour(what, got, run(module, ids))
    kept = table_of(module)
    trainable = made.weight.requires_grad
    wanted = subject.constant(0.125, trainable=trainable, dtype=dtype, **options)
    made.weight.data.fill_(0.125)
    yield SameBits(f"the original's table after a change of {what}", table_of(module), kept)
    yield SameBehaviour(f"{what} after its own change", run(made, ids), wanted)
    module.weight.data.fill_(0.25)
    yield SameBehaviour(f"{what} after the original's change", run(made, ids), wanted)
