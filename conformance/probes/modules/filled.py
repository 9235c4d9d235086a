"""Modules that were made without memory and filled since, in every way that large models are."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.modules.claims import SameBehaviour
from embconform.conformance.probes.modules.common import (
    ROWS,
    WIDTH,
    Claims,
    Subject,
    described,
    refuses,
    run,
    serve,
)
from embconform.conformance.recording import attempt

Make = Callable[[], Any]
Fill = Callable[[Any, "torch.Tensor"], Any]


def in_every_way(subject: Subject) -> Claims:
    """Compare with modules made in memory: lookups, gradients, and indices that are refused."""
    if subject.backend.compiled:
        return
    ids = subject.ids()
    for which, options, make in _filled(subject):
        if not _can_be(make):
            continue
        for pass_ in (run, serve):
            wanted = pass_(subject.filled(**options), ids)
            yield SameBehaviour(which, pass_(make(), ids), wanted)
        yield from _refused(subject, which, options, make())


def _can_be(make: Make) -> bool:
    """Tell whether a module can be made so at all, which is another clause's matter."""
    try:
        make()
    except Exception:
        return False
    return True


def _refused(subject: Subject, which: str, options: dict[str, Any], module: Any) -> Claims:
    """See that it refuses what a module made in memory does."""
    for index in (-1, -ROWS, ROWS, ROWS + 7):
        ids = subject.ids([0, index])
        if refuses(subject.filled(**options), ids):
            for manager in (torch.enable_grad, torch.no_grad):
                told = f"index {index} of {which} under {manager.__name__}"
                yield attempt(told, partial(_within, manager, module, ids))


def _within(manager: Callable[[], Any], module: Any, ids: torch.Tensor) -> Any:
    with manager():
        return module(ids)


def _filled(subject: Subject) -> Iterator[tuple[str, dict[str, Any], Make]]:
    """Combine ways to make a module, ways to fill it, and options: with options, some of them."""
    for place, options in enumerate(subject.option_sets()):
        ways = [
            (f"a module {how}{described(options)}, {told},", make, fill)
            for how, make in _without_memory(subject, options)
            for told, fill in _fills(how)
        ]
        for which, make, fill in ways if not options else ways[5 * place % len(ways) :][:1]:
            yield which, options, partial(_both, make, fill, subject)


def _both(make: Make, fill: Fill, subject: Subject) -> Any:
    module = make()
    fill(module, subject.values())
    return module


def _without_memory(subject: Subject, options: dict[str, Any]) -> Iterator[tuple[str, Make]]:
    """List ways to make a module whose table has no memory, or was never drawn."""
    make = partial(subject.make, dtype=subject.dtype, **options)

    def under_meta() -> Any:
        with torch.device("meta"):
            return make()

    yield "made under torch.device('meta')", under_meta
    yield "moved to the meta device", lambda: make().to("meta")
    cls, device = subject.backend.module, subject.values().device
    if isinstance(cls, type) and "device" in inspect.signature(cls).parameters:
        yield "made with device='meta'", partial(make, device="meta")
        yield "made by skip_init", partial(_skipped, subject, cls, device, options)


def _skipped(subject: Subject, cls: type, device: torch.device, options: dict[str, Any]) -> Any:
    skip: Any = torch.nn.utils.skip_init
    return skip(cls, ROWS, WIDTH, device=device, dtype=subject.dtype, **options)


def _fills(how: str) -> Iterator[tuple[str, Fill]]:
    """List ways to give it a table."""
    if "skip_init" in how:
        yield "written to", lambda module, table: module.weight.data.copy_(table)
    yield "brought to memory by to_empty and loaded", _emptied
    yield "loaded with assign=True", _assigned
    yield "given another Parameter", _given


def _emptied(module: Any, table: torch.Tensor) -> None:
    module.to_empty(device=table.device)
    module.load_state_dict({"weight": table})


def _assigned(module: Any, table: torch.Tensor) -> None:
    module.load_state_dict({"weight": table}, assign=True)


def _given(module: Any, table: torch.Tensor) -> None:
    module.weight = torch.nn.Parameter(table)
