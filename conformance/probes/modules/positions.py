"""Options that are given by position, in torch's order."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Final

from embconform.conformance.probes.modules import made
from embconform.conformance.probes.modules.claims import SameBehaviour
from embconform.conformance.probes.modules.common import PADDING, ROWS, WIDTH, Claims, Subject, run

ORDER: Final[tuple[tuple[str, Any], ...]] = (
    ("padding_idx", PADDING),
    ("max_norm", 1.5),
    ("norm_type", 1.0),
    ("scale_grad_by_freq", True),
    ("sparse", True),
)
"""Options in the order in which torch.nn.Embedding takes them."""


def arguments(subject: Subject) -> Claims:
    """Give arguments by name, and as many options by position as can be given so."""
    yield from made.argument_names(subject)
    if subject.backend.compiled:
        return
    module = subject.backend.module
    assert module is not None
    for options in _beginnings(_taken(subject, module)):
        call = f"Embedding({ROWS}, {WIDTH}{_listed(options)})"
        built = module(ROWS, WIDTH, *options.values()).to(subject.dtype)
        yield _as_by_name(subject, call, built, options)
    pretrained = getattr(type(subject.make()), "from_pretrained", None)
    if not callable(pretrained):
        return
    if "freeze" not in list(inspect.signature(pretrained).parameters)[1:2]:
        return
    for options in _beginnings(_taken(subject, pretrained)):
        for freeze in (True, False):
            call = f"from_pretrained(table, {freeze}{_listed(options)})"
            built = pretrained(subject.values(), freeze, *options.values())
            yield _as_by_name(subject, call, built, options, trained=not freeze)


def _listed(options: dict[str, Any]) -> str:
    return "".join(f", {value}" for value in options.values())


def _beginnings(options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give the first options, one more each time; scaled gradients may not be sparse."""
    names = list(options)
    for number in range(len(names) + 1):
        given = {name: options[name] for name in names[:number]}
        if "sparse" in given:
            given["scale_grad_by_freq"] = False
        yield given


def _taken(subject: Subject, make: Callable[..., Any]) -> dict[str, Any]:
    """List the first options that have a position, of those that the backend has."""
    parameters = inspect.signature(make).parameters
    taken: dict[str, Any] = {}
    for name, value in ORDER:
        parameter = parameters.get(name)
        if (
            name not in subject.able
            or parameter is None
            or parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD
        ):
            break
        taken[name] = value
    return taken


def _as_by_name(
    subject: Subject, call: str, built: Any, options: dict[str, Any], *, trained: bool = True
) -> SameBehaviour:
    """Compare with a module that was given the same by name."""
    named = subject.filled(**options)
    named.weight.requires_grad_(trained)
    built.weight.data.copy_(subject.values())
    wanted = run(named, subject.ids())
    return SameBehaviour(f"a module of {call}", run(built, subject.ids()), wanted)
