"""What a module keeps in a checkpoint and takes from one, alone and in a model."""

from __future__ import annotations

from functools import partial
from itertools import islice
from typing import Any, Final

from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy
from embconform.conformance.probes.claims import Equal, Must, SameBits, SameValues
from embconform.conformance.probes.modules import checkpoints
from embconform.conformance.probes.modules.changes import after_changes
from embconform.conformance.probes.modules.claims import CastOf, SameBehaviour
from embconform.conformance.probes.modules.common import (
    Claims,
    Subject,
    combinations_of,
    described,
    run,
    table_of,
)
from embconform.conformance.probes.modules.layouts import on_tables
from embconform.conformance.recording import attempt, plain


def state(subject: Subject) -> Claims:
    """See what state_dict holds and that another module takes it."""
    torch.manual_seed(subject.seed)
    padded = {"padding_idx": 2} if "padding_idx" in subject.able else {}
    source, other = (subject.make(6, 4, **padded) for _ in range(2))
    source.weight.data += 0.5  # a loaded padding row need not be 0
    ids = subject.ids([0, 5, 2])
    other(ids)
    yield Equal("list(state_dict())", [str(key) for key in source.state_dict()], ["weight"])
    other.load_state_dict(source.state_dict())
    wrong = "after load_state_dict the module does not look up the loaded rows"
    yield SameValues(table_of(other), table_of(source), wrong)
    yield SameValues(to_numpy(other(ids)), to_numpy(source(ids)), wrong)
    options = subject.richest()
    held = to_numpy(subject.filled(**options).state_dict()["weight"])
    what = f"weight in a state_dict{described(options)}"
    yield SameBits(what, held, to_numpy(subject.values()))
    for options in combinations_of(subject.able):
        module = subject.filled(**options)
        if not subject.backend.compiled:
            module(subject.ids())  # what it keeps of calls is no state
        yield from _holds_references(module, described(options))
        module.load_state_dict({"weight": subject.values()})
    if not subject.backend.compiled:
        yield from checkpoints.hooked(subject)
    for options in ({}, subject.richest()):
        for trainable in (True, False):
            for kind, module, given in on_tables(subject, trainable=trainable, **options):
                told = f" of a module on {kind}{'' if trainable else ', frozen'}"
                yield from _holds_references(module.train(trainable), told + described(options))
                module.state_dict()["weight"][2] = 8.0
                what = f"{kind}, after row 2 of its state_dict's weight was set to 8.0"
                yield Equal(what, float(given[2, 0]), 8.0)


def _holds_references(module: Any, told: str) -> Claims:
    """See that a state_dict holds the table itself, alone and under the name that a model gives."""
    held = module.state_dict()
    yield Equal(f"list(state_dict()){told}", [str(key) for key in held], ["weight"])
    same = held["weight"].data_ptr() == module.weight.data_ptr()
    yield Must(same, f"weight in a state_dict{told} is a copy; it must refer to the table")
    kept = module.state_dict(keep_vars=True)["weight"] is module.weight
    yield Must(kept, f"state_dict(keep_vars=True){told} does not hold the Parameter")
    model = torch.nn.ModuleDict({"first": module, "last": torch.nn.Linear(1, 1, bias=False)})
    keys = [str(key) for key in model.state_dict()]
    yield Equal(f"list(state_dict()) of a model{told}", keys, ["first.weight", "last.weight"])


def load_copies(subject: Subject) -> Claims:
    """See that loading writes into the table as it stands: same Parameter, dtype and memory."""
    module = subject.filled()
    weight, address = module.weight, module.weight.data_ptr()
    loaded = {**module.state_dict(), "weight": subject.values(torch.float64) * (1 + 3 * 2.0**-25)}
    given, dtype = to_numpy(loaded["weight"]), str(weight.dtype).removeprefix("torch.")
    module.load_state_dict(loaded)
    yield Must(
        module.weight is weight, "load_state_dict puts another Parameter in the place of weight"
    )
    yield Must(weight.data_ptr() == address, "load_state_dict moves weight to other memory")
    yield CastOf("a table that loaded float64", table_of(module), given, dtype)
    loaded = {**module.state_dict(), "weight": subject.values().clone()}
    module.load_state_dict(loaded)
    loaded["weight"].fill_(9.0)
    given = to_numpy(subject.values())
    yield SameBits("a table whose checkpoint changed", table_of(module), given)
    strided = (subject.values() * 2).t().contiguous().t()
    module.load_state_dict({**module.state_dict(), "weight": strided})
    what = "a table that loaded a transposed tensor"
    yield SameBits(what, table_of(module), to_numpy(strided))
    for options in ({}, subject.richest()):
        for trainable in (True, False):
            module = subject.filled(**options)
            module.weight.requires_grad_(trainable)
            told = f"{'' if trainable else ', frozen'}{described(options)}"
            yield from _written_to(subject, module, f"a table{told}")
            for kind, module, taken in on_tables(subject, trainable=trainable, **options):
                yield from _written_to(subject, module.train(trainable), f"{kind}{told}", 2)
                seen = to_numpy(taken)
                yield SameBits(f"what was {kind}{told}, once loaded,", seen, table_of(module))
    yield from after_changes(subject, _reloaded, "what a checkpoint makes of", _negated)
    if not subject.backend.compiled:
        yield from checkpoints.left_alone(subject)


def _reloaded(module: Any) -> Any:
    module.load_state_dict({"weight": -module.weight.detach()})
    return module


def _negated(module: Any) -> Any:
    module.weight.data.neg_()
    return module


def _written_to(subject: Subject, module: Any, which: str, number: int | None = None) -> Claims:
    """Load checkpoints of all kinds, or some, one after the other, each of which changes later."""
    weight, address, values = module.weight, module.weight.data_ptr(), subject.values()
    trainable = plain(weight.requires_grad)
    checkpoints = {
        "a tensor": values * 2,
        "a transposed tensor": (values * 3).t().contiguous().t(),
        "a Parameter": torch.nn.Parameter(values * 4),
        "a frozen Parameter": torch.nn.Parameter(values * 5, requires_grad=False),
    }
    for kind, loaded in islice(checkpoints.items(), number):
        given, what = to_numpy(loaded), f"{which} that loaded {kind}"
        module.load_state_dict({**module.state_dict(), "weight": loaded})
        yield SameBits(what, table_of(module), given)
        loaded.data.fill_(9.0)
        yield SameBits(f"{what}, which changed since,", table_of(module), given)
        same = module.weight is weight and weight.data_ptr() == address
        yield Must(same, f"{what} is another Parameter, or in other memory")
        yield Equal(f"requires_grad of {what}", plain(weight.requires_grad), trainable)


def load_strict(subject: Subject) -> Claims:
    """See what load_state_dict refuses."""
    right = subject.values() * 2
    wrong = {
        "without weight": {},
        "with an unexpected key": {"weight": right, "other": right},
        "with too many rows": {"weight": torch.cat([right, right])},
        "with too few rows": {"weight": right[:-1]},
        "with too few columns": {"weight": right[:, :-1]},
        "with a row of one column": {"weight": right[:, :1]},
        "with one row": {"weight": right[:1]},
        "with a dimension too many": {"weight": right[None]},
    }
    for options in subject.option_sets():
        module = subject.filled(**options)  # a refused table leaves it as usable as it was
        for what, checkpoint in wrong.items():
            load = partial(module.load_state_dict, checkpoint)
            told = f"load_state_dict of a checkpoint {what}{described(options)}"
            yield attempt(told, load)
    for options in ({}, subject.richest()):
        yield from _missing(subject, options)
        for trainable in (True, False):
            yield from _unexpected(subject, trainable, options)
    module = subject.filled()
    module.load_state_dict({"other": right}, strict=False)
    kept = to_numpy(subject.values())
    yield SameBits("a table after strict=False found no weight", table_of(module), kept)


def _missing(subject: Subject, options: dict[str, Any]) -> Claims:
    """See that the table is missed, trainable or frozen, by its name in the model."""
    for trainable in (True, False):
        module = subject.filled(**options)
        module.weight.requires_grad_(trainable)
        model = torch.nn.ModuleDict({"first": module})
        which = f"a model with a {'trainable' if trainable else 'frozen'} table{described(options)}"
        yield attempt(f"load_state_dict({{}}) of {which}", partial(model.load_state_dict, {}))
        missing = model.load_state_dict({}, strict=False).missing_keys
        told = f"missing_keys of load_state_dict({{}}, strict=False) of {which}"
        yield Equal(told, [str(key) for key in missing], ["first.weight"])


_NAMES: Final = ("other", "steps", "weight_other", "weight.other", "other.weight")


def _unexpected(subject: Subject, trainable: bool, options: dict[str, Any]) -> Claims:
    """See that a key that has no place is refused and named, whatever it is called and holds."""
    module = subject.filled(**options)
    module.weight.requires_grad_(trainable)
    model = torch.nn.ModuleDict({"first": module})
    which = f"a {'trainable' if trainable else 'frozen'} table{described(options)}"
    held: dict[str, torch.Tensor] = {
        "a table": subject.values(),
        "a number": torch.tensor(2.0),
        "an integer": torch.tensor(3),
        "integers": subject.ids(),
        "truth values": torch.ones(4, dtype=torch.bool),
        "nothing": torch.empty(0),
    }
    for place, (kind, value) in enumerate(held.items()):
        for name in _NAMES if place == 0 else (_NAMES[place % len(_NAMES)],):
            checkpoint = module.state_dict()
            checkpoint[name] = value
            told = f"load_state_dict of {which} with {kind} as {name!r}"
            yield attempt(told, partial(module.load_state_dict, checkpoint))
            for owner, prefix in ((module, ""), (model, "first.")):
                checkpoint = {f"{prefix}weight": subject.values(), f"{prefix}{name}": value}
                unknown = owner.load_state_dict(checkpoint, strict=False).unexpected_keys
                told = f"unexpected_keys of a checkpoint of {which} with {kind} as {name!r}"
                yield Equal(told, [str(key) for key in unknown], [f"{prefix}{name}"])


def load_assign(subject: Subject) -> Claims:
    """See that a loaded tensor takes the table's place, and only requires_grad stays."""
    dtypes = [getattr(torch, name) for name in subject.backend.capabilities.dtypes]
    ids = subject.ids()
    for options in ({}, subject.richest()):
        for trainable in (True, False):
            for dtype in subject.few(dtypes[:2]):
                module = subject.filled(**options)
                module.weight.requires_grad_(trainable)
                loaded = torch.full_like(module.weight, 0.25, dtype=dtype, requires_grad=False)
                module.load_state_dict({"weight": loaded}, assign=True)
                frozen = "" if trainable else ", frozen"
                which = f"a module{described(options)}{frozen}, assigned a table of {dtype},"
                seen = plain(module.weight.requires_grad)
                yield Equal(f"requires_grad of the table of {which}", seen, trainable)
                shared = module.weight.data_ptr() == loaded.data_ptr()
                yield Must(shared, f"{which} holds a copy of it")
                loaded.fill_(0.125)
                wanted = subject.constant(0.125, trainable=trainable, dtype=dtype, **options)
                yield SameBehaviour(which, run(module, ids), wanted)
