"""Calls that follow an unusual use of the embedding: one that failed, stopped early or was mapped.

What a use leaves behind, such as a flag that is still up or a tensor that belongs to a transform,
shows in the calls that come after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, Final, TypeAlias

import numpy as np

from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.transforms.claims import Lookup, Rows
from embconform.conformance.probes.transforms.common import (
    Claims,
    Function,
    Lab,
    Trial,
    probe_of,
    rows_and_gradient,
)
from embconform.conformance.recording import MOST, read
from embconform.reference.dtypes import Array

_CLAUSE: Final = "state.options-apart"
SIZES: Final = (8, 1_100)
NAMED: Final = 20
"""Rows at the end of a table, the only ones that are looked up."""
FIRST: Final = 47
"""Rows of the lowest table: no other probe has its padding beyond."""
WIDTH, OWN_WIDTH = 3, 43
"""Columns of most tables, and of those that were on meta: no table had as many before."""
Use: TypeAlias = "Callable[[Function, torch.Tensor, torch.Tensor], object]"


class _StopError(Exception):
    """What the caller's own code raises."""


def _stop(*_: object) -> Any:
    raise _StopError


def _summed(out: Any) -> Any:
    """Sum an output, unless it is one that takes hours."""
    if out.numel() > MOST:
        raise _StopError
    return out.sum()


def _refused(call: Function, ids: torch.Tensor, weight: torch.Tensor) -> None:
    call(torch.cat([ids, ids.new_tensor([len(weight)])]), weight)


def _written(call: Function, ids: torch.Tensor, weight: torch.Tensor) -> None:
    out = call(ids, weight)
    ids.add_(0)
    _summed(out).backward()


def _freed(call: Function, ids: torch.Tensor, weight: torch.Tensor) -> None:
    out = call(ids, weight)
    _summed(out).backward()
    _summed(out).backward()


def _hook(call: Function, ids: torch.Tensor, weight: torch.Tensor) -> None:
    out = call(ids, weight)
    out.register_hook(_stop)
    _summed(out).backward()


def _packed(call: Function, ids: torch.Tensor, weight: torch.Tensor) -> None:
    with torch.autograd.graph.saved_tensors_hooks(_stop, _stop):
        call(ids, weight)


def _unpacked(call: Function, ids: torch.Tensor, weight: torch.Tensor) -> None:
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved, _stop):
        out = call(ids, weight)
    _summed(out).backward()


def _checkpoint(call: Function, ids: torch.Tensor, weight: torch.Tensor) -> None:
    """Let the second forward pass end within the lookup, once all that it saves is there."""
    out: Any = torch.utils.checkpoint.checkpoint(call, ids, weight, use_reentrant=False)
    _summed(out).backward()


def _mapped_indices(call: Function, ids: torch.Tensor, weight: torch.Tensor) -> None:
    torch.vmap(call, (0, None))(ids.view(2, -1), weight)


def _mapped_tables(call: Function, ids: torch.Tensor, weight: torch.Tensor) -> None:
    torch.vmap(call, (None, 0))(ids, torch.stack([weight, weight]))


def _func_grad(call: Function, ids: torch.Tensor, weight: torch.Tensor) -> None:
    torch.func.grad(lambda table: _summed(call(ids, table)))(weight.detach())


def _jvp(call: Function, ids: torch.Tensor, weight: torch.Tensor) -> None:
    table = weight.detach()
    torch.func.jvp(lambda primal: call(ids, primal), (table,), (table,))


def _meta(call: Function, ids: torch.Tensor, weight: torch.Tensor) -> None:
    call(ids.to("meta"), weight.detach().to("meta"))
    call(ids.to("meta"), weight.detach().to("meta").requires_grad_())


def _inference(call: Function, ids: torch.Tensor, weight: torch.Tensor) -> None:
    with torch.inference_mode():
        call(ids, weight)


USES: Final[dict[str, Use]] = {
    "a refused call": _refused,
    "a backward pass that its written indices ended": _written,
    "a second pass through a freed graph": _freed,
    "a pass in which a hook of the output raised": _hook,
    "a call in which a hook of saved tensors raised": _packed,
    "a pass in which a hook of saved tensors raised": _unpacked,
    "a checkpoint that stopped early": _checkpoint,
    "a vmap over the indices": _mapped_indices,
    "a vmap over tables": _mapped_tables,
    "torch.func.grad": _func_grad,
    "torch.func.jvp": _jvp,
    "a call on meta": _meta,
    "a call under inference_mode": _inference,
}


def _afterwards(lab: Lab) -> Iterator[Trial]:
    """Use the embedding, then call it; no two trials have the same padding or height."""
    if lab.backend.compiled or lab.backend.interpreter:
        return  # each use is another program
    heights = count(FIRST, NAMED + 1)
    for size in SIZES:
        for told, use in USES.items():
            if use is _refused and lab.device != "cpu":
                continue  # it may cost the device
            ids = np.arange(size) % 2 * 7 + lab.draw.integers(0, NAMED - 7, size)
            choices = list(lab.choices(ids, NAMED, "padding_idx", "scale_grad_by_freq"))
            for options in choices if size == SIZES[0] else choices[-2:]:
                shape = next(heights), OWN_WIDTH if use is _meta else WIDTH
                yield partial(_used, lab, told, _moved(lab, ids, shape, options))


def _moved(lab: Lab, ids: Array, shape: tuple[int, int], options: dict[str, Any]) -> Lookup:
    """Look the last rows of a table up."""
    start = shape[0] - NAMED
    if options.get("padding_idx", -1) >= 0:
        options = {**options, "padding_idx": options["padding_idx"] + start}
    return Lookup(ids + start, np.abs(lab.table(*shape)) + 1, options, lab.profile)


def _used(lab: Lab, told: str, lookup: Lookup) -> Claims:
    """Use, whatever becomes of it, and call with the same options and data, with grad and without.

    What was made on meta is first used without grad, and all else with it.
    """
    call = lab.bind(lookup)
    with suppress(Exception, SystemExit):  # other clauses tell
        USES[told](call, lab.tensor(lookup.ids), lab.leaf(lookup.table))
    ids, weight, what = lab.tensor(lookup.ids), lab.leaf(lookup.table), f"{lookup}, after {told}"
    if USES[told] is not _meta:
        yield from rows_and_gradient(lab, what, lookup, ids, weight)
    with torch.no_grad():
        out = call(ids, weight)
    yield Rows(f"the output, under no_grad, for {what}", read(out), lookup)
    yield from rows_and_gradient(lab, f"{what} and a call under no_grad", lookup, ids, weight)


OTHER_USES_PROBE: Final = probe_of(
    _CLAUSE, _afterwards, "functional", "gradient", name="after other uses"
)
