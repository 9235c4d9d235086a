"""Checkpoints as their owner sees them: left alone by whoever loads them, and changed by hooks."""

from __future__ import annotations

from itertools import product
from typing import Any, Final

from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy
from embconform.conformance.probes.claims import Equal, Must, SameBits
from embconform.conformance.probes.modules.common import Claims, Subject, described, table_of
from embconform.conformance.recording import plain

_NAMES: Final = ("other", "weight")


def left_alone(subject: Subject) -> Claims:
    """Load one checkpoint into modules of every dtype, one after the other, in every way."""
    dtypes = [getattr(torch, name) for name in subject.backend.capabilities.dtypes]
    for options in ({}, subject.richest()):
        for of, own in product(dtypes, dtypes):
            module = subject.filled(dtype=own, **options)
            if own is of and options:
                module.weight.requires_grad_(False)
            model = torch.nn.ModuleDict({"first": module})
            for assign in (False, True):
                told = f"by a module of {own}{', assign=True' * assign}{described(options)}"
                yield from _as_it_was(subject, of, model, told, assign=assign)


def _as_it_was(subject: Subject, of: torch.dtype, model: Any, told: str, *, assign: bool) -> Claims:
    """See the names, the tensors and their values after they were loaded."""
    values = subject.values(of) * 1.1
    kinds: dict[str, Any] = {
        "a tensor": values,
        "a tensor that requires grad": values.clone().requires_grad_(),
        "a view": torch.cat([values, values], 1)[:, : values.shape[1]],
    }
    for kind, held in kinds.items():
        before, checkpoint = to_numpy(held), {"first.weight": held}
        address, trainable = held.data_ptr(), plain(held.requires_grad)
        model.load_state_dict(checkpoint, assign=assign)
        what = f"weight in a checkpoint, {kind} of {of}, once loaded {told},"
        yield Must(checkpoint.get("first.weight") is held, f"{what} is another tensor or missing")
        yield Equal(f"the names of a checkpoint once loaded {told}", len(checkpoint), 1)
        yield Equal(f"the dtype of {what}", str(held.dtype), str(of))
        yield SameBits(what, to_numpy(held), before)
        yield Must(held.data_ptr() == address, f"{what} is in other memory")
        yield Equal(f"requires_grad of {what}", plain(held.requires_grad), trainable)


def hooked(subject: Subject) -> Claims:
    """Hang hooks on saving and loading, which rename the table and tell what was missed."""
    for options in ({}, subject.richest()):
        yield from _renamed(subject, options)


def _renamed(subject: Subject, options: dict[str, Any]) -> Claims:
    """Save the table by another name, and load it from there."""
    ran, module = list[str](), subject.filled(**options)
    other, renamed = _NAMES

    def before_saving(_module: Any, prefix: str, _keep: bool) -> None:
        ran.append(f"state_dict pre-hook of {prefix}")

    def after_saving(_module: Any, state: Any, prefix: str, _local: Any) -> None:
        ran.append(f"state_dict post-hook of {prefix}")
        state[prefix + other] = state.pop(prefix + renamed)

    def before_loading(_module: Any, state: Any, prefix: str, *_: Any) -> None:
        ran.append(f"load_state_dict pre-hook of {prefix}")
        state[prefix + renamed] = state.pop(prefix + other)

    def after_loading(_module: Any, _missed: Any) -> None:
        ran.append("load_state_dict post-hook")

    module.register_state_dict_pre_hook(before_saving)
    module.register_state_dict_post_hook(after_saving)
    module.register_load_state_dict_pre_hook(before_loading)
    module.register_load_state_dict_post_hook(after_loading)
    model = torch.nn.ModuleDict({"first": module})
    what = f"a module with hooks{described(options)}"
    saved = model.state_dict()
    yield Equal(f"the names in a state_dict of {what}", list(saved), ["first.other"])
    table = subject.values() * 2
    model.load_state_dict({"first.other": table.clone()})
    yield SameBits(f"the table of {what} after load_state_dict", table_of(module), to_numpy(table))
    every = [f"{when} of first." for when in ("state_dict pre-hook", "state_dict post-hook")]
    every += ["load_state_dict pre-hook of first.", "load_state_dict post-hook"]
    yield Equal(f"the hooks that ran as {what} was saved and loaded", list(ran), every)
