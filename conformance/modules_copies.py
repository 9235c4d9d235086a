"""What becomes of a module that is saved, loaded, copied, pickled or cast."""

from __future__ import annotations

import copy
import io
import pickle
import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import torch

from embconform.conformance.finding import Finding, equal
from embconform.conformance.modules_common import (
    Subject,
    described,
    difference,
    refused,
    run,
    table_of,
    unlike,
)
from embconform.reference.dtypes import Array


def state(subject: Subject) -> Finding | None:
    """Judge what state_dict holds and that another module takes it."""
    torch.manual_seed(subject.seed)
    options = {"padding_idx": 2} if "padding_idx" in subject.able else {}
    source, other = (subject.make(6, 4, **options) for _ in range(2))
    source.weight.data += 0.5  # a loaded padding row need not be 0
    ids = subject.ids([0, 5, 2])
    other(ids)
    finding = equal("list(state_dict())", list(source.state_dict()), ["weight"])
    if finding:
        return finding
    other.load_state_dict(source.state_dict())
    if np.array_equal(table_of(other), table_of(source)) and torch.equal(other(ids), source(ids)):
        return None
    return Finding("after load_state_dict the module does not look up the loaded rows")


def load_copies(subject: Subject) -> Finding | None:
    """Judge that loading writes into the table as it stands: same Parameter, dtype and memory."""
    module = subject.filled()
    weight, address = module.weight, module.weight.data_ptr()
    loaded = {**module.state_dict(), "weight": subject.values(torch.float64) * (1 + 3 * 2.0**-25)}
    wanted = _cast(loaded["weight"], weight.dtype)
    module.load_state_dict(loaded)
    if module.weight is not weight:
        return Finding("load_state_dict puts another Parameter in the place of weight")
    if weight.data_ptr() != address:
        return Finding("load_state_dict moves weight to other memory")
    finding = unlike(table_of(module), wanted, "a table that loaded float64")
    if finding:
        return finding
    loaded = {**module.state_dict(), "weight": subject.values().clone()}
    module.load_state_dict(loaded)
    loaded["weight"].fill_(9.0)
    return unlike(table_of(module), _numpy(subject.values()), "a table whose checkpoint changed")


def load_strict(subject: Subject) -> Finding | None:
    """Judge what load_state_dict refuses."""
    right = subject.values() * 2
    wrong = {
        "without weight": {},
        "with an unexpected key": {"weight": right, "other": right},
        "with too many rows": {"weight": torch.cat([right, right])},
        "with a row of one column": {"weight": right[:, :1]},
        "with one row": {"weight": right[:1]},
    }
    for what, checkpoint in wrong.items():
        try:
            subject.filled().load_state_dict(checkpoint)
        except Exception:
            continue
        return Finding(
            f"load_state_dict of a checkpoint {what} raised nothing", "no exception", "an exception"
        )
    module = subject.filled()
    module.load_state_dict({"other": right}, strict=False)
    return unlike(
        table_of(module), _numpy(subject.values()), "a table after strict=False found no weight"
    )


def cast(subject: Subject) -> Finding | None:
    """Judge to(dtype), and double() and float() there and back."""
    names = subject.backend.capabilities.dtypes
    ids = subject.ids()
    for before, after in (
        ("float64", "float32"),
        ("float32", "float64"),
        ("float32", "float16"),
        ("float32", "bfloat16"),
    ):
        if before not in names or after not in names:
            continue
        module = subject.filled(dtype=getattr(torch, before))
        with torch.no_grad():
            module.weight.mul_(1 + 2.0**-11)
        wanted = _cast(module.weight, getattr(torch, after))
        module(ids)  # something to cache
        moved = module.to(getattr(torch, after))
        finding = _judge_cast(moved, wanted, f"{before} to {after}", subject)
        if finding or moved is module:
            if finding:
                return finding
            continue
        return Finding("module.to(dtype) returned another module; it works in place")
    return _there_and_back(subject) if {"float32", "float64"} <= set(names) else None


def _judge_cast(module: Any, wanted: Array, what: str, subject: Subject) -> Finding | None:
    if not isinstance(module.weight, torch.nn.Parameter) or not module.weight.requires_grad:
        return Finding(f"weight cast from {what} is no trainable Parameter any more")
    finding = unlike(table_of(module), wanted, f"the table cast from {what}")
    if finding:
        return finding
    seen = run(module, subject.ids())
    rows = np.array(subject.ids().cpu())
    finding = unlike(seen["the output"], wanted[rows], f"the output after a cast from {what}")
    if finding or "gradient" not in subject.able:
        return finding
    dtype = str(module.weight.dtype)
    return equal(f"the gradient's dtype, {what}", seen["the dtype of the gradient"], dtype)


def _there_and_back(subject: Subject) -> Finding | None:
    module = subject.filled(dtype=torch.float32)
    before = table_of(module)
    module.double()
    module(subject.ids())
    module.float()
    return unlike(table_of(module), before, "the table after double() and float()")


def deepcopy(subject: Subject) -> Finding | None:
    """Judge copy.deepcopy."""
    return _same_but_apart(subject, copy.deepcopy, "a deepcopy")


def pickled(subject: Subject) -> Finding | None:
    """Judge pickle and torch.save, where the class is one that pickle can find by name."""
    cls = type(subject.make())
    home: Any = sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        home = getattr(home, name, None)
    if home is not cls:
        return refused(f"pickle can't import {cls.__module__}.{cls.__qualname__}")
    return _same_but_apart(
        subject, lambda module: pickle.loads(pickle.dumps(module)), "a pickled copy"
    ) or _same_but_apart(subject, _saved, "a copy by torch.save")


def _saved(module: Any) -> Any:
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def _same_but_apart(
    subject: Subject, duplicate: Callable[[Any], Any], which: str
) -> Finding | None:
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
            if made.training:
                return Finding(f"{what} is in training mode, and was made in eval mode")
            finding = _apart(subject, module, made, what, options)
            if finding:
                return finding
    return None


def _apart(
    subject: Subject, module: Any, made: Any, what: str, options: dict[str, Any]
) -> Finding | None:
    """Compare the copy with the original, before and after each changes alone."""
    ids, table = subject.ids(), table_of(module)
    finding = unlike(table_of(made), table, f"the table of {what}")
    if finding:
        return finding
    if not isinstance(made.weight, torch.nn.Parameter):
        return Finding(f"weight of {what} is no Parameter")
    got = run(made, ids)
    finding = unlike(table_of(module), table, f"the original's table after a call of {what}")
    finding = finding or difference(got, run(module, ids), what)
    if finding:
        return finding
    kept = table_of(module)
    wanted = subject.constant(0.125, trainable=made.weight.requires_grad, **options)
    made.weight.data.fill_(0.125)
    finding = unlike(table_of(module), kept, f"the original's table after a change of {what}")
    finding = finding or difference(run(made, ids), wanted, f"{what} after its own change")
    module.weight.data.fill_(0.25)
    return finding or difference(run(made, ids), wanted, f"{what} after the original's change")


def _numpy(tensor: torch.Tensor) -> Array:
    return np.asarray(tensor.detach().cpu().numpy())


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> Array:
    """Round to nearest, ties to even, by NumPy."""
    name = str(dtype).removeprefix("torch.")
    wanted = getattr(ml_dtypes, name) if name == "bfloat16" else name
    return _numpy(tensor).astype(wanted)
