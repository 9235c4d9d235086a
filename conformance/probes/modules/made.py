"""What a module's constructor makes, takes and refuses."""

from __future__ import annotations

import inspect
from functools import partial
from itertools import combinations, product
from typing import Any, Final

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
from embconform.conformance.probes.modules.changes import of_height, replaced
from embconform.conformance.probes.modules.claims import PaddingRow, Shows
from embconform.conformance.probes.modules.common import (
    PADDING,
    ROWS,
    WIDTH,
    Claims,
    Subject,
    combinations_of,
    described,
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
from embconform.conformance.probes.modules.layouts import on_tables
from embconform.conformance.recording import attempt, plain
from embconform.reference.clause import Profile
from embconform.reference.dtypes import Array

BEGIN: Final = 6
"""Rows of a large table that are compared with another table's, from either end."""
LEAST: Final = 8
"""Values that tables of two shapes may not begin with both: torch makes normal values from uniform
ones by eights, and those of a table's end twice."""
LARGE: Final = (WIDE, TALL)
"""Shapes of tables that may be drawn by another method than small ones."""
_MISFITS: Final[tuple[tuple[int, ...], ...]] = (
    (ROWS, WIDTH + 1),
    (ROWS, WIDTH - 1),
    (ROWS, 1),
    (ROWS + 1, WIDTH),
    (ROWS - 1, WIDTH),
    (1, WIDTH),
    (0, WIDTH),
    (WIDTH, ROWS),
    (ROWS * WIDTH,),
    (1, ROWS, WIDTH),
)
"""Shapes of a table that does not fit."""


def parameter(subject: Subject) -> Claims:
    """See that weight is the only parameter, and trainable."""
    for options in combinations_of(subject.able):
        module = subject.filled(**options)
        yield from _weight_alone(module, described(options))
        if not subject.backend.compiled:
            module(subject.ids())  # what it needs for calls is no parameter
            yield from _weight_alone(module, f"{described(options)} after a call")
    for rows, width in (TALL, WIDE):
        module = subject.make(rows, width)
        yield from _weight_alone(module, f" of {rows} x {width}", (rows, width))


def _weight_alone(module: Any, which: str, shape: tuple[int, int] = (ROWS, WIDTH)) -> Claims:
    found = [(str(name), tuple(value.shape)) for name, value in module.named_parameters()]
    yield Equal(f"parameters of a module{which}", found, [("weight", shape)])
    seen = plain(module.weight.requires_grad)
    yield Equal(f"weight.requires_grad of a module{which}", seen, True)


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
    if not subject.backend.compiled:
        yield from _redrawn_in_place(subject)
    for tall in (TALL, (WIDTH, ROWS)):
        module = subject.make(*tall)
        first = table_of(module)[:BEGIN]
        module.reset_parameters()
        second = table_of(module)
        yield Different(first, second[:BEGIN], "reset_parameters draws what the constructor drew")
        module.reset_parameters()
        again = table_of(module)[:BEGIN]
        yield Different(second[:BEGIN], again, "reset_parameters draws the same table twice")
        yield NoneTwice(what, second)
    if padding is not None and subject.profile is Profile.TORCH:
        module = subject.make(*shape, padding_idx=-2)
        module.reset_parameters()
        yield PaddingRow(what, table_of(module), shape, -2, subject.profile)


def _redrawn_in_place(subject: Subject) -> Claims:
    """Draw tables anew that were put in the place of the first, cast, frozen, or are views."""
    options: Any = {"padding_idx": PADDING} if "padding_idx" in subject.able else {}
    kinds = list(on_tables(subject, trainable=True, **options))
    for kind, put, rows in replaced(subject):
        module, given = subject.filled(**options), of_height(subject, rows)
        put(module, given)
        kinds.append((kind, module, given))
    for trainable, (kind, module, given) in product((True, False), kinds):
        weight = module.weight.requires_grad_(trainable)
        given.fill_(7.0)
        module.reset_parameters()
        what = f"{kind}{'' if trainable else ', frozen'}, after reset_parameters"
        same = module.weight is weight and weight.data_ptr() == given.data_ptr()
        yield Must(same, f"{what} is another Parameter, or in other memory")
        yield Equal(f"requires_grad of {what}", plain(weight.requires_grad), trainable)
        yield from _all_drawn(subject, what, module, given, options)
    for dtype in [getattr(torch, name) for name in subject.backend.capabilities.dtypes]:
        module = subject.filled(**options).to(dtype)
        weight = module.weight.data.fill_(7.0)
        module.reset_parameters()
        what = f"a table cast to {dtype}, after reset_parameters,"
        yield from _all_drawn(subject, what, module, weight, options)


def _all_drawn(
    subject: Subject, what: str, module: Any, held: torch.Tensor, options: dict[str, Any]
) -> Claims:
    """See a table that held sevens, of which a draw of that size has none."""
    table, shape = table_of(module), (held.shape[0], held.shape[1])
    yield Equal(f"the dtype of {what}", str(module.weight.dtype), str(held.dtype))
    yield Equal(f"the shape of {what}", table.shape, shape)
    yield Must(not bool((table == 7.0).any()), f"{what} holds values from before")
    if options:
        yield PaddingRow(what, table, shape, PADDING, subject.profile)


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
    padded = {"padding_idx": PADDING} if "padding_idx" in subject.able else {}
    for shape in ((6, 4), *LARGE):
        yield from _in_turn(subject, shape, {})
    yield from _in_turn(subject, WIDE, padded)
    yield from _of_two_sizes(subject)


def _in_turn(subject: Subject, shape: tuple[int, int], options: dict[str, Any]) -> Claims:
    """Draw twice by one seed, and once by another."""

    def draw(seed: int) -> Array:
        torch.manual_seed(seed)
        return table_of(subject.make(*shape, **options))

    first, second = draw(subject.seed), table_of(subject.make(*shape, **options))
    again, other = draw(subject.seed), draw(subject.seed + 1)
    told = f" of {shape[0]} x {shape[1]}{described(options)}"
    wrong = f"torch.manual_seed does not reproduce a new table{told}"
    yield SameValues(again[:BEGIN], first[:BEGIN], wrong)
    yield SameValues(again[-BEGIN:], first[-BEGIN:], wrong)
    wrong = f"two tables{told}, drawn one after the other, are equal"
    yield Different(first[:BEGIN], second[:BEGIN], wrong)
    yield Different(first[-BEGIN:], second[-BEGIN:], wrong)
    wrong = f"two tables{told}, drawn by different seeds, are equal"
    yield Different(first[:BEGIN], other[:BEGIN], wrong)


def _of_two_sizes(subject: Subject) -> Claims:
    """Draw tables of different shapes in turn: none begins as another does."""
    torch.manual_seed(subject.seed)
    shapes = (SHAPES[1], (6, 4), *LARGE, (5, 7))
    begun = {shape: table_of(subject.make(*shape)).reshape(-1)[:LEAST] for shape in shapes}
    for one, other in combinations(shapes, 2):
        wrong = f"a table of {one} and one of {other}, drawn in turn, begin with the same values"
        yield Different(begun[one], begun[other], wrong)


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
    for mode in subject.few(("train", "eval")):
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
    for options in subject.option_sets():
        for shape in _MISFITS:
            call = f"Embedding({ROWS}, {WIDTH}, _weight=<shape {shape}>){described(options)}"
            misfit = torch.ones(shape, dtype=subject.dtype)
            yield attempt(call, partial(subject.make, _weight=misfit, **options))
        table = subject.values()
        given, seen = to_numpy(table), table_of(subject.make(_weight=table, **options))
        wrong = f"a module made with _weight{described(options)} does not hold it"
        yield SameValues(seen, given, wrong)
