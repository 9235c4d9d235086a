"""What torch's default dtype and device make of a module, and modules without memory."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any, Final

from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.claims import Equal, Refused
from embconform.conformance.probes.default_dtype import OFTEN, default_dtype
from embconform.conformance.probes.modules.claims import PaddingRow, SameBehaviour
from embconform.conformance.probes.modules.common import (
    PADDING,
    ROWS,
    WIDTH,
    Claims,
    Subject,
    described,
    run,
    table_of,
)
from embconform.conformance.probes.modules.draws import SHAPES, Drawn

_OTHERS: Final = ("float64", "bfloat16", "float16")


def dtype_by_default(subject: Subject) -> Claims:
    """See the dtype of tables made without one, and lookups, under another default dtype."""
    dtypes = [getattr(torch, name) for name in subject.backend.capabilities.dtypes]
    for default, given in zip(dtypes, dtypes[1:] + dtypes[:1], strict=True):
        with default_dtype(default):
            made = {default: subject.make(), given: subject.make(dtype=given)}
        for wanted, module in made.items():
            call = f"a default of {default} and dtype={given}" * (wanted is given)
            what = f"weight.dtype under {call or f'a default of {default}'}"
            yield Equal(what, str(module.weight.dtype), str(wanted))
    ids = subject.ids([PADDING] * 3 + [3] * OFTEN)  # more than a half float counts
    able: Any = {"scale_grad_by_freq": True} if "scale_grad_by_freq" in subject.able else {}
    for options in subject.few(({}, able, subject.richest())):
        wanted = run(subject.filled(**options), ids)
        for default in subject.few(_OTHERS):
            with default_dtype(getattr(torch, default)):
                got = run(subject.filled(dtype=subject.dtype, **options), ids)
            which = f"a module under a default of torch.{default}{described(options)}"
            divided = OFTEN if options.get("scale_grad_by_freq") else 0
            yield SameBehaviour(which, got, wanted, divided)


def device_by_context(subject: Subject) -> Claims:
    """See on which device tables are made where torch has another default device."""
    own = subject.values().device
    takes_device = "device" in inspect.signature(type(subject.make())).parameters
    for options in ({}, subject.richest()):
        make = partial(subject.make, dtype=subject.dtype, **options)
        told = described(options)
        try:
            with torch.device("meta"):
                module = make()
        except Exception as error:
            yield Refused(f"a module can't be made under torch.device('meta'): {error}")
            return
        seen = module.weight.device.type
        yield Equal(f"weight's device, made under torch.device('meta'){told}", seen, "meta")
        if takes_device:
            with torch.device("meta"):
                module = make(device=own)
            what = f"weight's device, made with device='{own}' under torch.device('meta'){told}"
            yield Equal(what, module.weight.device.type, own.type)
        what = f"weight's device, made after torch.device('meta'){told}"
        yield Equal(what, make().weight.device.type, own.type)


def meta(subject: Subject) -> Claims:
    """See modules made on the meta device, by its context and by argument."""
    options = subject.richest()
    with torch.device("meta"):
        module = subject.make(dtype=subject.dtype)
    yield from _filled_later(subject, module, "made under torch.device('meta')", {})
    if "device" in inspect.signature(type(module)).parameters:  # as skip_init asks
        module = subject.make(device="meta", dtype=subject.dtype, **options)
        yield from _filled_later(subject, module, "made with device='meta'", options)


def _filled_later(subject: Subject, module: Any, how: str, options: dict[str, Any]) -> Claims:
    """Bring a module from the meta device to memory, and compare it with one made there."""
    which, weight, values = f"a module {how}{described(options)}", module.weight, subject.values()
    seen = (weight.device.type, str(weight.dtype), tuple(weight.shape))
    held = ("meta", str(subject.dtype), (ROWS, WIDTH))
    yield Equal(f"device, dtype and shape of weight of {which}", seen, held)
    module.to_empty(device=values.device)
    module.load_state_dict({"weight": values})
    wanted = run(subject.filled(**options), subject.ids())
    which = f"{which}, brought to memory and loaded,"
    yield SameBehaviour(which, run(module, subject.ids()), wanted)


def redrawn(subject: Subject) -> Claims:
    """Make a module without memory, give it some, and draw its table, as large models are made."""
    cls = type(subject.make())
    if not callable(getattr(cls, "reset_parameters", None)):
        yield Refused(f"{cls.__name__} has no reset_parameters")
        return
    torch.manual_seed(subject.seed + 2)
    padding = 3 if "padding_idx" in subject.able else None
    options = {} if padding is None else {"padding_idx": padding}
    device = subject.values().device
    try:
        with torch.device("meta"):
            module = subject.make(*SHAPES[1], dtype=subject.dtype, **options)
        module.to_empty(device=device)
    except Exception:  # module.meta tells
        return
    module.weight.data.fill_(7.0)
    module.reset_parameters()
    what, table = "a table after to_empty and reset_parameters", table_of(module)
    if padding is not None:
        yield PaddingRow(what, table, SHAPES[1], padding, subject.profile)
    yield Drawn(what, table, SHAPES[1], subject.profile, padding)
