"""What becomes of a module that is copied or pickled."""

from __future__ import annotations

import copy
import io
import pickle
import sys
from collections.abc import Callable
from typing import Any

from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.claims import Must, Refused, SameBits
from embconform.conformance.probes.modules.apart import (
    options_of_one,
    passes_of_both,
    tables_of_copies,
)
from embconform.conformance.probes.modules.changes import after_changes
from embconform.conformance.probes.modules.claims import SameBehaviour
from embconform.conformance.probes.modules.common import (
    IDS,
    Claims,
    Subject,
    described,
    run,
    table_of,
)
from embconform.conformance.probes.modules.layouts import on_tables


def deepcopy(subject: Subject) -> Claims:
    """See copy.deepcopy."""
    yield from _same_but_apart(subject, copy.deepcopy, "a deepcopy")
    yield from after_changes(subject, copy.deepcopy, "a deepcopy of")
    yield from options_of_one(subject, copy.deepcopy, "a deepcopy")
    yield from passes_of_both(subject, copy.deepcopy, "a deepcopy")


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
    yield from after_changes(subject, copy.copy, "a shallow copy of")
    yield from options_of_one(subject, copy.copy, "a shallow copy")
    yield from tables_of_copies(subject, copy.copy, "a shallow copy")


def pickled(subject: Subject) -> Claims:
    """See pickle and torch.save, where the class is one that pickle can find by name."""
    cls = type(subject.make())
    if not importable(cls):
        yield Refused(f"pickle can't import {cls.__module__}.{cls.__qualname__}")
        return
    yield from _same_but_apart(subject, unpickled, "a pickled copy")
    yield from _same_but_apart(subject, _saved, "a copy by torch.save")
    yield from after_changes(subject, unpickled, "a pickled copy of")
    yield from passes_of_both(subject, unpickled, "a pickled copy")


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
            if not ("max_norm" in options and subject.backend.compiled):
                _use(subject, module)
                module.weight.data.copy_(subject.values())  # rows over the bound, too
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


def _use(subject: Subject, module: Any) -> None:
    """Look up in every way that may leave something in a module."""
    ids = subject.ids()
    module(ids)
    if subject.backend.compiled:
        return
    kinds = [ids, subject.ids(IDS * 50)]
    if "strided" in subject.able:
        kinds += [each.t() for each in kinds]
    for manager in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        module.train(manager is torch.enable_grad or not module.weight.requires_grad)
        for each in kinds:
            with manager():
                module(each)


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
