"""What torch hangs on a module from outside: hooks, and a parametrization of its weight."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from importlib import import_module
from typing import Any, Final

from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy
from embconform.conformance.probes.claims import Equal, SameBits
from embconform.conformance.probes.modules.claims import SameBehaviour
from embconform.conformance.probes.modules.common import (
    FACTOR,
    IDS,
    PADDING,
    ROWS,
    WIDTH,
    Claims,
    Subject,
    described,
    run,
    upstream_of,
)
from embconform.reference.dtypes import Array

OTHER_IDS: Final = ((2, 4, 2), (0, 4, 1))
"""What a pre-hook gives in the place of the indices."""
MANY: Final = 66_001
"""Indices of a call that may be looked up in parts."""
Call = Callable[[Any, Any], Any]


def hooks(subject: Subject) -> Claims:
    """See forward hooks and backward hooks, in both modes and in every way to call."""
    plain = subject.filled()
    own, new = (to_numpy(plain(subject.ids(ids))) for ids in (IDS, OTHER_IDS))
    for mode in ("train", "eval"):
        yield from _copied(subject, mode, own)
        for way, call in ways_to_call(subject):
            module = subject.filled().train(mode == "train")
            yield from _forward(subject, module, f"{way} in {mode} mode", call, own, new)
        if "gradient" in subject.able:
            yield from _backward(subject, mode)
        if not subject.backend.compiled:
            yield from _other_ids(subject, mode)
            yield from _once_for_many(subject, mode)


def _other_ids(subject: Subject, mode: str) -> Claims:
    """Put other indices in the place of the caller's, fewer and more, with options."""
    for place, options in enumerate(subject.option_sets()):
        for others in (OTHER_IDS, OTHER_IDS[0], OTHER_IDS * 2):
            if place % 2 != (mode == "eval"):
                continue
            ids = subject.ids(others)
            module, plain = (subject.filled(**options).train(mode == "train") for _ in range(2))
            module.register_forward_pre_hook(lambda _module, _arguments, ids=ids: (ids,))
            which = f"a module in {mode} mode{described(options)}, {ids.numel()} other indices put"
            which += " in the place of its own by a forward pre-hook,"
            yield SameBehaviour(which, run(module, subject.ids()), run(plain, ids))


def _once_for_many(subject: Subject, mode: str) -> Claims:
    """See which hooks run in one call for many indices, which may be looked up in parts."""
    module, ran = subject.filled().train(mode == "train"), list[str]()
    wanted = ["forward pre-hook", "forward hook"]
    module.register_forward_pre_hook(lambda *_: ran.append(wanted[0]))
    module.register_forward_hook(lambda *_: ran.append(wanted[1]))
    if "gradient" in subject.able:
        wanted.append("full backward hook")
        module.register_full_backward_hook(lambda *_: ran.append(wanted[2]))
    output = module(subject.ids((PADDING,)).repeat(MANY))
    if output.requires_grad:
        output.sum().backward()
    what = f"the hooks that ran in a call for {MANY:,} indices in {mode} mode"
    yield Equal(what, ran, wanted)


def _copied(subject: Subject, mode: str, own: Array) -> Claims:
    """Copy a module that has hooks: the copy has them as well, and its own go away alone."""
    module = subject.filled().train(mode == "train")
    module.register_forward_pre_hook(lambda _, arguments: (arguments[0].clone(),))
    handle = module.register_forward_hook(lambda _module, _arguments, output: output * FACTOR)
    made = copy.deepcopy(module)
    handle.remove()
    what = f"the output of a deepcopy of a module with a forward hook in {mode} mode"
    yield SameBits(what, to_numpy(made(subject.ids())), own * FACTOR)
    what = f"the output of a module in {mode} mode whose hook was removed after a deepcopy"
    yield SameBits(what, to_numpy(module(subject.ids())), own)


def ways_to_call(subject: Subject) -> Iterator[tuple[str, Call]]:
    """List ways to call a module; each may cost a compiled one seconds."""
    yield "a call", lambda module, ids: module(ids)
    yield "functional_call", _with_another_table
    if not subject.backend.compiled:
        yield "a call under no_grad", partial(_within, torch.no_grad)
        yield "a call under inference_mode", partial(_within, torch.inference_mode)
        yield "a frozen call", lambda module, ids: module.requires_grad_(False)(ids)


def _within(manager: Callable[[], AbstractContextManager[Any]], module: Any, ids: Any) -> Any:
    with manager():
        return module(ids)


def _with_another_table(module: Any, ids: Any) -> Any:
    table = module.weight.detach().clone()
    return torch.func.functional_call(module, {"weight": table}, (ids,))


def _forward(  # noqa: PLR0917
    subject: Subject, module: Any, way: str, call: Call, own: Array, new: Array
) -> Claims:
    """Register hooks that change the indices and the output, call, remove them and call again.

    A module without hooks gave `own` for its indices and `new` for those of the pre-hook.
    """
    other = subject.ids(OTHER_IDS)
    ran: list[str] = []
    given: list[Any] = []

    def note(which: str, owner: Any, *_: Any) -> None:
        if owner is module:
            ran.append(which)

    def change_ids(*_: Any) -> Any:
        ran.append("forward pre-hook")
        return (other,)

    def change_output(_: Any, arguments: Any, output: Any) -> Any:
        ran.append("forward hook")
        given.extend((to_numpy(arguments[0]), to_numpy(output)))
        return output * FACTOR

    everywhere = torch.nn.modules.module
    what = f"{way} with hooks"
    with ExitStack() as hung:
        for handle in (
            everywhere.register_module_forward_pre_hook(partial(note, "global forward pre-hook")),
            everywhere.register_module_forward_hook(partial(note, "global forward hook")),
            module.register_forward_pre_hook(change_ids),
            module.register_forward_hook(change_output),
        ):
            hung.callback(handle.remove)
        output = to_numpy(call(module, subject.ids()))
    every = ["forward hook", "forward pre-hook", "global forward hook", "global forward pre-hook"]
    yield Equal(f"the hooks that ran in {what}", sorted(ran), every)
    yield SameBits(f"the indices that the forward hook saw in {what}", given[0], to_numpy(other))
    yield SameBits(f"the output that the forward hook saw in {what}", given[1], new)
    yield SameBits(f"the output of {what}", output, new * FACTOR)
    ran.clear()
    output = to_numpy(call(module, subject.ids()))
    yield Equal(f"the hooks that ran after they were removed in {what}", ran, [])
    yield SameBits(f"the output of {what} that were removed", output, own)


def _backward(subject: Subject, mode: str) -> Claims:
    """Register hooks of the backward pass, one of which changes the upstream gradient."""
    for options in ({}, subject.richest()):
        module, plain = (subject.filled(**options).train(mode == "train") for _ in range(2))
        ran: list[str] = []

        def change(_: Any, upstream: Any, ran: list[str] = ran) -> Any:
            ran.append("full backward pre-hook")
            return (upstream[0] * FACTOR,)

        def see(*_: Any, ran: list[str] = ran) -> None:
            ran.append("full backward hook")

        module.register_full_backward_pre_hook(change)
        module.register_full_backward_hook(see)
        got, wanted = run(module, subject.ids()), run(plain, subject.ids())
        what = f"a pass in {mode} mode with backward hooks{described(options)}"
        yield Equal(
            f"the hooks that ran in {what}", ran, ["full backward pre-hook", "full backward hook"]
        )
        doubled = wanted["the gradient"] * FACTOR
        yield SameBits(f"the gradient of {what}", got["the gradient"], doubled)


def parametrized(subject: Subject) -> Claims:
    """Double the weight by a parametrization, look up, go backward, write, and remove it."""
    options = {"padding_idx": PADDING, "scale_grad_by_freq": True}
    able = {name: value for name, value in options.items() if name in subject.able}
    yield from _doubled(subject, "train", {})
    yield from _doubled(subject, "eval", able)
    if not subject.backend.compiled:
        for manager in (torch.no_grad, torch.inference_mode):
            yield from _served(subject, manager, able)


def _served(subject: Subject, manager: Callable[[], Any], options: dict[str, Any]) -> Claims:
    """Serve between changes of all that a parametrized weight is computed from."""
    ids, module = subject.ids(), subject.filled(**options).eval()
    torch.nn.utils.parametrize.register_parametrization(module, "weight", _doubling())
    held = module.parametrizations.weight
    loaded = {"parametrizations.weight.original": torch.full_like(held.original, 0.25)}
    changes: dict[str, Callable[[], Any]] = {
        "nothing": lambda: None,
        "its original was written": lambda: held.original.mul_(0.5),
        "a write to its original's data": lambda: held.original.data.mul_(0.5),
        "load_state_dict": lambda: module.load_state_dict(loaded, strict=False),
        "a change of the parametrization": lambda: setattr(held[0], "factor", FACTOR**2),
        "a second parametrization": lambda: torch.nn.utils.parametrize.register_parametrization(
            module, "weight", _doubling()
        ),
    }
    plain = subject.filled(**options).eval()
    what = f"the output under {manager.__name__} of a module with a parametrized weight"
    for change, make in changes.items():
        with torch.no_grad():
            make()
            factor = FACTOR**3 if "second" in change else held[0].factor
            plain.weight.copy_(held.original * factor)
        with manager():
            got, wanted = to_numpy(module(ids)), to_numpy(plain(ids))
        yield SameBits(f"{what}{described(options)} after {change}", got, wanted)


def _doubled(subject: Subject, mode: str, options: dict[str, Any]) -> Claims:
    ids = subject.ids()
    module, plain = (subject.filled(**options).train(mode == "train") for _ in range(2))
    module(ids)  # something to cache
    plain.weight.data.mul_(FACTOR)
    wanted = run(plain, ids)
    torch.nn.utils.parametrize.register_parametrization(module, "weight", _doubling())
    original = module.parametrizations.weight.original
    what = f"a module in {mode} mode with a parametrized weight{described(options)}"
    output = module(ids)
    yield SameBits(f"the output of {what}", to_numpy(output), wanted["the output"])
    if "gradient" in subject.able:
        output.backward(upstream_of(output))
        gradient = wanted["the gradient"] * FACTOR
        yield SameBits(f"the gradient of {what}", to_numpy(original.grad), gradient)
    original.data.fill_(0.125)
    changed = subject.constant(FACTOR * 0.125, trainable=True, **options)
    seen = to_numpy(module(ids))
    yield SameBits(f"the output of {what} that changed", seen, changed["the output"])
    torch.nn.utils.parametrize.remove_parametrizations(module, "weight")
    yield SameBehaviour(f"{what} until now", run(module, ids), changed)


def pruned(subject: Subject) -> Claims:
    """Mask the weight as torch.nn.utils.prune does, which keeps it as weight_orig."""
    prune: Any = import_module("torch.nn.utils.prune")  # torch does not import it by itself
    ids = subject.ids()
    mask = torch.arange(ROWS * WIDTH).reshape(ROWS, WIDTH) % 3 != 0
    for mode, options in (("train", {}), ("eval", subject.richest())):
        module, plain = (subject.filled(**options).train(mode == "train") for _ in range(2))
        if not options.get("max_norm"):
            module(ids)  # something to cache
        prune.custom_from_mask(module, "weight", mask)
        plain.weight.data.mul_(mask)
        wanted = run(plain, ids)
        what = f"a module in {mode} mode with a pruned weight{described(options)}"
        output = module(ids)
        yield SameBits(f"the output of {what}", to_numpy(output), wanted["the output"])
        if "gradient" in subject.able and not options.get("max_norm"):
            output.backward(upstream_of(output))
            gradient = wanted["the gradient"] * to_numpy(mask)
            yield SameBits(f"the gradient of {what}", to_numpy(module.weight_orig.grad), gradient)
        module.weight_orig.data.fill_(0.125)
        plain.weight.data.copy_(0.125 * mask)
        prune.remove(module, "weight")
        yield SameBehaviour(f"{what} until now", run(module, ids), run(plain, ids))
        if not subject.backend.compiled:
            yield from _pruned_again(subject, mode, {} if "max_norm" in options else options)


def _pruned_again(subject: Subject, mode: str, options: dict[str, Any]) -> Claims:
    """Look up between changes of the mask, as where a table is pruned bit by bit."""
    prune: Any = import_module("torch.nn.utils.prune")
    ids, places = subject.ids(), torch.arange(ROWS * WIDTH).reshape(ROWS, WIDTH)
    module, plain = (subject.filled(**options).train(mode == "train") for _ in range(2))

    def load() -> None:
        state = {"weight_orig": subject.values() * 2, "weight_mask": (places % 5 != 1).float()}
        module.load_state_dict(state, strict=False)

    changes: dict[str, Callable[[], Any]] = {
        "a first mask": lambda: prune.custom_from_mask(module, "weight", places % 2 != 0),
        "a second mask": lambda: prune.custom_from_mask(module, "weight", places % 3 != 0),
        "load_state_dict of another mask": load,
        "a write to its mask": lambda: module.weight_mask.copy_(places % 4 != 2),
        "a write to its weight_orig": lambda: module.weight_orig.data.fill_(0.125),
        "remove and a new mask": lambda: (
            prune.remove(module, "weight"),
            prune.custom_from_mask(module, "weight", places % 5 != 2),
        ),
    }
    for change, make in changes.items():
        make()
        plain.weight.data.copy_(module.weight_orig.data * module.weight_mask)
        what = f"a pruned module in {mode} mode{described(options)} after {change}"
        wanted, output = run(plain, ids), module(ids)
        yield SameBits(f"the output of {what}", to_numpy(output), wanted["the output"])
        if "gradient" in subject.able:
            module.weight_orig.grad = None
            output.backward(upstream_of(output))
            gradient = wanted["the gradient"] * to_numpy(module.weight_mask)
            yield SameBits(f"the gradient of {what}", to_numpy(module.weight_orig.grad), gradient)
        with torch.no_grad():
            got = to_numpy(module(ids))
        yield SameBits(f"the output under no_grad of {what}", got, wanted["the output"])


def _doubling() -> torch.nn.Module:
    """Make a parametrization; torch is not there yet when this file is read."""

    class Doubled(torch.nn.Module):
        factor = FACTOR

        def forward(self, table: torch.Tensor) -> torch.Tensor:
            return table * self.factor

    return Doubled()
