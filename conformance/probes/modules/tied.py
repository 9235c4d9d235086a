"""What becomes of a weight that two layers share, as an embedding and an output layer do."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.claims import Must
from embconform.conformance.probes.modules.claims import SameBehaviour
from embconform.conformance.probes.modules.common import ROWS, WIDTH, Claims, Subject, run
from embconform.conformance.probes.modules.copies import importable, unpickled

Pair = tuple[Any, Any, Any]
"""A container, the embedding in it, and the layer that shares its weight."""


def tied(subject: Subject) -> Claims:
    """See that both layers go on with one Parameter, in copies and where they are."""
    copies: dict[str, Callable[[Any], Any]] = {"a deepcopy": copy.deepcopy}
    if importable(type(subject.make())):
        copies["a pickled copy"] = unpickled
    for which, duplicate in copies.items():
        for name, at, pair in islice(_pairs(subject), 4 if duplicate is copy.deepcopy else 2):
            frozen = at == 0
            both, module, _ = pair
            module.requires_grad_(not frozen)
            made = duplicate(both)
            copied, what = (made, made[at], made[1 - at]), f"{which} of {name}"
            weight = made[at].weight
            yield Must(weight is not module.weight, f"{what} shares its weight with the first")
            yield from _one_parameter(copied, weight, what)
            yield from _one_table(subject, copied, what, trainable=not frozen)
    for trainable in subject.few((True, False)):
        for name, _, pair in islice(_pairs(subject), 1, 3):  # a linear layer before, a table after
            told = name if trainable else f"{name} frozen,"
            weight = pair[1].weight.requires_grad_(trainable)
            for change, make in _changes(subject).items():
                make(pair)
                yield from _one_parameter(pair, weight, f"{told} after {change}")
                if "share" in change:
                    yield Must(weight.is_shared(), f"{told} after {change} has memory of its own")
            yield from _one_table(subject, pair, f"{told} after changes", trainable=trainable)


def _pairs(subject: Subject) -> Iterator[tuple[str, int, Pair]]:
    """Tie an embedding to a linear layer and to another embedding, before and after it.

    Given with a name and with the place of the embedding in its container.
    """
    for kind in ("a linear layer", "another embedding"):
        for at in (0, 1):
            module = subject.filled()
            if kind == "a linear layer":
                other: Any = torch.nn.Linear(WIDTH, ROWS, bias=False)
            else:
                other = subject.filled()
            other.weight = module.weight
            both = torch.nn.ModuleList([module, other] if at == 0 else [other, module])
            yield f"an embedding tied to {kind}, in place {at},", at, (both, module, other)


def _changes(subject: Subject) -> dict[str, Callable[[Pair], Any]]:
    """List what changes layers in place."""
    back, names = subject.dtype, subject.backend.capabilities.dtypes
    changes: dict[str, Callable[[Pair], Any]] = {}
    for at, whose in ((0, ""), (1, " of the embedding alone")):
        changes[f"load_state_dict{whose}"] = partial(_reload, at)
        for dtype in [getattr(torch, name) for name in names][: 2 if at else None]:
            if dtype != back:
                changes[f"to({dtype}) and back{whose}"] = partial(_recast, at, (dtype, back))
    if _can_share_memory():
        changes["share_memory()"] = lambda pair: pair[0].share_memory()
    return changes


def _reload(at: int, pair: Pair) -> None:
    pair[at].load_state_dict(pair[at].state_dict())


def _recast(at: int, dtypes: tuple[torch.dtype, ...], pair: Pair) -> None:
    for dtype in dtypes:
        pair[at].to(dtype)


def _can_share_memory() -> bool:
    """Tell whether this machine lets a tensor be moved to shared memory."""
    try:
        torch.ones(1, device="cpu").share_memory_()  # type: ignore[no-untyped-call]
    except RuntimeError:
        return False
    return True


def _one_parameter(pair: Pair, weight: Any, what: str) -> Claims:
    """Demand that both layers hold a Parameter, and no other."""
    both, module, other = pair
    yield Must(other.weight is module.weight, f"the two weights of {what} are not one any more")
    yield Must(module.weight is weight, f"{what} has another Parameter than it had")
    number = len(list(both.parameters()))
    yield Must(number == 1, f"{what} has {number} parameters, must have 1")


def _one_table(subject: Subject, pair: Pair, what: str, *, trainable: bool) -> Claims:
    """Demand that the embedding looks up what the other layer writes."""
    _, module, other = pair
    other.weight.data.fill_(0.125)
    wanted = subject.constant(0.125, trainable=trainable)
    which = f"{what}, the other layer having written,"
    yield SameBehaviour(which, run(module, subject.ids()), wanted)
