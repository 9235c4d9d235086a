"""What a module's constructor makes, takes and refuses."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import numpy as np

from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import to_numpy
from embconform.conformance.probes.claims import (
    Different,
    Equal,
    Must,
    Odd,
    Refused,
    SameBits,
    SameValues,
)
from embconform.conformance.probes.modules.claims import PaddingRow, Shows
from embconform.conformance.probes.modules.common import (
    PADDING,
    ROWS,
    WIDTH,
    Claims,
    Subject,
    table_of,
    takes,
)
from embconform.conformance.probes.modules.draws import (
    DRAWS,
    REDRAWN,
    SHAPES,
    TALL,
    WIDE,
    Drawn,
    DrawnEverywhere,
    NoneTwice,
)
from embconform.conformance.recording import attempt, plain
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array


def parameter(subject: Subject) -> Claims:
    """See that weight is the only parameter, and trainable."""
    module = subject.make(5, 3)
    found = [(str(name), tuple(value.shape)) for name, value in module.named_parameters()]
    yield Equal("parameters", found, [("weight", (5, 3))])
    yield Equal("weight.requires_grad", plain(module.weight.requires_grad), True)


def drawn(subject: Subject) -> Claims:
    """See new tables of two shapes."""
    torch.manual_seed(subject.seed)
    for shape in SHAPES:
        yield Drawn("a new table", table_of(subject.make(*shape)), shape, subject.profile)
    for shape in REDRAWN:
        tables = tuple(table_of(subject.make(*shape)) for _ in range(DRAWS))
        yield DrawnEverywhere("a new table", tables)
    for shape in (TALL, WIDE):
        yield NoneTwice("a new table", table_of(subject.make(*shape)))


def redrawn(subject: Subject) -> Claims:
    """See what reset_parameters draws, and that the padding row is as in a new table."""
    torch.manual_seed(subject.seed + 1)
    shape = SHAPES[1]
    padding = 3 if "padding_idx" in subject.able else None
    module = subject.make(*shape, **({} if padding is None else {"padding_idx": padding}))
    if not callable(getattr(module, "reset_parameters", None)):
        yield Refused(f"{type(module).__name__} has no reset_parameters")
        return
    weight = module.weight
    weight.data.fill_(7.0)
    module.reset_parameters()
    yield Must(
        module.weight is weight, "reset_parameters puts another Parameter in the place of weight"
    )
    what, table = "a table after reset_parameters", table_of(module)
    if padding is not None:
        yield PaddingRow(what, table, shape, padding, subject.profile)
    yield Drawn(what, table, shape, subject.profile, padding)
    module = subject.make(*TALL)
    module.reset_parameters()
    yield NoneTwice(what, table_of(module))
    if padding is not None and subject.profile is Profile.TORCH:
        module = subject.make(*shape, padding_idx=-2)
        module.reset_parameters()
        yield PaddingRow(what, table_of(module), shape, -2, subject.profile)


def padding_row(subject: Subject) -> Claims:
    """See row padding_idx of new tables, and that the other rows are drawn."""
    torch.manual_seed(subject.seed)
    paddings = (0, 2, 6, -2) if subject.profile is Profile.TORCH else (0, 2, 6)
    for padding in paddings:
        table = table_of(subject.make(7, 5, padding_idx=padding))
        yield PaddingRow("a new table", table, (7, 5), padding, subject.profile)
    if not takes(type(subject.make()), "dtype"):
        return
    for name in subject.backend.capabilities.dtypes:
        made = subject.make(7, 5, padding_idx=paddings[-1], dtype=getattr(torch, name))
        what = f"a new table of {name}"
        yield PaddingRow(what, table_of(made), (7, 5), paddings[-1], subject.profile)


def seeded(subject: Subject) -> Claims:
    """See that torch.manual_seed rules the draw."""

    def draw() -> tuple[Array, Array]:
        torch.manual_seed(subject.seed)
        return table_of(subject.make(6, 4)), table_of(subject.make(6, 4))

    (first, second), (again, _) = draw(), draw()
    yield SameValues(first, again, "torch.manual_seed does not reproduce a new table")
    yield Different(first, second, "two tables drawn one after the other are equal")


def dtype_argument(subject: Subject) -> Claims:
    """See the dtype of the table that the constructor makes."""
    for name in subject.backend.capabilities.dtypes:
        module = subject.make(dtype=getattr(torch, name))
        seen = str(module.weight.dtype).removeprefix("torch.")
        yield Equal(f"weight.dtype with dtype=torch.{name}", seen, name)
        out = str(module(subject.ids()).dtype).removeprefix("torch.")
        yield Equal(f"the output's dtype with dtype=torch.{name}", out, name)


def argument_names(subject: Subject) -> Claims:
    """Name what has a place of its own: both sizes, the indices, and a given table."""
    assert subject.backend.module is not None
    sizes = {"num_embeddings": ROWS, "embedding_dim": WIDTH}
    make = partial(subject.backend.module, dtype=subject.dtype)
    made, calls = make(**sizes), "Embedding(num_embeddings=..., embedding_dim=...)"
    yield Equal(f"the shape of weight of {calls}", tuple(made.weight.shape), (ROWS, WIDTH))
    ids = subject.ids()
    for mode in ("train", "eval")[: 1 if subject.backend.compiled else None]:
        module = subject.filled().train(mode == "train")
        wanted, got = to_numpy(module(ids)), to_numpy(module(input=ids))
        yield SameBits(f"the output of module(input=indices) in {mode} mode", got, wanted)
    pretrained = getattr(type(made), "from_pretrained", None)
    if callable(pretrained):
        table = table_of(pretrained(embeddings=subject.values()))
        yield SameBits("the table of from_pretrained(embeddings=table)", table, table_of(module))


def attributes(subject: Subject) -> Claims:
    """See the attributes that repeat the constructor's arguments."""
    given: dict[str, Any] = {
        "padding_idx": PADDING,
        "max_norm": 1.5,
        "norm_type": 1.0,
        "scale_grad_by_freq": True,
        "sparse": True,
    }
    given = {name: value for name, value in given.items() if name in subject.able}
    module = subject.make(**given)
    for name, value in {"num_embeddings": ROWS, "embedding_dim": WIDTH, **given}.items():
        seen = getattr(module, name, "missing")
        yield Equal(f"module.{name}", plain(seen) if np.isscalar(seen) else Odd(str(seen)), value)


def padding_normalised(subject: Subject) -> Claims:
    """See the attribute padding_idx of a module made with a negative one."""
    for negative in (-1, -ROWS):
        module = subject.make(padding_idx=negative)
        if not hasattr(module, "padding_idx"):
            yield Refused(f"{type(module).__name__} has no attribute padding_idx")
            return
        call = f"Embedding({ROWS}, {WIDTH}, padding_idx={negative})"
        seen = module.padding_idx
        seen = seen.item() if isinstance(seen, torch.Tensor) and seen.numel() == 1 else seen
        yield Equal(f"module.padding_idx of {call}", plain(seen), ROWS + negative)


def shown(subject: Subject) -> Claims:
    """See what repr says."""
    text = str(repr(subject.make(17, 29)))
    for what, size in (("num_embeddings", 17), ("embedding_dim", 29)):
        yield Shows("Embedding(17, 29)", text, what, size)


def padding_out_of_range(subject: Subject) -> Claims:
    """See that the constructor refuses a padding_idx outside the table."""
    for padding in (ROWS, -ROWS - 1, 2**40):
        call = f"Embedding({ROWS}, {WIDTH}, padding_idx={padding})"
        yield attempt(call, partial(subject.make, padding_idx=padding))
    for padding in (ROWS - 1, -ROWS):
        subject.make(padding_idx=padding)


def weight_shape(subject: Subject) -> Claims:
    """See the constructor's argument _weight."""
    cls = type(subject.make())
    if "_weight" not in inspect.signature(cls).parameters:
        yield Refused(f"{cls.__name__} has no argument _weight")
        return
    for shape in ((ROWS, WIDTH + 1), (ROWS + 1, WIDTH), (WIDTH, ROWS), (ROWS * WIDTH,)):
        call = f"Embedding({ROWS}, {WIDTH}, _weight=<shape {shape}>)"
        yield attempt(call, partial(subject.make, _weight=torch.ones(shape)))
    table = subject.values()
    given, seen = to_numpy(table), table_of(subject.make(_weight=table))
    yield SameValues(seen, given, "a module made with _weight does not hold it")
