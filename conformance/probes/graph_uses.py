"""Lookups amid other steps of an autograd graph: computed and tied tables, writes in place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import cycle, islice, product
from typing import Any, Final, TypeAlias

import numpy as np

from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.claims import Must, Refused
from embconform.conformance.probes.trained import (
    FACTOR,
    WIDTH,
    OfIndices,
    lookups,
    trained,
    where_allowed,
)
from embconform.conformance.probes.transforms.claims import (
    Bounded,
    GradientOf,
    Lookup,
    Rows,
    TiedGradient,
)
from embconform.conformance.probes.transforms.common import (
    Check,
    Claims,
    Function,
    Lab,
    Trial,
    probe_of,
)
from embconform.conformance.probes.written_outputs import written_output
from embconform.conformance.recording import read, read_dense

HIDDEN: Final = 4
"""Positions that a tied output layer sees."""


# Computed tables


def _product(base: torch.Tensor) -> torch.Tensor:
    return base * FACTOR


def _halves(base: torch.Tensor) -> torch.Tensor:
    return torch.cat([base[:1], base[1:]]) * FACTOR


def _slice(base: torch.Tensor) -> torch.Tensor:
    """Keep a table behind two rows of ones, as special tokens are kept apart."""
    return (torch.cat([torch.ones_like(base[:1]).expand(2, -1), base]) * FACTOR)[2:]


def _transposed(base: torch.Tensor) -> torch.Tensor:
    """Keep a table of one column for each index, as a tied output layer may."""
    return (base.t().contiguous() * FACTOR).t()


def _columns(base: torch.Tensor) -> torch.Tensor:
    """Keep a table beside a column of ones."""
    return (torch.cat([base, torch.ones_like(base[:, :1])], 1) * FACTOR)[:, :-1]


Computation: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"
COMPUTED: Final[dict[str, Computation]] = {
    "a product": _product,
    "a concatenation": _halves,
    "a slice of one": _slice,
}
VIEWS: Final[dict[str, Computation]] = {
    "the transpose of a product": _transposed,
    "columns of a concatenation": _columns,
}


def _computed_table(lab: Lab) -> Iterator[Trial]:
    tables = COMPUTED | (VIEWS if "strided" in lab.able else {})
    turns = cycle(tables)
    for lookup in lookups(lab, "scale_grad_by_freq"):
        for name in [next(turns)] if lab.backend.compiled else tables:
            check = partial(_gradient_of_base, name, tables[name])
            yield partial(_passed_in, lab, lookup, check)
        if "max_norm" not in lookup.options:
            yield partial(_passed_in, lab, lookup, _gradient_of_temporary)
        if "strided" in lab.able:
            yield partial(_passed_in, lab, lookup, _gradient_of_viewed)
        if not lab.backend.compiled and "max_norm" not in lookup.options:
            yield partial(_passed_in, lab, lookup, _gradient_of_cast)


def _passed_in(lab: Lab, lookup: Lookup, check: Callable[..., Claims]) -> Claims:
    """Check calls that are given a table; a module that keeps to its own can't be."""
    try:
        f = lab.bind(lookup)
    except RuntimeError as error:
        yield Refused(str(error))
    else:
        yield from check(lab, lookup, f)


def _gradient_of_base(
    name: str, compute: Computation, lab: Lab, lookup: Lookup, f: Function
) -> Claims:
    """Look up in a table that is computed, and differentiate by what it is computed from."""
    base, upstream = lab.leaf(lookup.table / np.float32(FACTOR)), lab.upstream(*lookup.shape)
    table = compute(base)
    table.retain_grad()
    out = f(lab.tensor(lookup.ids), table)
    what = f"for {lookup}, the table being {name}"
    if "max_norm" in lookup.options:
        yield Bounded(f"a call {what}", read(out), read(table), lookup)
    else:
        yield Rows(f"the output {what}", read(out), lookup)
    torch.autograd.backward([out], [lab.tensor(upstream)])
    whole = upstream * np.float32(FACTOR)
    yield GradientOf(f"the table's own gradient {what}", read_dense(table.grad), lookup, upstream)
    what = f"the gradient of what the table is computed from {what}"
    yield GradientOf(what, read_dense(base.grad), lookup, whole)


def _gradient_of_temporary(lab: Lab, lookup: Lookup, f: Function) -> Claims:
    """Look up in a table that nobody keeps after the call."""
    base, upstream = lab.leaf(lookup.table / np.float32(FACTOR)), lab.upstream(*lookup.shape)
    out = f(lab.tensor(lookup.ids), base * FACTOR)
    torch.autograd.backward([out], [lab.tensor(upstream)])
    what = f"the leaf's gradient for {lookup}, the table being a product that is gone"
    yield GradientOf(what, read_dense(base.grad), lookup, upstream * np.float32(FACTOR))


def _gradient_of_viewed(lab: Lab, lookup: Lookup, f: Function) -> Claims:
    """Look up in the transpose of a leaf, as in the weight of a tied layer."""
    stored, upstream = lab.leaf(lookup.table.T), lab.upstream(*lookup.shape)
    out = f(lab.tensor(lookup.ids), stored.t())
    torch.autograd.backward([out], [lab.tensor(upstream)])
    what = f"the transposed gradient for {lookup}, the table being the transpose of a leaf"
    got: Any = stored.grad
    yield GradientOf(what, read_dense(got if got is None else got.t()), lookup, upstream)


def _gradient_of_cast(lab: Lab, lookup: Lookup, f: Function) -> Claims:
    """Look up in a table that is a cast of another one, as under mixed precision."""
    base, upstream = lab.leaf(lookup.table.astype(np.float64)), lab.upstream(*lookup.shape)
    table = base.float()
    table.retain_grad()
    out = f(lab.tensor(lookup.ids), table)
    torch.autograd.backward([out], [lab.tensor(upstream)])
    what = f"for {lookup}, the table being a cast of a leaf of float64"
    yield Rows(f"the output {what}", read(out), lookup)
    yield GradientOf(f"the table's own gradient {what}", read_dense(table.grad), lookup, upstream)
    whole: Any = base.grad
    got = read_dense(whole if whole is None else whole.float())
    yield GradientOf(f"the leaf's gradient {what}", got, lookup, upstream)
    if "float16" in lab.backend.known_dtypes and "scale_grad_by_freq" not in lookup.options:
        yield from _gradient_of_halved(lab, lookup, f)


def _gradient_of_halved(lab: Lab, lookup: Lookup, f: Function) -> Claims:
    """Look up in the float16 copy of a float32 table; its sums of small numbers are exact."""
    base, upstream = lab.leaf(lookup.table), lab.small(*lookup.shape)
    table = base.half()
    table.retain_grad()
    out = f(lab.tensor(lookup.ids), table)
    torch.autograd.backward([out], [lab.tensor(upstream).half()])
    what = f"for {lookup}, the table being a float16 copy of a leaf"
    yield Rows(f"the output {what}", read(out), lookup.into(lookup.table.astype(np.float16)))
    own: Any = table.grad
    got = read_dense(own if own is None else own.float())
    yield GradientOf(f"the copy's own gradient {what}", got, lookup, upstream)
    yield GradientOf(f"the leaf's gradient {what}", read_dense(base.grad), lookup, upstream)


# Tied tables


def _tied_table(lab: Lab) -> Iterator[Trial]:
    for lookup in lookups(lab, "scale_grad_by_freq"):
        yield partial(_gradient_of_both, lab, lookup, False)
        if "max_norm" not in lookup.options:  # it writes to what a product has saved
            yield partial(_gradient_of_both, lab, lookup, True)


def _gradient_of_both(lab: Lab, lookup: Lookup, layer_first: bool) -> Claims:
    """Use the table in a lookup and in a linear layer, and differentiate both at once."""
    height, width = lookup.table.shape
    hidden, above = lab.small(HIDDEN, width), lab.small(HIDDEN, height)
    upstream = lab.upstream(*lookup.shape)
    (weight, f), ids = trained(lab, lookup), lab.tensor(lookup.ids)
    if layer_first:
        given = lab.tensor(hidden) @ weight.t()
        out = f(ids)
    else:
        out = f(ids)
        given = lab.tensor(hidden) @ weight.t()
    torch.autograd.backward([out, given], [lab.tensor(upstream), lab.tensor(above)])
    order = "after" if layer_first else "before"
    what = f"weight.grad for {lookup}, called {order} a linear layer of the same table"
    yield TiedGradient(what, read_dense(weight.grad), lookup, upstream, hidden, above)


# Writes between the passes


def _step(weight: torch.Tensor) -> None:
    weight.sub_(torch.ones_like(weight))


def _ruin(weight: torch.Tensor) -> None:
    weight.fill_(float("nan"))


def _free(weight: torch.Tensor) -> None:
    """Give the table's memory up until it is needed, as sharded training does after a layer."""
    weight.untyped_storage().resize_(0)


TABLE_WRITES: Final = {"a step": _step, "NaN": _ruin}


def _written_table(lab: Lab) -> Iterator[Trial]:
    for lookup in lookups(lab, "scale_grad_by_freq"):
        poisoned: list[bool] = []
        for write in lab.few(list(TABLE_WRITES)):
            check = partial(_gradient_of_the_past, write, poisoned)
            yield partial(where_allowed, lab, lookup, check)
        if not lab.backend.compiled:
            check = partial(_gradient_without_the_table, poisoned)
            yield partial(where_allowed, lab, lookup, check)
        if "max_norm" in lookup.options:
            plain = partial(_gradient_of_the_past, "a step", poisoned)
            yield partial(where_allowed, lab, lookup, _gradient_before_a_bound, plain)
    if "sparse" in lab.able and not lab.backend.compiled:
        for lookup in lookups(lab):
            sparse = replace(lookup, options=lookup.options | {"sparse": True})
            for write in TABLE_WRITES if lookup.ids.ndim else ():  # see sparse.scalar-index
                check = partial(_gradient_of_the_past, write, [])
                yield partial(where_allowed, lab, sparse, check)


def _gradient_of_the_past(write: str, poisoned: list[bool], lab: Lab, lookup: Lookup) -> Claims:
    """Write to the table between the forward and the backward pass; note whether NaN comes back."""
    (weight, f), upstream = trained(lab, lookup), lab.upstream(*lookup.shape)
    out = f(lab.tensor(lookup.ids))
    with torch.no_grad():
        TABLE_WRITES[write](weight)
    torch.autograd.backward([out], [lab.tensor(upstream)])
    what = f"weight.grad for {lookup}, the table being written over by {write} before"
    seen = read_dense(weight.grad)
    poisoned.append(seen.values is not None and bool(np.isnan(seen.values).any()))
    yield GradientOf(what, seen, lookup, upstream)


def _gradient_without_the_table(poisoned: list[bool], lab: Lab, lookup: Lookup) -> Claims:
    """Free the memory of the table between the passes, unless the lookup has saved it.

    `poisoned` tells whether NaN that were written to it came back.
    """
    if any(poisoned):
        return  # a pass that reads the table would end the process
    own = lab.tensor(lookup.table).clone()  # NumPy's memory can't be resized
    (weight, f), upstream = trained(lab, lookup, own), lab.upstream(*lookup.shape)
    address, kept = own.untyped_storage().data_ptr(), list[int]()

    def note(saved: torch.Tensor) -> torch.Tensor:
        if saved.layout is torch.strided:
            kept.append(saved.untyped_storage().data_ptr())
        return saved

    with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
        out = f(lab.tensor(lookup.ids))
    if address in kept:
        raise RuntimeError("the table is saved for the backward pass")
    if not weight.untyped_storage().resizable():
        return  # another array has it now, as NumPy's do
    _free(weight)
    torch.autograd.backward([out], [lab.tensor(upstream)])
    what = f"weight.grad for {lookup}, the memory of the table being given up before"
    yield GradientOf(what, read_dense(weight.grad), lookup, upstream)


def _gradient_before_a_bound(lab: Lab, lookup: Lookup) -> Claims:
    """Look up twice before the backward passes; the second call scales rows of the table."""
    weight, f = trained(lab, lookup.into(lookup.table * np.float32(8)))
    first = f(lab.tensor(lookup.ids))
    others = replace(lookup, ids=np.arange(len(lookup.table)))
    second = f(lab.tensor(others.ids))
    for name, out, one in (("first", first, lookup), ("second", second, others)):
        upstream = lab.upstream(*one.shape)
        (got,) = torch.autograd.grad(out, weight, lab.tensor(upstream))
        what = f"the gradient of the {name} of two calls for {one}"
        yield GradientOf(what, read_dense(got), one, upstream)


# Two tables

OTHER_HEIGHTS: Final = {"a table as tall": 0, "a taller table": 100}
"""Rows more than the first table has: enough for a table in parts."""


def _two_tables(lab: Lab) -> Iterator[Trial]:
    for lookup in lookups(lab, "scale_grad_by_freq"):
        yield partial(_gradients_of_two, lab, lookup)
        if "max_norm" not in lookup.options and not lab.backend.compiled:
            yield partial(_gradients_of_sharing, lab, lookup)
            yield partial(_gradients_of_halves, lab, lookup)
            for kind in OTHER_HEIGHTS:
                yield partial(_gradient_beside_another, kind, lab, lookup)


def _gradient_beside_another(kind: str, lab: Lab, lookup: Lookup) -> Claims:
    """Look the same index tensor up in another table, without grad, between the two passes.

    So an online network is trained beside its target network.
    """
    (weight, f), upstream = trained(lab, lookup), lab.upstream(*lookup.shape)
    height = len(lookup.table) + OTHER_HEIGHTS[kind]
    other = Lookup(lookup.ids, np.abs(lab.table(height, WIDTH)) + 1, {}, lookup.profile)
    _, g = trained(lab, other)
    ids = lab.tensor(lookup.ids)
    out, version = f(ids), ids._version
    with torch.no_grad():
        between = g(ids)
    what = f"for {lookup}, the same indices looked up without grad in {kind} in between"
    yield Must(ids._version == version, f"the indices have another version {what}")
    yield Rows(f"the output of the call in between {what}", read(between), other)
    torch.autograd.backward([out], [lab.tensor(upstream)])
    yield GradientOf(f"weight.grad {what}", read_dense(weight.grad), lookup, upstream)


def _gradients_of_two(lab: Lab, lookup: Lookup) -> Claims:
    """Look up in two tables of one shape, and differentiate both at once."""
    other = _reversed(lookup).into(lab.table(*lookup.table.shape))
    pair = [(one, trained(lab, one)) for one in (lookup, other)]
    yield from _gradients_of_pair(lab, "two tables of one shape", pair)


def _gradients_of_sharing(lab: Lab, lookup: Lookup) -> Claims:
    """Look up in two parameters that are made of the same memory, as workers' replicas are."""
    memory = lab.tensor(lookup.table)
    pair = [(one, trained(lab, one, memory)) for one in (lookup, _reversed(lookup))]
    yield from _gradients_of_pair(lab, "two parameters on one memory", pair)


def _gradients_of_halves(lab: Lab, lookup: Lookup) -> Claims:
    """Look up in two tables that lie one behind the other in one buffer."""
    other = _reversed(lookup).into(lab.table(*lookup.table.shape))
    buffer = lab.tensor(np.concatenate([lookup.table, other.table]))
    parts = zip((lookup, other), buffer.chunk(2), strict=True)
    pair = [(one, trained(lab, one, part)) for one, part in parts]
    yield from _gradients_of_pair(lab, "two tables in one buffer", pair)


def _reversed(lookup: Lookup) -> Lookup:
    ids = lookup.ids[::-1].copy() if lookup.ids.ndim else lookup.ids
    return replace(lookup, ids=ids)


def _gradients_of_pair(
    lab: Lab, told: str, pair: list[tuple[Lookup, tuple[torch.Tensor, OfIndices]]]
) -> Claims:
    """Differentiate two lookups at once."""
    upstreams = [lab.upstream(*one.shape) for one, _ in pair]
    outs = [f(lab.tensor(one.ids)) for one, (_, f) in pair]
    torch.autograd.backward(outs, [lab.tensor(upstream) for upstream in upstreams])
    for name, (one, (weight, _)), upstream in zip(
        ("first", "second"), pair, upstreams, strict=True
    ):
        what = f"weight.grad of the {name} of {told} for {one}"
        yield GradientOf(what, read_dense(weight.grad), one, upstream)


# Hooks


def _hooked(lab: Lab) -> Iterator[Trial]:
    for lookup in lookups(lab, "scale_grad_by_freq"):
        yield partial(_gradient_through_hook, lab, lookup)
        yield partial(_gradient_after_accumulation, lab, lookup)


def _gradient_through_hook(lab: Lab, lookup: Lookup) -> Claims:
    """Let a hook of the table double its gradient, as recipes for frozen rows do."""
    (weight, f), upstream = trained(lab, lookup), lab.upstream(*lookup.shape)
    seen: list[Any] = []

    def hook(gradient: torch.Tensor) -> torch.Tensor:
        seen.append(read_dense(gradient))
        return gradient * FACTOR

    handle = weight.register_hook(hook)  # type: ignore[no-untyped-call]
    torch.autograd.backward([f(lab.tensor(lookup.ids))], [lab.tensor(upstream)])
    handle.remove()
    what = f"for {lookup}, the table having a hook that doubles"
    for each in seen:
        yield GradientOf(f"what the hook is given {what}", each, lookup, upstream)
    whole = upstream * np.float32(FACTOR)
    yield GradientOf(f"weight.grad {what}", read_dense(weight.grad), lookup, whole)


def _gradient_after_accumulation(lab: Lab, lookup: Lookup) -> Claims:
    """Let a hook take the gradient of two uses as soon as it is there, and drop it."""
    (weight, f), upstream = trained(lab, lookup), lab.upstream(*lookup.shape)
    seen: list[Any] = []

    def take(table: torch.Tensor) -> None:
        seen.append(read_dense(table.grad))
        table.grad = None

    handle = weight.register_post_accumulate_grad_hook(take)  # type: ignore[no-untyped-call]
    outs = [f(lab.tensor(lookup.ids)) for _ in range(2)]
    torch.autograd.backward(outs, [lab.tensor(upstream) for _ in outs])
    handle.remove()
    what = f"for {lookup}, twice in one graph, the table having a post-accumulate-grad hook"
    for each in seen:
        whole = upstream * np.float32(2)
        yield GradientOf(f"what the hook finds in .grad {what}", each, lookup, whole)
    yield Must(len(seen) == 1, f"the hook is run {len(seen)} times {what}")
    yield Must(weight.grad is None, f"weight.grad is filled again after its hook {what}")


# Dense and sparse gradients of one table

MIXTURES: Final = ("sparse, dense", "dense, sparse", "sparse, dense, sparse")


def _mixed(lab: Lab) -> Iterator[Trial]:
    turns = cycle(product(MIXTURES, (False, True)))
    for lookup in lookups(lab):
        if lab.backend.compiled and lookup.options:
            continue  # padding has clauses of its own there
        if lookup.ids.ndim and "max_norm" not in lookup.options:  # see sparse.scalar-index
            for order, at_once in islice(turns, 2):
                yield partial(_gradient_of_mixture, lab, lookup, order, at_once)


def _gradient_of_mixture(lab: Lab, lookup: Lookup, order: str, at_once: bool) -> Claims:
    """Look up with sparse=True and without by turns, in a pass each or in one graph."""
    weight, calls = _dense_and_sparse(lab, lookup)
    kinds = order.split(", ")
    upstreams = [lab.upstream(*lookup.shape) for _ in kinds]
    given = [lab.tensor(upstream) for upstream in upstreams]
    if at_once:
        outs = [calls[kind](lab.tensor(lookup.ids)) for kind in kinds]
        torch.autograd.backward(outs, given)
    else:
        for kind, upstream in zip(kinds, given, strict=True):
            torch.autograd.backward([calls[kind](lab.tensor(lookup.ids))], [upstream])
    how = "lookups in one graph" if at_once else "passes"
    what = f"weight.grad for {lookup}, after {how} that were {order}"
    yield GradientOf(what, read_dense(weight.grad), lookup, np.sum(upstreams, axis=0))


def _dense_and_sparse(lab: Lab, lookup: Lookup) -> tuple[torch.Tensor, dict[str, OfIndices]]:
    """Make a table, and what looks it up with dense and with sparse gradients."""
    weight, dense = trained(lab, lookup)
    options = lookup.options | {"sparse": True}
    functional = lab.backend.functional
    if functional is not None:
        return weight, {"dense": dense, "sparse": lambda ids: functional(ids, weight, **options)}
    module = lab.module(replace(lookup, options=options))
    module.weight = weight
    return weight, {"dense": dense, "sparse": module}


# Recomputed outputs


def _recomputed(lab: Lab) -> Iterator[Trial]:
    for lookup in lookups(lab, "scale_grad_by_freq"):
        if "max_norm" not in lookup.options:
            for reentrant in (False, True):
                yield partial(_gradient_of_recomputed, lab, lookup, reentrant)


def _gradient_of_recomputed(lab: Lab, lookup: Lookup, reentrant: bool) -> Claims:
    """Look up in a checkpoint: once in the forward pass, again when its gradient is due."""
    from torch.utils.checkpoint import checkpoint

    (weight, f), upstream = trained(lab, lookup), lab.upstream(*lookup.shape)
    ids, factor = lab.tensor(lookup.ids), lab.leaf(np.ones((), np.float32))
    recomputed: list[Any] = []

    def scaled(factor: torch.Tensor) -> Any:
        out = f(ids)
        recomputed[:] = [read(out)]
        return out * (factor * FACTOR)

    out = checkpoint(scaled, factor, use_reentrant=reentrant, preserve_rng_state=False)
    torch.autograd.backward([out], [lab.tensor(upstream)])
    what = f"for {lookup}, in a checkpoint with use_reentrant={reentrant}"
    yield Rows(f"the output {what}, recomputed", recomputed[0], lookup)
    whole = upstream * np.float32(FACTOR)
    yield GradientOf(f"weight.grad {what}", read_dense(weight.grad), lookup, whole)


CHECKS: Final[dict[str, Check]] = {
    "gradient.recomputed": _recomputed,
    "gradient.two-tables": _two_tables,
    "gradient.table-hooks": _hooked,
    "sparse.beside-dense": _mixed,
    "gradient.non-leaf-table": _computed_table,
    "gradient.tied-table": _tied_table,
    "gradient.output-written": written_output,
    "gradient.table-written": _written_table,
}

GRAPH_PROBES: Final = tuple(probe_of(clause, check, "gradient") for clause, check in CHECKS.items())
