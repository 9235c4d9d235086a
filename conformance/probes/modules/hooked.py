"""Hooks that decide what a module looks up, hooks of all modules, and hooks that errors run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy
from embconform.conformance.probes.claims import Equal, SameBits
from embconform.conformance.probes.modules import around
from embconform.conformance.probes.modules.claims import SameBehaviour
from embconform.conformance.probes.modules.common import (
    FACTOR,
    IDS,
    PADDING,
    ROWS,
    Claims,
    Subject,
    described,
    refuses,
    run,
    serve,
)
from embconform.conformance.recording import attempt

UNKNOWN = ((ROWS, PADDING, ROWS + 7), (-1, PADDING, -ROWS - 1))
"""Indices of no row, with some of a row among them."""
Register = Callable[..., Any]


def hooks(subject: Subject) -> Claims:
    """See what hangs on one module, then what hangs on all."""
    yield from around.hooks(subject)
    if subject.backend.compiled:
        return
    for mode in ("train", "eval"):
        for way, call in around.ways_to_call(subject):
            yield from _of_all_alone(subject, mode, way, call)
        if "gradient" in subject.able:
            yield from _of_all_backward(subject, mode)
        if refuses(subject.filled(), subject.ids(UNKNOWN)):
            yield from _into_range(subject, mode)
            yield from _run_by_errors(subject, mode)


def _of_all_alone(subject: Subject, mode: str, way: str, call: around.Call) -> Claims:
    """Register hooks for all modules, on one that has none, and use what they return."""
    module = subject.filled().train(mode == "train")
    wanted = to_numpy(subject.filled()(subject.ids(around.OTHER_IDS))) * FACTOR
    ran, other = list[str](), subject.ids(around.OTHER_IDS)

    def change_ids(owner: Any, _: Any) -> Any:
        if owner is module:
            ran.append("global forward pre-hook")
            return (other,)
        return None

    def change_output(owner: Any, _: Any, output: Any) -> Any:
        if owner is module:
            ran.append("global forward hook")
            return output * FACTOR
        return None

    everywhere, what = torch.nn.modules.module, f"{way} in {mode} mode with hooks of all modules"
    with ExitStack() as hung:
        hung.callback(everywhere.register_module_forward_pre_hook(change_ids).remove)
        hung.callback(everywhere.register_module_forward_hook(change_output).remove)
        output = to_numpy(call(module, subject.ids()))
    every = ["global forward pre-hook", "global forward hook"]
    yield Equal(f"the hooks that ran in {what} alone", list(ran), every)
    yield SameBits(f"the output of {what} alone", output, wanted)


def _of_all_backward(subject: Subject, mode: str) -> Claims:
    """Register hooks of the backward pass for all modules, on one that has none."""
    module, plain = (subject.filled().train(mode == "train") for _ in range(2))
    wanted, ran = run(plain, subject.ids()), list[str]()

    def change(owner: Any, upstream: Any) -> Any:
        note("global full backward pre-hook", owner)
        return (upstream[0] * FACTOR,) if owner is module else None

    def note(which: str, owner: Any, *_: Any) -> None:
        if owner is module:
            ran.append(which)

    everywhere = torch.nn.modules.module
    with ExitStack() as hung:
        hung.callback(everywhere.register_module_full_backward_pre_hook(change).remove)
        see = partial(note, "global full backward hook")
        hung.callback(everywhere.register_module_full_backward_hook(see).remove)
        got = run(module, subject.ids())
    what = f"a pass in {mode} mode with backward hooks of all modules"
    every = ["global full backward pre-hook", "global full backward hook"]
    yield Equal(f"the hooks that ran in {what} alone", list(ran), every)
    doubled = wanted["the gradient"] * FACTOR
    yield SameBits(f"the gradient of {what} alone", got["the gradient"], doubled)


def _into_range(subject: Subject, mode: str) -> Claims:
    """Give indices of no row, for which a hook puts a row in their place."""
    given = subject.ids(UNKNOWN)
    known = torch.where((given < 0) | (given >= ROWS), 3, given)
    for place, options in enumerate(subject.option_sets()):
        for pass_ in (run, serve) if place % 2 == (mode == "eval") else ():
            plain = subject.filled(**options).train(mode == "train")
            wanted = pass_(plain, known)
            for told, hang, call in _mappings(known):
                module = subject.filled(**options).train(mode == "train")
                with ExitStack() as hung:
                    hung.callback(hang(module).remove)
                    seen = pass_(call(module), given)
                which = f"a module in {mode} mode{described(options)}, indices of no row given, "
                which += f"for which {told} puts others{' under no_grad' * (pass_ is serve)},"
                yield SameBehaviour(which, seen, wanted)


def _mappings(known: torch.Tensor) -> Iterator[tuple[str, Register, Callable[[Any], Any]]]:
    """List hooks that put known indices in the place of others, and how the module is called."""
    everywhere: Any = torch.nn.modules.module

    def by_name(_module: Any, _arguments: Any, _named: Any) -> Any:
        return (), {"input": known}

    yield "a forward pre-hook", lambda m: m.register_forward_pre_hook(lambda *_: (known,)), _itself

    def of_all(module: Any) -> Any:
        return everywhere.register_module_forward_pre_hook(
            lambda owner, _: (known,) if owner is module else None
        )

    yield "a forward pre-hook of all modules", of_all, _itself
    yield (
        "a forward pre-hook with_kwargs",
        lambda m: m.register_forward_pre_hook(by_name, with_kwargs=True),
        _ByName,
    )


def _itself(module: Any) -> Any:
    return module


class _ByName:
    """Calls a module by the name of its argument."""

    def __init__(self, module: Any) -> None:
        self.module, self.weight = module, module.weight

    def __call__(self, ids: torch.Tensor) -> Any:
        return self.module(input=ids)


def _run_by_errors(subject: Subject, mode: str) -> Claims:
    """Refuse indices where hooks are to run whatever happens, and before it."""
    for manager in (torch.enable_grad, torch.no_grad):
        for frozen in (False, True):
            module, ran = subject.filled().train(mode == "train"), list[str]()
            module.requires_grad_(not frozen)
            module.register_forward_pre_hook(lambda *_, ran=ran: ran.append("forward pre-hook"))
            note: Any = lambda *_, ran=ran: ran.append("forward hook with always_call")  # noqa: E731
            module.register_forward_hook(note, always_call=True)
            what = f"a module in {mode} mode{', frozen,' * frozen} under {manager.__name__}"
            with manager():
                yield attempt(f"a call of {what} with hooks", partial(module, subject.ids(UNKNOWN)))
            every = ["forward pre-hook", "forward hook with always_call"]
            yield Equal(f"the hooks that ran as {what} refused indices", list(ran), every)
            ids = subject.ids(IDS)
            wanted = to_numpy(subject.filled()(ids))
            with manager():
                seen = to_numpy(module(ids))
            yield SameBits(f"the output of {what} after it refused indices", seen, wanted)
