"""What becomes of a module that is cast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy
from embconform.conformance.probes.claims import Equal, Must, SameBits
from embconform.conformance.probes.modules.changes import after_changes
from embconform.conformance.probes.modules.claims import Behaviour, CastOf, SameBehaviour
from embconform.conformance.probes.modules.common import (
    PADDING,
    Claims,
    Subject,
    described,
    gradient_of,
    run,
    serve,
    table_of,
    upstream_of,
)
from embconform.conformance.probes.modules.layouts import on_tables


def cast(subject: Subject) -> Claims:
    """See to(dtype), and double() and float() there and back."""
    names = subject.backend.capabilities.dtypes
    for before, after in _CASTS:
        if before in names and after in names:
            for trainable in subject.few((True, False)):
                yield from _cast(subject, before, after, trainable)
            yield from _cast_with_options(subject, before, after)
            if "gradient" in subject.able and not subject.backend.compiled:
                yield from _cast_with_gradient(subject, before, after)
    if {"float32", "float64"} <= set(names):
        yield from _doubled(subject)
    for here, there in _THERE_AND_BACK:
        if {here, there} <= set(names):
            for options in ({}, subject.richest()):
                yield from _there_and_back(subject, here, there, options)
    if "float64" in names:
        double, what = torch.float64, "what a cast to torch.float64 makes of"
        yield from after_changes(subject, _to_double, what, _to_double, double)


def _to_double(module: Any) -> Any:
    return module.to(torch.float64)


def _doubled(subject: Subject) -> Claims:
    """Cast to float64 and back, and by new Parameters."""
    module = subject.filled(dtype=torch.float32)
    table = table_of(module)
    module.double()
    module(subject.ids())
    module.float()
    yield SameBits("the table after double() and float()", table_of(module), table)
    for name in ("overwrite", "swap"):
        for trainable in subject.few((True, False)):
            yield from _cast_by(subject, name, trainable)


_CASTS: Final = (
    ("float64", "float32"),
    ("float32", "float64"),
    ("float32", "float16"),
    ("float32", "bfloat16"),
)
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
        put(True)
        try:
            if not subject.backend.compiled and not _casts(subject.filled(**options)):
                return
            run(module, subject.ids())  # something to cache
            if not subject.backend.compiled:
                serve(module.eval(), subject.ids())
                module.train().load_state_dict({"weight": subject.values() * 2})
                what = f"the table that was loaded by {put.__name__}, after calls"
                yield SameBits(what, table_of(module), to_numpy(subject.values() * 2))
            module.double()
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


def _casts(unused: Any) -> bool:
    """Tell whether a module can be cast before its first call: torch swaps no Parameter then."""
    try:
        unused.double()
    except RuntimeError:  # its class holds the Parameter in a way that torch does not swap
        return False
    return True


_BY_NAME: Final = {"float64": "double", "float32": "float", "float16": "half"}
"""Methods that cast a module, by the dtype; bfloat16's has its name."""


def _cast(subject: Subject, before: str, after: str, trainable: bool) -> Claims:
    """Cast a module whose values the narrower dtype does not hold."""
    module, ids = subject.filled(dtype=getattr(torch, before)), subject.ids()
    module.weight.requires_grad_(trainable)
    with torch.no_grad():
        module.weight.mul_(1 + 2.0**-11)
    given, weight = table_of(module), module.weight
    what = f"{before} to {after}{', frozen' * (not trainable)}"
    module(ids)  # something to cache
    moved = module.to(getattr(torch, after)) if trainable else _by_name(module, after)
    yield Must(moved.weight is weight, f"a cast from {what} puts another Parameter in its place")
    yield Must(
        isinstance(moved.weight, torch.nn.Parameter),
        f"weight cast from {what} is no Parameter any more",
    )
    yield Equal(f"requires_grad of weight cast from {what}", moved.weight.requires_grad, trainable)
    yield CastOf(f"the table cast from {what}", table_of(moved), given, after)
    seen = run(moved, ids)
    output = seen["the output"]
    yield CastOf(f"the output after a cast from {what}", output, given, after, to_numpy(ids))
    if "gradient" in subject.able and trainable:
        dtype = str(moved.weight.dtype)
        yield Equal(f"the gradient's dtype, {what}", seen["the dtype of the gradient"], dtype)
    yield Must(moved is module, "a cast returned another module; it works in place")


def _by_name(module: Any, dtype: str) -> Any:
    return getattr(module, _BY_NAME.get(dtype, dtype))()


def _cast_with_gradient(subject: Subject, before: str, after: str) -> Claims:
    """Cast a module that has a gradient, and add that of a later pass to it."""
    ids = subject.ids()
    sparse = [{"padding_idx": PADDING, "sparse": True}] if "sparse" in subject.able else []
    for options in ({}, *sparse, subject.richest()):
        for frozen in (False, True):
            module = subject.filled(dtype=getattr(torch, before), **options)
            given, weight = _add_gradient(module, ids)["the gradient"], module.weight
            module.requires_grad_(not frozen)
            _by_name(module, after)
            what = f"a table cast from {before} to {after}{', frozen' * frozen}{described(options)}"
            yield Must(module.weight is weight, f"{what} is another Parameter")
            yield Must(weight.grad is not None, f"{what} has lost its gradient")
            kept = weight.grad.clone()
            yield CastOf(f"the gradient of {what}", to_numpy(kept.to_dense()), given, after)
            if options.get("sparse") and after not in ("float32", "float64"):
                continue  # torch adds no sparse gradients of half precision
            module.requires_grad_(True)
            fresh = subject.filled(dtype=getattr(torch, after), **options)
            fresh.weight.grad = kept
            wanted, which = _add_gradient(fresh, ids), f"{what}, that of a later pass added,"
            yield SameBehaviour(which, _add_gradient(module, ids), wanted)


def _add_gradient(module: Any, ids: torch.Tensor) -> Behaviour:
    """Go backward without forgetting the gradient before."""
    output = module(ids)
    output.backward(upstream_of(output))
    return gradient_of(module)


def _cast_with_options(subject: Subject, before: str, after: str) -> Claims:
    """Compare a module after a cast with one that was made with the dtype."""
    ids, dtype = subject.ids(), getattr(torch, after)
    for options in subject.option_sets():
        module = subject.filled(dtype=getattr(torch, before), **options)
        module.to(dtype)
        wanted = run(subject.filled(dtype=dtype, **options), ids)
        which = f"a module cast from {before} to {after}{described(options)}"
        yield SameBehaviour(which, run(module, ids), wanted)
