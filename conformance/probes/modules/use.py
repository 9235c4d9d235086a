"""What a module's modes, switches and other tables do to its lookups."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np

from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy
from embconform.conformance.probes.claims import Equal, Must, Refused, SameBits, SameValues
from embconform.conformance.probes.modules import freezing as frozen
from embconform.conformance.probes.modules.changes import (
    PUTS,
    Put,
    ids_of,
    made_of_height,
    of_height,
    replaced,
)
from embconform.conformance.probes.modules.claims import Behaviour, SameBehaviour
from embconform.conformance.probes.modules.common import (
    IDS,
    PADDING,
    ROWS,
    Claims,
    Subject,
    described,
    refuses,
    run,
    serve,
    table_of,
)
from embconform.conformance.probes.modules.layouts import on_tables
from embconform.conformance.recording import attempt, plain

Pass = Callable[[Any, "torch.Tensor"], Behaviour]


def eval_mode(subject: Subject) -> Claims:
    """See that eval() changes nothing, and train() nothing back."""
    ids = subject.ids()
    for options in subject.option_sets():
        yield _frozen_in_eval(subject, ids, options)
        yield _moved_while_serving(subject, options)
        wanted = run(subject.filled(**options), ids)
        under_no_grad = serve(subject.filled(**options), ids)
        module = subject.filled(**options).eval()
        which = f"a module in eval mode under no_grad{described(options)}"
        yield SameBehaviour(which, serve(module, ids), under_no_grad)
        module = subject.filled(**options)
        which = f"a module in eval mode{described(options)}"
        yield Must(module.eval() is module, "module.eval() does not return the module")
        yield SameBehaviour(which, run(module, ids), wanted)
        module.weight.data.fill_(0.125)
        seen, other = run(module, ids), subject.constant(0.125, trainable=True, **options)
        yield SameBehaviour(f"{which}, its table written anew,", seen, other)
        module.weight.data.copy_(subject.values())
        which = f"a module back in train mode{described(options)}"
        yield SameBehaviour(which, run(module.train(), ids), wanted)
    yield from _of_another_height(subject)
    yield from frozen.served(subject, (("no_grad", "eval", 1), ("no_grad", "eval", 50)))


def _of_another_height(subject: Subject) -> Claims:
    """Put a taller table and a lower one in the place of weight, and look up its last row."""
    ways = [] if subject.backend.compiled else list(replaced(subject))
    for place, options in enumerate(subject.option_sets()):
        for told, put, rows in ways if not options else ways[place % 4 :: 4]:
            for pass_ in (serve, run):
                look_up = partial(_replaced, subject, put, rows, pass_, options)
                try:
                    wanted = look_up("train")
                except Exception:  # module.padding-fixed tells
                    continue
                which = f"{told}{described(options)}, in eval mode{_UNDER[pass_]}"
                yield SameBehaviour(which, look_up("eval"), wanted)
    for told, put, rows in ways:
        ids = subject.ids([rows])
        if refuses(made_of_height(subject, rows), ids):
            module = subject.filled().eval()
            put(module, of_height(subject, rows))
            yield attempt(f"index {rows} of {told}, in eval mode", partial(serve, module, ids))


_UNDER: Final = {run: "", serve: " under no_grad"}


def _replaced(  # noqa: PLR0917
    subject: Subject, put: Put, rows: int, pass_: Pass, options: dict[str, Any], mode: str
) -> Behaviour:
    """Make a module, put a table of another height in its place, and look up its last row."""
    module = subject.filled(**options).train(mode == "train")
    put(module, of_height(subject, rows))
    return pass_(module, ids_of(subject, rows))


def _frozen_in_eval(subject: Subject, ids: torch.Tensor, options: dict[str, Any]) -> SameBehaviour:
    """Compare frozen modules in eval mode and in train mode."""
    trained, served = (subject.filled(**options).requires_grad_(False) for _ in range(2))
    which = f"a frozen module in eval mode{described(options)}"
    return SameBehaviour(which, run(served.eval(), ids), run(trained, ids))


def _moved_while_serving(subject: Subject, options: dict[str, Any]) -> SameBehaviour:
    """Move the table of a module that serves, then write to it."""
    moved, fresh = (subject.filled(**options).eval() for _ in range(2))
    ids = subject.ids(IDS * 7)  # enough for what is only worth it for many
    serve(moved, ids)
    moved.weight.data = moved.weight.data.clone()
    for module in (moved, fresh):
        module.weight.data.fill_(0.125)
    which = f"a module in eval mode whose table moved and changed{described(options)}"
    return SameBehaviour(which, serve(moved, ids), serve(fresh, ids))


def zero_grad(subject: Subject) -> Claims:
    """See that zero_grad forgets the gradient, by dropping it or by filling it with zeros."""
    for options in subject.option_sets():
        if "max_norm" in options:
            continue
        module = subject.filled(**options)
        _backward(module, subject.ids([0, 2, 2]))
        wanted = to_numpy(module.weight.grad.to_dense())
        for forget, upstream in _FORGOTTEN[: None if not options else 3]:
            module.weight.grad = None
            _backward(module, subject.ids([4, 2, 3]), upstream)
            module.zero_grad(set_to_none=forget)
            call = f"zero_grad(set_to_none={forget}){described(options)}"
            call += "" if upstream == 1.0 else f" of a gradient that held {upstream}"
            left = module.weight.grad
            if forget:
                yield Must(left is None, f"after {call} the table still has a gradient")
            else:
                values = np.ones(1) if left is None else to_numpy(left.to_dense())
                wrong = f"after {call} the gradient is not zeros"
                yield SameValues(values, np.zeros_like(values), wrong)
            _backward(module, subject.ids([0, 2, 2]))
            got = to_numpy(module.weight.grad.to_dense())
            yield SameBits(f"the gradient of the pass after {call}", got, wanted)
        yield from _forgets_frozen(module, subject.ids([4, 2, 3]), described(options))
    if subject.backend.compiled:
        return
    for kind, module, _ in on_tables(subject, trainable=True):
        _backward(module, subject.ids([4, 2, 3]), float("inf"))
        module.zero_grad(set_to_none=False)
        values = to_numpy(module.weight.grad)
        wrong = f"after zero_grad(set_to_none=False) of {kind} the gradient is not zeros"
        yield SameValues(values, np.zeros_like(values), wrong)


_FORGOTTEN: Final = (
    (True, 1.0),
    (False, 1.0),
    (False, float("nan")),
    (False, float("inf")),
    (True, float("nan")),
    (False, 2.0**100),
)
"""What set_to_none is, and the upstream gradient of the pass that is forgotten."""


def _forgets_frozen(module: Any, ids: torch.Tensor, told: str) -> Claims:
    """Freeze a table that has a gradient, in eval mode, and forget that."""
    _backward(module, ids)
    module.eval().requires_grad_(False)
    for forget in (False, True):
        module.zero_grad(set_to_none=forget)
        left = module.weight.grad
        forgotten = left is None or (not forget and not bool(left.to_dense().any()))
        call = f"zero_grad(set_to_none={forget}) of a frozen module in eval mode{told}"
        yield Must(forgotten, f"after {call} the table still has a gradient")


def _backward(module: Any, ids: torch.Tensor, upstream: float = 1.0) -> None:
    (module(ids) * upstream).sum().backward()


def freezing(subject: Subject) -> Claims:
    """See requires_grad_(False), and True again."""
    ids = subject.ids()
    for options in subject.option_sets():
        wanted = run(subject.filled(**options), ids)
        still = subject.constant(0.125, trainable=False, **options)
        module = subject.filled(**options)
        module(ids)
        module.requires_grad_(False)
        which = f"a module after requires_grad_(False){described(options)}"
        module.weight.data.fill_(0.125)
        yield SameBehaviour(which, run(module, ids), still)
        module.weight.data.copy_(subject.values())
        module.requires_grad_(True)
        which = f"a module trainable again{described(options)}"
        yield SameBehaviour(which, run(module, ids), wanted)
    yield from _left_alone(subject)
    yield from frozen.switched(subject)
    yield from frozen.served(subject, (("frozen", "train", 50), ("frozen", "eval", 1)))


NO_WRITES: Final[dict[str, Callable[[Any], Any]]] = {
    "state_dict()": lambda module: module.state_dict(),
    "state_dict(keep_vars=True)": lambda module: module.state_dict(keep_vars=True),
    "parameters()": lambda module: list(module.parameters()),
    "repr": repr,
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "apply": lambda module: module.apply(lambda _: None),
    "eval()": lambda module: module.eval(),
    "train()": lambda module: module.train(),
    "requires_grad_(False)": lambda module: module.requires_grad_(False),
    "requires_grad_(True)": lambda module: module.requires_grad_(True),
    "zero_grad()": lambda module: module.zero_grad(),
    "to(its own dtype)": lambda module: module.to(module.weight.dtype),
}
"""What can be asked of a module that has nothing to write to its table."""


def _left_alone(subject: Subject) -> Claims:
    """See that a module stays frozen or trainable, whatever it is asked but requires_grad_."""
    dtypes = [getattr(torch, name) for name in subject.backend.capabilities.dtypes]
    calls: dict[str, Callable[[Any], Any]] = {
        **{call: make for call, make in NO_WRITES.items() if "requires_grad" not in call},
        "load_state_dict()": lambda module: module.load_state_dict(module.state_dict()),
        **{f"to({dtype})": partial(_cast, dtype) for dtype in dtypes},
        "eval() and train() of a model": lambda module: torch.nn.Sequential(module).eval().train(),
        "apply of train()": lambda module: module.apply(lambda each: each.train()),
    }
    for options in ({}, subject.richest()):
        for call, make in calls.items():
            for trainable in (False,) if options else (False, True):
                module = subject.filled(**options)
                module.weight.requires_grad_(trainable)
                made = make(module)
                for which in (module, made) if "deepcopy" in call else (module,):
                    seen = plain(which.weight.requires_grad)
                    before = "a trainable" if trainable else "a frozen"
                    what = f"requires_grad of {before} table after {call}{described(options)}"
                    yield Equal(what, seen, trainable)


def _cast(dtype: torch.dtype, module: Any) -> Any:
    return module.to(dtype)


def table_kept(subject: Subject) -> Claims:
    """See that the rows are as they were after all that is no lookup, also those over a bound."""
    ids, before = subject.ids(), to_numpy(subject.values())
    bound: dict[str, Any] = {"max_norm": 1.5, "norm_type": 1.0}
    for options in (bound if bound.keys() <= subject.able else {}, subject.richest()):
        module = subject.filled(**options)
        for call, make in NO_WRITES.items():
            make(module)
            yield SameBits(f"the table after {call}{described(options)}", table_of(module), before)
        which = f"a module after {', '.join(NO_WRITES)}{described(options)}"
        yield SameBehaviour(which, run(module, ids), run(subject.filled(**options), ids))
    for options in subject.option_sets():
        module = subject.filled(**options)
        weight = module.weight
        module.eval()
        if not subject.backend.compiled:
            serve(module, ids)
        for call, make in NO_WRITES.items():
            make(module)
            same = module.weight is weight
            yield Must(same, f"after {call}{described(options)} weight is another Parameter")


def padding_fixed(subject: Subject) -> Claims:
    """Put a table of twice as many rows in the place of a module's own, by either way."""
    taken = {put for _, put, rows in replaced(subject) if rows > ROWS}
    if not taken:
        name = type(subject.make()).__name__
        yield Refused(f"{name} takes no table of more rows in the place of weight")
        return
    trials: tuple[tuple[int, str, dict[str, Any]], ...] = (
        (PADDING - ROWS, "weight", {}),
        (PADDING, "weight.data", {}),
        (PADDING - ROWS, "weight.data", {"sparse": True}),
        (PADDING - ROWS, "weight", {"max_norm": 1.0, "scale_grad_by_freq": True}),
    )
    for padding, place, options in subject.few(trials):
        if options.keys() <= subject.able and PUTS[place] in taken:
            yield from _grown(subject, place, {"padding_idx": padding, **options})


def _grown(subject: Subject, place: str, options: dict[str, Any]) -> Claims:
    """Compare a module whose table was replaced with one that was made as tall."""
    rows = 2 * ROWS
    for pass_ in subject.few((run, serve)):
        wanted = pass_(made_of_height(subject, rows, **options), ids_of(subject, rows))
        for mode in subject.few(("train", "eval")):
            seen = _replaced(subject, PUTS[place], rows, pass_, options, mode)
            which = f"a module of {ROWS} rows in {mode} mode{described(options)}, once {place} was "
            which += f"given {rows} rows,{_UNDER[pass_]}"
            yield SameBehaviour(which, seen, wanted)
