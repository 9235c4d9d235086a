"""Frozen tables: every way to freeze and to thaw one, and what their lookups can be used for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy
from embconform.conformance.probes.claims import Must, SameBits
from embconform.conformance.probes.modules.claims import SameBehaviour
from embconform.conformance.probes.modules.common import (
    FACTOR,
    IDS,
    Claims,
    Subject,
    described,
    run,
    table_of,
    upstream_of,
)

Switch = Callable[[Any, bool], Any]
SWITCHES: Final[dict[str, Switch]] = {
    "module.requires_grad_": lambda module, on: module.requires_grad_(on),
    "module.weight.requires_grad_": lambda module, on: module.weight.requires_grad_(on),
    "module.weight.requires_grad = ": lambda module, on: setattr(
        module.weight, "requires_grad", on
    ),
    "requires_grad_ of a model": lambda module, on: torch.nn.Sequential(module).requires_grad_(on),
}
_MODES: Final = (("eval", "train", "eval"), ("train", "eval", "train"))
"""Modes before a table is frozen, after that, and after it is thawed."""


def switched(subject: Subject) -> Claims:
    """Freeze in each way and thaw in each way, with changes of the mode between."""
    if subject.backend.compiled:
        return
    for options in ({}, subject.richest()):
        frozen, free = (
            run(subject.filled(**options).requires_grad_(on), subject.ids()) for on in (False, True)
        )
        for place, (first, freeze) in enumerate(SWITCHES.items()):
            for turn, (second, thaw) in enumerate(SWITCHES.items()):
                if options and turn != place:
                    continue
                modes = _MODES[(place + turn // 2) % 2]  # both come with each way
                before, between, after = modes
                module = subject.filled(**options).train(before == "train")
                freeze(module, False)
                module.train(between == "train")
                what = f"a module{described(options)} in {before} mode, frozen by {first}"
                what += f" and then in {between} mode"
                yield SameBehaviour(f"{what},", run(module, subject.ids()), frozen)
                module.weight.data.copy_(subject.values())
                thaw(module, True)
                module.train(after == "train")
                what += f", thawed by {second} and then in {after} mode,"
                yield SameBehaviour(what, run(module, subject.ids()), free)


def served(subject: Subject, trials: Sequence[tuple[str, str, int]]) -> Claims:
    """Use what was looked up where nothing was recorded: by what is trained, and in place.

    A trial is why nothing is recorded, the mode, and how often the indices come.
    """
    if subject.backend.compiled:
        return
    for options in subject.option_sets():
        for why, mode, times in trials:
            module = subject.filled(**options).train(mode == "train")
            module.requires_grad_(why != "frozen")
            ids = subject.ids(IDS * times)
            with torch.set_grad_enabled(why != "no_grad"):
                output = module(ids)
            told = f"a frozen module in {mode} mode"
            told = told if why == "frozen" else f"a module in {mode} mode under {why}"
            what = f"the output of {told}{described(options)} for {ids.numel()} indices"
            yield from _usable(output, what, module)


def _usable(output: torch.Tensor, what: str, module: Any) -> Claims:
    """Multiply an output by something trained, go backward, and write to it in place."""
    yield Must(not output.is_inference(), f"{what} is an inference tensor")
    rows, table = to_numpy(output), table_of(module)
    scale: Any = torch.ones_like(output).detach().requires_grad_()
    scaled = output * scale
    scaled.backward(upstream_of(scaled))
    wanted = rows * to_numpy(upstream_of(output))
    yield SameBits(f"the gradient of a factor of {what}", to_numpy(scale.grad), wanted)
    output.mul_(FACTOR)
    yield SameBits(f"{what}, written in place,", to_numpy(output), rows * rows.dtype.type(FACTOR))
    yield SameBits(f"the table after {what} was written in place", table_of(module), table)
