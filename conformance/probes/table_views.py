"""Views of one table, looked up one after the other, and tables and indices in others' memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, TypeAlias

import numpy as np

from embconform.conformance.cases.case import MODE_WORDS, GradMode
from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import grad_context, to_numpy, to_torch
from embconform.conformance.probes.claims import SameBits
from embconform.conformance.probes.transforms.claims import Bounded, GradientOf, Lookup, Rows
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial, probe_of
from embconform.conformance.recording import read, read_dense
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array

_CLAUSE: Final = "lookup.views-apart"
SIDE, ROWS = 12, 6
SIZES: Final = (5, 70)
View: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
Borrow: TypeAlias = "Callable[[Array], torch.Tensor]"
_CONTIGUOUS: Final[dict[str, View]] = {
    "w[:6]": lambda w: w[:6],
    "w[6:]": lambda w: w[6:],
    "w.view(2, 6, 12)[0]": lambda w: w.view(2, 6, 12)[0],
    "w[3:9]": lambda w: w[3:9],
    "w": lambda w: w,
}
_STRIDED: Final[dict[str, View]] = {
    "w.t()": lambda w: w.t(),
    "w[::2]": lambda w: w[::2],
    "w[1::2]": lambda w: w[1::2],
    "w[:6, :6]": lambda w: w[:6, :6],
    "w[:6, 6:]": lambda w: w[:6, 6:],
    "w[:6, :6].t()": lambda w: w[:6, :6].t(),
    "w[:, 5:6]": lambda w: w[:, 5:6],
    "w.view(-1).unfold(0, 12, 5)": lambda w: w.view(-1).unfold(0, 12, 5),
}


def _tables(lab: Lab) -> Iterator[Trial]:
    if lab.backend.compiled:
        return  # each layout costs seconds there, and the views of indices have been seen
    for mode in lab.modes:
        for size in SIZES:
            yield partial(_one_after_the_other, lab, mode, size)
    yield from _of_others(lab)
    if {"max_norm", "strided"} <= lab.able:
        for mode in lab.modes:
            yield partial(_bounded_by_turns, lab, mode)
    for mode in ("no_grad", "frozen"):
        for options in lab.choices(np.zeros(1, np.int64), ROWS, "padding_idx"):
            yield partial(_made_for_inference, lab, mode, options)


def _of_others(lab: Lab) -> Iterator[Trial]:
    if lab.device != "cpu":
        return
    for told, borrow in _BORROWED.items():
        for mode in lab.modes[:: len(lab.modes) - 1]:
            yield partial(_borrowed, lab, mode, told, borrow)
            yield partial(_used, lab, mode, told, borrow)


def _one_after_the_other(lab: Lab, mode: GradMode, size: int) -> Claims:
    """Look the same indices up in every view, and in the first one before and after each."""
    views = _CONTIGUOUS | (_STRIDED if "strided" in lab.able else {})
    base, named = lab.tensor(lab.table(SIDE, SIDE)), lab.draw.integers(0, ROWS, size)
    tables = {name: view(base) for name, view in views.items()}
    for table in tables.values():
        table.requires_grad_(lab.trains(mode))
    ids, before, first = lab.tensor(named), "nothing", next(iter(tables))
    for name in tables:
        for told in (first, name):
            what = f"{told} after {before} {MODE_WORDS[mode]}, w being a 12 x 12 tensor"
            yield from _called(lab, what, mode, ids, tables[told])
            before = told


def _called(lab: Lab, what: str, mode: GradMode, ids: torch.Tensor, weight: torch.Tensor) -> Claims:
    table = to_numpy(weight)
    lookup = Lookup(to_numpy(ids), table, {}, lab.profile)
    with grad_context(mode):
        out: Any = lab.bind(lookup)(ids, weight)
    yield Rows(f"the output for {what}", read(out), lookup)
    yield SameBits(f"the table after a call for {what}", to_numpy(weight), table)


# Others' memory


def _foreign(array: Array) -> torch.Tensor:
    """Borrow an array of NumPy's that starts one element off where torch's own storages start."""
    buffer = np.empty(array.size + 64, array.dtype)
    start = 1 + -(buffer.ctypes.data // array.itemsize) % (64 // array.itemsize)
    own = buffer[start : start + array.size].reshape(array.shape)
    own[...] = array
    return to_torch(own)


def _shared(array: Array) -> torch.Tensor:
    """Copy an array to memory that processes share, past its start, as a part of a batch is."""
    whole = np.concatenate([array[::-1], array])
    shared: torch.Tensor = to_torch(whole).share_memory_()  # type: ignore[no-untyped-call]
    return shared[len(array) :]


def _behind_one(array: Array) -> torch.Tensor:
    """Borrow an array of NumPy's past its first element: an aligned view of what is not."""
    flat = array.reshape(-1)
    return _foreign(np.concatenate([flat[:1], flat]))[1:].view(array.shape)


_BORROWED: Final[dict[str, Borrow]] = {
    "NumPy's": _foreign,
    "NumPy's from an odd place on": _behind_one,
    "shared": _shared,
}


def _borrowed(lab: Lab, mode: GradMode, told: str, borrow: Borrow) -> Claims:
    """Look up where the table is borrowed, the indices, and both."""
    for size in SIZES:
        named, table = lab.draw.integers(0, ROWS, size), lab.table(ROWS, 4)
        for which in ("table", "indices", "both"):
            weight = lab.tensor(table) if which == "indices" else borrow(table)
            ids = lab.tensor(named) if which == "table" else borrow(named)
            weight.requires_grad_(lab.trains(mode))
            what = f"{size} indices, the memory of {which} being {told}, {MODE_WORDS[mode]}"
            yield from _called(lab, what, mode, ids, weight)


def _used(lab: Lab, mode: GradMode, told: str, borrow: Borrow) -> Claims:
    """Bound a borrowed table in its own memory, and differentiate where it is trained."""
    for size in SIZES:
        named, table = lab.draw.integers(0, ROWS, size), lab.table(ROWS, 4)
        for options in lab.choices(named, ROWS, "padding_idx", "scale_grad_by_freq", "max_norm"):
            memory = borrow(table)
            weight = memory.detach()
            weight.requires_grad_(lab.trains(mode))
            lookup = Lookup(named, table, options, lab.profile)
            ids, call = lab.tensor(named), lab.bind(lookup)
            with grad_context(mode):
                out: Any = call(ids, weight)
            what = f"a call for {lookup} {MODE_WORDS[mode]}, the table's memory being {told}"
            if "max_norm" in options:
                yield Bounded(what, read(out), read(memory), lookup)
            else:
                yield Rows(f"the output of {what}", read(out), lookup)
            straight = lab.profile is Profile.TORCH or "max_norm" not in options
            if weight.requires_grad and mode == "grad" and straight:
                upstream = lab.upstream(*lookup.shape)
                torch.autograd.backward([out], [lab.tensor(upstream)])
                seen = read_dense(weight.grad)
                yield GradientOf(f"weight.grad after {what}", seen, lookup, upstream)


def _bounded_by_turns(lab: Lab, mode: GradMode) -> Claims:
    """Bound a square table and its transpose by turns, of which one is within the bound.

    They have one address, shape, version and set of values.
    """
    table = lab.draw.uniform(-1, 1, (SIDE, SIDE)).astype(np.float32) / np.float32(4 * SIDE)
    table[:, SIDE // 2] = 0.75  # each row is within a bound of 1, and this column is beyond it
    for turned in (False, True):
        base = lab.tensor(table)
        views = {"w": base, "w.t()": base.t()}
        for view in views.values():
            view.requires_grad_(lab.trains(mode))
        names = list(reversed(views)) if turned else list(views)
        ids, before = lab.tensor(lab.draw.permutation(SIDE)), "nothing"
        for name in names * 2:
            lookup = Lookup(to_numpy(ids), to_numpy(views[name]), {"max_norm": 1.0}, lab.profile)
            with grad_context(mode):
                out: Any = lab.bind(lookup)(ids, views[name])
            what = f"{lookup} {MODE_WORDS[mode]}, in {name} after {before}, w being {SIDE} x {SIDE}"
            yield Bounded(f"a call for {what}", read(out), read(views[name]), lookup)
            before = name


def _made_for_inference(lab: Lab, mode: GradMode, options: dict[str, Any]) -> Claims:
    """Look up outside inference mode where the table was made in it, the indices, and both."""
    named, table = lab.draw.integers(0, ROWS, SIZES[0]), lab.table(ROWS, 4)
    for which in ("table", "indices", "both"):
        with torch.inference_mode(which != "indices"):
            weight = lab.tensor(table)
        with torch.inference_mode(which != "table"):
            ids = lab.tensor(named)
        lookup = Lookup(named, table, options, lab.profile)
        with grad_context(mode):
            out: Any = lab.bind(lookup)(ids, weight)
        what = f"{lookup} {MODE_WORDS[mode]}, {which} made under inference_mode"
        yield Rows(f"the output for {what}", read(out), lookup)


TABLE_VIEWS_PROBE: Final = probe_of(_CLAUSE, _tables, "functional", name="views of tables")
