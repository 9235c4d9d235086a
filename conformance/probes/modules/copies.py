"""What becomes of a module that is saved, loaded, copied, pickled or cast."""

from __future__ import annotations

import copy
import io
import pickle
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import combinations
from typing import Any

from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy
from embconform.conformance.probes.claims import Equal, Must, Refused, SameBits, SameValues
from embconform.conformance.probes.modules.claims import CastOf, SameBehaviour
from embconform.conformance.probes.modules.common import (
    PADDING,
    Claims,
    Subject,
    described,
    run,
    table_of,
)
from embconform.conformance.recording import attempt


def state(subject: Subject) -> Claims:
    """See what state_dict holds and that another module takes it."""
    torch.manual_seed(subject.seed)
    padded = {"padding_idx": 2} if "padding_idx" in subject.able else {}
    source, other = (subject.make(6, 4, **padded) for _ in range(2))
    source.weight.data += 0.5  # a loaded padding row need not be 0
    ids = subject.ids([0, 5, 2])
    other(ids)
    yield Equal("list(state_dict())", [str(key) for key in source.state_dict()], ["weight"])
    other.load_state_dict(source.state_dict())
    wrong = "after load_state_dict the module does not look up the loaded rows"
    yield SameValues(table_of(other), table_of(source), wrong)
    yield SameValues(to_numpy(other(ids)), to_numpy(source(ids)), wrong)
    options = subject.richest()
    held = to_numpy(subject.filled(**options).state_dict()["weight"])
    what = f"weight in a state_dict{described(options)}"
    yield SameBits(what, held, to_numpy(subject.values()))
    for options in _combinations(subject.able):
        module = subject.filled(**options)
        if not subject.backend.compiled:
            module(subject.ids())  # what it keeps of calls is no state
        keys = [str(key) for key in module.state_dict()]
        yield Equal(f"list(state_dict()){described(options)}", keys, ["weight"])
        module.load_state_dict({"weight": subject.values()})


def _combinations(able: frozenset[str]) -> Iterator[dict[str, Any]]:
    """List every set of options that a backend has: each may come with a buffer."""
    values = {
        "padding_idx": PADDING,
        "max_norm": 2.0,
        "norm_type": 1.0,
        "scale_grad_by_freq": True,
        "sparse": True,
    }
    has = [name for name in values if name in able]
    for number in range(len(has) + 1):
        for names in combinations(has, number):
            yield {name: values[name] for name in names}


def load_copies(subject: Subject) -> Claims:
    """See that loading writes into the table as it stands: same Parameter, dtype and memory."""
    module = subject.filled()
    weight, address = module.weight, module.weight.data_ptr()
    loaded = {**module.state_dict(), "weight": subject.values(torch.float64) * (1 + 3 * 2.0**-25)}
    given, dtype = to_numpy(loaded["weight"]), _name(weight.dtype)
    module.load_state_dict(loaded)
    yield Must(
        module.weight is weight, "load_state_dict puts another Parameter in the place of weight"
    )
    yield Must(weight.data_ptr() == address, "load_state_dict moves weight to other memory")
    yield CastOf("a table that loaded float64", table_of(module), given, dtype)
    loaded = {**module.state_dict(), "weight": subject.values().clone()}
    module.load_state_dict(loaded)
    loaded["weight"].fill_(9.0)
    given = to_numpy(subject.values())
    yield SameBits("a table whose checkpoint changed", table_of(module), given)
    strided = (subject.values() * 2).t().contiguous().t()
    module.load_state_dict({**module.state_dict(), "weight": strided})
    what = "a table that loaded a transposed tensor"
    yield SameBits(what, table_of(module), to_numpy(strided))
    options, longer = subject.richest(), subject.values() * 2
    module = subject.filled(**options)
    module.load_state_dict({**module.state_dict(), "weight": longer})
    what = f"a table that was loaded{described(options)}"
    yield SameBits(what, table_of(module), to_numpy(longer))


def load_strict(subject: Subject) -> Claims:
    """See what load_state_dict refuses."""
    right = subject.values() * 2
    wrong = {
        "without weight": {},
        "with an unexpected key": {"weight": right, "other": right},
        "with too many rows": {"weight": torch.cat([right, right])},
        "with a row of one column": {"weight": right[:, :1]},
        "with one row": {"weight": right[:1]},
    }
    for what, checkpoint in wrong.items():
        load = partial(subject.filled().load_state_dict, checkpoint)
        yield attempt(f"load_state_dict of a checkpoint {what}", load)
    module = subject.filled()
    module.load_state_dict({"other": right}, strict=False)
    kept = to_numpy(subject.values())
    yield SameBits("a table after strict=False found no weight", table_of(module), kept)


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
    for options in subject.option_sets():
        for frozen in (False, True):
            module = subject.filled(**options)
            module.weight.requires_grad_(not frozen)
            if not options.get("max_norm"):
                module(subject.ids())  # something to cache
            module.eval()
            made = duplicate(module)
            what = f"{which}{described(options)}{', frozen' * frozen}"
            yield Must(not made.training, f"{what} is in training mode, and was made in eval mode")
            yield from _apart(subject, module, made, what, options)


def _apart(subject: Subject, module: Any, made: Any, what: str, options: dict[str, Any]) -> Claims:
    """Compare the copy with the original, before and after each changes alone."""
    ids, table = subject.ids(), table_of(module)
    yield SameBits(f"the table of {what}", table_of(made), table)
    yield Must(isinstance(made.weight, torch.nn.Parameter), f"weight of {what} is no Parameter")
    got = run(made, ids)
    yield SameBits(f"the original's table after a call of {what}", table_of(module), table)
    yield SameBehaviour(what, got, run(module, ids))
    kept = table_of(module)
    wanted = subject.constant(0.125, trainable=made.weight.requires_grad, **options)
    made.weight.data.fill_(0.125)
    yield SameBits(f"the original's table after a change of {what}", table_of(module), kept)
    yield SameBehaviour(f"{what} after its own change", run(made, ids), wanted)
    module.weight.data.fill_(0.25)
    yield SameBehaviour(f"{what} after the original's change", run(made, ids), wanted)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
