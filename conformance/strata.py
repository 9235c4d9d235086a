"""The strata: which structures of a call are forced to appear.

A stratum fixes everything about a call but sizes and values. All pairs of its factors occur
(allpairspy); more budget means as many rows again by chance, hence more triples.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property, lru_cache
from typing import Any, Final, Literal

from allpairspy import AllPairs, pairs_storage

from embconform.backends.backend import Described
from embconform.conformance.case import GRAD_MODES, Entry, GradMode, Layout
from embconform.conformance.layouts import ZERO_STRIDES
from embconform.reference.clause import Profile

Program = Literal[
    "single",
    "repeat",
    "accumulate",
    "retain",
    "two-uses",
    "update-weight",
    "update-indices",
    "stale-backward",
    "double-backward",
    "served",
    "steps",
    "error",
]


@dataclass(frozen=True, order=True)
class Structure:
    """One value for each factor; the defaults are the plainest call."""

    program: Program = "single"
    fault: str = "none"
    entry: Entry = "functional"
    dtype: str = "float32"
    index_dtype: str = "int64"
    rank: int = 1
    size: str = "tiny"
    weight_layout: Layout = "contiguous"
    index_layout: Layout = "contiguous"
    upstream_layout: Layout = "contiguous"
    padding: str = "none"
    bound: str = "none"
    gradient: str = "dense"
    mode: GradMode = "grad"
    table: str = "plain"
    upstream: str = "units"
    deterministic: bool = False

    @cached_property
    def name(self) -> str:
        """The factors that are not at their plainest, as ``factor=value``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        parts = [f"{key}={v}" for key, v in values.items() if v != getattr(PLAIN, key)]
        return " ".join(parts) or "plain"


PLAIN: Final = Structure()
LAYOUTS: Final = (
    "contiguous",
    "transposed",
    "sliced",
    "stepped",
    "offset",
    "expanded",
    "spread",
    "broadcast",
)
BOUNDS: Final = ("none", "p2", "p1", "p0.5", "p3", "pinf", "zero")
PADDINGS: Final = ("none", "zero", "inner", "last", "negative")
EMPTY: Final = ("no-indices", "no-columns", "no-rows")
BACKWARD_ONLY: Final = (
    "accumulate",
    "retain",
    "two-uses",
    "stale-backward",
    "double-backward",
    "served",
    "steps",
)
OUT_OF_RANGE: Final = ("too-large", "negative", "far-positive", "far-negative")
"""Faults of the indices' values, which a device may find only when it is too late."""
COUNTED: Final = ("many", "most", "hot", "crowd", "vast")
MIXED: Final = ("some", "block")
"""Sizes that lie anywhere between the thresholds, indices, rows and columns at once."""

_SINGLE: Final[Mapping[str, Sequence[Any]]] = {
    "entry": ("functional", "module"),
    "dtype": ("float32", "float64", "float16", "bfloat16"),
    "index_dtype": ("int64", "int32"),
    "rank": (1, 2, 0, 3, 4),
    "size": ("tiny", "block", "some", "many", "wide", "one-column", "most", "widest"),
    "weight_layout": LAYOUTS,
    "index_layout": LAYOUTS,
    "upstream_layout": tuple(layout for layout in LAYOUTS if layout != "offset"),
    "padding": PADDINGS,
    "bound": BOUNDS,
    "gradient": ("dense", "sparse", "scaled", "sparse-scaled"),
    "table": ("plain", "special", "tiny", "huge", "spike", "zero-rows"),
    "upstream": ("units", "plain", "ones", "wild", "subnormal", "nonfinite-padding", "nonfinite"),
}
_MODES: Final = GRAD_MODES
_EMPTIES: Final[Mapping[str, Sequence[Any]]] = {
    "size": EMPTY,
    "rank": (1, 2, 3),
    "mode": _MODES,
    **{
        key: _SINGLE[key]
        for key in ("entry", "dtype", "index_dtype", "weight_layout", "padding", "gradient")
    },
    "bound": ("none", "p2"),
}
_WITHOUT_GRADIENT: Final[Mapping[str, Sequence[Any]]] = {
    "mode": _MODES[1:],
    **{
        key: values
        for key, values in _SINGLE.items()
        if key not in ("upstream_layout", "gradient", "upstream")
    },
}
_SEQUENCES: Final[Mapping[str, Sequence[Any]]] = {
    "program": (
        "repeat",
        "accumulate",
        "retain",
        "two-uses",
        "update-weight",
        "update-indices",
        "stale-backward",
        "double-backward",
        "served",
        "steps",
    ),
    **{key: _SINGLE[key] for key in ("entry", "dtype", "index_dtype", "padding", "gradient")},
    "rank": (1, 2, 0, 3),
    "size": ("tiny", "some", "many", "block"),
    "weight_layout": ("contiguous", "sliced", "transposed"),
    "index_layout": ("contiguous", "stepped", "transposed"),
    "upstream_layout": ("contiguous", "transposed", "expanded"),
    "bound": ("none", "p2", "p1"),
    "mode": ("grad", "grad", "no_grad", "frozen", "served"),
    "upstream": ("units", "plain", "wild"),
}
_FAULTS: Final[Mapping[str, Sequence[Any]]] = {
    "program": ("error",),
    "fault": OUT_OF_RANGE,
    "entry": _SINGLE["entry"],
    "dtype": _SINGLE["dtype"],
    "index_dtype": _SINGLE["index_dtype"],
    "rank": (1, 2, 0, 3),
    "size": ("tiny", "some", "block", "crowd", "no-columns", "no-rows"),
    "weight_layout": ("contiguous", "sliced", "transposed", "offset"),
    "index_layout": ("contiguous", "stepped", "transposed"),
    "padding": ("none", "zero", "inner", "last"),
    "bound": ("none", "p2"),
    "gradient": ("dense", "sparse", "scaled"),
    "mode": _MODES,
}
_REFUSED: Final[Mapping[str, Sequence[Any]]] = {
    "program": ("error",),
    "fault": (
        *(f"index-{dtype}" for dtype in ("float32", "bool", "int8", "int16", "uint8")),
        "weight-0d",
        "weight-1d",
        "weight-3d",
        "padding-above",
        "padding-below",
    ),
    "entry": _SINGLE["entry"],
    "padding": ("none", "zero"),
    "bound": ("none", "p2"),
    "mode": ("grad", "no_grad"),
}
_COMPILED: Final[Mapping[str, Sequence[Any]]] = {
    **{key: _SINGLE[key] for key in ("entry", "dtype", "index_dtype")},
    "rank": (1, 2, 0),
    "weight_layout": ("contiguous", "transposed", "sliced"),
    "index_layout": ("contiguous", "stepped"),
    "padding": ("none", "zero", "inner"),
    "bound": ("none", "p2"),
    "gradient": ("dense", "scaled", "sparse"),
    "mode": ("grad", "no_grad"),
}
"""What the structures of a compiled backend are paired from: each costs seconds."""
FAMILIES: Final = (_SINGLE, _WITHOUT_GRADIENT, _EMPTIES, _SEQUENCES, _FAULTS, _REFUSED)

_DIRECTED: Final = (
    PLAIN,
    *(Structure(program="error", fault=fault) for fault in OUT_OF_RANGE),
    *(
        Structure(program="error", fault="too-large", size=size)
        for size in ("crowd", "no-columns", "no-rows")
    ),
    Structure(program="error", fault="too-large", bound="p2"),
    Structure(program="error", fault="too-large", padding="zero"),
    Structure(program="error", fault="too-large", index_dtype="int32"),
    Structure(program="error", fault="too-large", mode="no_grad"),
    *(
        Structure(program="error", fault=fault)
        for fault in ("index-float32", "index-int8", "weight-1d", "padding-above")
    ),
    *(Structure(padding=padding) for padding in PADDINGS[1:]),
    *(
        Structure(padding=padding, dtype=dtype)
        for padding in ("zero", "last")
        for dtype in ("float64", "bfloat16")
    ),
    *(Structure(padding=padding, upstream="nonfinite-padding") for padding in ("zero", "last")),
    *(Structure(bound=bound) for bound in BOUNDS[1:]),
    *(Structure(bound="p2", table=table) for table in ("tiny", "huge", "spike", "zero-rows")),
    *(Structure(bound="p2", dtype=dtype) for dtype in ("float64", "float16", "bfloat16")),
    *(Structure(bound="p2", mode=mode) for mode in GRAD_MODES[1:]),
    *(Structure(weight_layout=layout) for layout in LAYOUTS[1:]),
    *(Structure(weight_layout=layout, bound="p2") for layout in LAYOUTS[1:5]),
    *(Structure(index_layout=layout, rank=2) for layout in LAYOUTS[1:]),
    *(Structure(upstream_layout=layout, rank=2) for layout in LAYOUTS[1:]),
    *(Structure(dtype=dtype) for dtype in ("float64", "float16", "bfloat16")),
    *(Structure(size=size) for size in ("many", "most", "wide", "widest", "tall", "hot", *EMPTY)),
    *(Structure(size=size, bound="p2") for size in ("most", "widest")),
    Structure(size="wide", bound="p2", table="spike"),
    *(
        Structure(padding=padding, bound="p2", table="zero-rows")
        for padding in ("zero", "inner", "last")
    ),
    *(
        Structure(program="repeat", bound="p2", gradient=kind, dtype=dtype)
        for kind, dtype in (("dense", "float32"), ("sparse", "float64"))
    ),
    *(Structure(weight_layout=layout, dtype="bfloat16") for layout in LAYOUTS[1:4]),
    *(
        Structure(gradient="sparse", index_layout=layout, rank=2)
        for layout in ("transposed", "spread")
    ),
    Structure(gradient="sparse", upstream_layout="broadcast"),
    *(Structure(program="update-weight", mode=mode) for mode in GRAD_MODES[1:]),
    *(Structure(size=size, dtype="bfloat16") for size in ("many", "hot")),
    Structure(size="vast"),
    Structure(size="vast", index_dtype="int32", rank=2),
    *(Structure(size="vast", padding="zero", gradient=kind) for kind in ("dense", "sparse")),
    Structure(size="vast", gradient="scaled"),
    Structure(size="vast", bound="p2"),
    *(Structure(upstream="nonfinite", size=size) for size in ("tiny", "some")),
    *(Structure(upstream="subnormal", size="some", dtype=d) for d in ("float32", "float16")),
    *(Structure(upstream="wild", size=size) for size in ("some", "many", "block")),
    *(Structure(program="update-weight", size="block", mode=m) for m in ("frozen", "no_grad")),
    *(Structure(program="update-indices", size="block", mode=m) for m in ("served", "no_grad")),
    Structure(upstream="nonfinite", rank=2, padding="zero"),
    *(Structure(size="many", padding=padding) for padding in ("zero", "last")),
    *(Structure(size=size, bound=bound) for size in ("many", "wide") for bound in ("p2", "pinf")),
    Structure(table="special"),
    *(
        Structure(table="special", size="some", dtype="bfloat16", mode=m)
        for m in ("grad", "frozen")
    ),
    Structure(index_dtype="int32"),
    *(Structure(gradient=gradient) for gradient in ("scaled", "sparse", "sparse-scaled")),
    *(Structure(gradient="scaled", rank=rank) for rank in (2, 3)),
    Structure(gradient="scaled", padding="zero"),
    Structure(gradient="scaled", size="many"),
    Structure(gradient="scaled", rank=2, size="many"),
    Structure(gradient="sparse", padding="inner"),
    Structure(gradient="sparse", rank=0),
    Structure(gradient="sparse", rank=0, padding="inner"),
    Structure(gradient="sparse", size="many"),
    Structure(gradient="sparse", size="no-indices"),
    *(
        Structure(program=program, gradient=gradient, mode="grad")
        for program in ("repeat", "accumulate", "retain", "two-uses")
        for gradient in ("dense", "sparse")
    ),
    *(
        Structure(program=program, gradient=gradient, padding=padding)
        for program in ("accumulate", "retain", "two-uses")
        for gradient, padding in (("scaled", "none"), ("dense", "zero"))
    ),
    *(
        Structure(program="repeat", size="many", upstream="plain", dtype=dtype)
        for dtype in ("float32", "bfloat16")
    ),
    *(
        Structure(program=program, bound=bound)
        for program in ("update-weight", "update-indices", "repeat")
        for bound in ("none", "p2")
    ),
    *(Structure(program="stale-backward", rank=rank) for rank in (1, 2)),
    Structure(program="repeat", size="many", upstream="plain", deterministic=True),
    Structure(program="repeat", deterministic=True),
    Structure(bound="p2", table="special"),
    Structure(program="double-backward"),
    Structure(program="double-backward", padding="zero"),
    Structure(program="double-backward", gradient="scaled"),
    *(Structure(size=size, rank=rank) for size in MIXED for rank in (1, 2)),
    *(Structure(size=size, dtype=d) for size in MIXED for d in ("float64", "float16", "bfloat16")),
    *(Structure(size="block", index_dtype="int32", mode=mode) for mode in ("grad", "frozen")),
    *(Structure(size="block", padding=padding) for padding in PADDINGS[1:]),
    *(Structure(size="some", padding=padding, rank=2) for padding in ("inner", "last")),
    Structure(size="block", padding="inner", index_dtype="int32", dtype="float16"),
    *(Structure(size=size, gradient=kind) for size in MIXED for kind in ("scaled", "sparse")),
    *(Structure(size=size, bound=bound) for size in MIXED for bound in ("p2", "p3")),
    Structure(size="block", upstream="plain", dtype="float64"),
    Structure(size="block", table="special"),
    *(
        Structure(size="some", bound="p2", table=table)
        for table in ("spike", "zero-rows", "special")
    ),
    Structure(bound="p2", table="spike", upstream="plain"),
    Structure(bound="p2", table="zero-rows", rank=2),
    *(Structure(bound="zero", dtype=dtype) for dtype in ("float64", "bfloat16")),
    *(Structure(size="some", rank=4, gradient=kind) for kind in ("dense", "sparse")),
    *(Structure(gradient="sparse", padding="last", rank=rank) for rank in (1, 2)),
    Structure(gradient="sparse", padding="last", rank=2, size="some"),
    *(Structure(gradient="scaled", padding="last", rank=rank) for rank in (1, 2)),
    *(Structure(size="tall", index_dtype="int32", gradient=g) for g in ("dense", "sparse")),
    Structure(size="tall", padding="last"),
    Structure(size="hot", gradient="scaled", dtype="float16"),
    Structure(size="hot", padding="zero", gradient="scaled"),
    *(
        Structure(program="retain", gradient=kind, padding="zero", index_dtype=index_dtype)
        for kind, index_dtype in (("scaled", "int64"), ("dense", "int32"), ("sparse", "int64"))
    ),
    *(
        Structure(program="accumulate", dtype="float64", gradient=kind, padding=padding)
        for kind, padding in (("dense", "none"), ("sparse", "last"))
    ),
    Structure(program="retain", gradient="sparse", dtype="bfloat16"),
    Structure(program="two-uses", padding="inner", size="some"),
    *(Structure(program="update-indices", gradient=kind) for kind in ("scaled", "sparse")),
    *(
        Structure(program=program, padding=padding, gradient=kind)
        for program in ("served", "steps")
        for padding, kind in (("none", "dense"), ("zero", "dense"), ("last", "sparse"))
    ),
    Structure(program="served", gradient="scaled", bound="p2"),
    Structure(program="steps", gradient="scaled", bound="p2", size="some"),
    *(
        Structure(program="error", fault="too-large", weight_layout=layout)
        for layout in ("offset", "transposed", "sliced")
    ),
    Structure(program="error", fault="too-large", padding="zero", gradient="sparse"),
    Structure(program="error", fault="too-large", padding="zero", bound="p2"),
    Structure(program="error", fault="too-large", size="some", rank=2, index_dtype="int32"),
    Structure(program="error", fault="negative", padding="last"),
    Structure(program="error", fault="negative", size="some"),
    Structure(program="error", fault="negative", size="some", index_dtype="int32"),
    Structure(program="error", fault="negative", size="block", index_layout="stepped"),
    Structure(program="repeat", size="many", mode="no_grad"),
    Structure(program="double-backward", gradient="scaled", rank=2),
    Structure(size="block", padding="last", dtype="bfloat16"),
    Structure(size="some", bound="p2", table="spike", rank=2),
)


_FUNCTIONAL: Final = frozenset(replace(structure, entry="functional") for structure in _DIRECTED)


def is_directed(s: Structure) -> bool:
    """Tell whether a structure is made for a clause, through whichever entry point."""
    return replace(s, entry="functional") in _FUNCTIONAL


def is_sound(s: Structure) -> bool:
    """Tell whether the factors go together: the call is legal, or wrong in the one way meant."""
    return all(rule(s) for rule in _RULES)


def _shape_rules(s: Structure) -> bool:
    if s.rank == 0 and (s.index_layout not in ("contiguous", "offset") or s.size in COUNTED):
        return False
    if s.rank == 0 and s.size in ("no-indices", "no-rows") and s.program != "error":
        return False
    if s.rank < 2 and s.index_layout in ("transposed", "spread", "broadcast"):
        return False
    if s.deterministic and (s.program != "repeat" or s.mode != "grad"):
        return False
    if s.size in ("hot", "vast") and s.program != "single":
        return False
    return not (s.size == "no-rows" and (s.padding != "none" or s.index_layout in ZERO_STRIDES))


def _table_rules(s: Structure) -> bool:
    if s.weight_layout in ZERO_STRIDES and (
        s.bound != "none" or s.program in ("update-weight", "steps") or s.size == "no-rows"
    ):
        return False
    if s.size in ("no-columns", "no-rows") and s.bound != "none" and s.program != "error":
        return False
    if s.bound == "none":
        return s.table in ("plain", "special")
    if s.table == "tiny":
        return s.dtype in ("float32", "float64")
    return s.table == "plain" or s.bound != "zero"


def _gradient_rules(s: Structure) -> bool:
    if s.mode != "grad" and (
        (s.gradient, s.upstream, s.upstream_layout) != ("dense", "units", "contiguous")
        or s.program in BACKWARD_ONLY
    ):
        return False
    if s.program == "double-backward" and (
        s.gradient.startswith("sparse") or s.upstream.startswith("nonfinite")
    ):
        return False
    if s.gradient == "sparse" and s.program not in ("single", "repeat"):
        # torch adds the gradients of two passes, whosever they are, and on the CPU it cannot
        if s.dtype == "float16":
            return False
        if s.dtype == "bfloat16" and s.upstream_layout != "contiguous":
            return False
    if s.gradient == "sparse-scaled" and s.program != "single":
        return False
    if s.gradient.startswith("sparse") and s.weight_layout in ZERO_STRIDES:
        return False
    if s.upstream == "subnormal" and (s.bound, s.gradient, s.padding) != ("none", "dense", "none"):
        return False  # a clause of its own judges the sum, and products would be rounded there
    if s.upstream == "nonfinite-padding":
        return s.padding != "none" and s.upstream_layout not in ZERO_STRIDES
    return True


def _fault_rules(s: Structure) -> bool:
    if s.program != "error":
        return s.fault == "none"
    if s.fault.startswith("far") and (s.index_dtype == "int32" or s.size == "no-rows"):
        return False
    if s.fault.startswith("weight") and (s.entry == "module" or s.padding != "none"):
        return False
    if s.fault == "none":
        return False
    return not (s.fault.startswith("padding") and s.padding != "none")


_RULES: Final[tuple[Callable[[Structure], bool], ...]] = (
    _shape_rules,
    _table_rules,
    _gradient_rules,
    _fault_rules,
)


def _fits_profile(s: Structure, profile: Profile) -> bool:
    if profile is Profile.TORCH:
        return True
    return (
        s.gradient == "dense"
        and s.padding != "negative"
        and s.fault not in ("far-negative",)
        and not s.fault.startswith(("index", "weight", "padding"))
    )


def fits(s: Structure, backend: Described, profile: Profile) -> bool:
    """Tell whether a backend can be asked for a structure under a profile."""
    return is_sound(s) and _fits_profile(s, profile) and _fits_backend(s, backend)


def _fits_backend(s: Structure, backend: Described) -> bool:
    able = backend.able
    needs = {
        s.entry: True,
        "padding_idx": s.padding != "none" or s.fault.startswith("padding"),
        "max_norm": s.bound != "none",
        "norm_type": s.bound not in ("none", "p2", "zero"),
        "sparse": s.gradient.startswith("sparse"),
        "scale_grad_by_freq": s.gradient.endswith("scaled"),
        "gradient": s.gradient != "dense" or s.program in BACKWARD_ONLY,
        "double_backward": s.program == "double-backward",
        "strided": s.weight_layout not in ("contiguous", "offset")
        or s.index_layout not in ("contiguous", "offset"),
    }
    return (
        all(name in able for name, needed in needs.items() if needed)
        and s.dtype in backend.capabilities.dtypes
        and s.index_dtype in backend.capabilities.index_dtypes
    )


def _pairs(family: Mapping[str, Sequence[Any]]) -> Iterable[Structure]:
    """Cover all pairs of a family's factors."""
    keys = list(family)
    values = [list(dict.fromkeys(family[key])) for key in keys]

    def sound_so_far(row: Sequence[Any]) -> bool:
        return _sound_prefix(dict(zip(keys, row, strict=False)))

    for row in AllPairs(values, filter_func=sound_so_far):
        yield Structure(**dict(zip(keys, row, strict=True)))


def _sound_prefix(chosen: dict[str, Any]) -> bool:
    """Judge a partial choice: rules only bite on factors that are away from their plainest."""
    given = Structure(**chosen)
    if is_sound(given):
        return True
    if len(chosen) == len(fields(Structure)):
        return False
    escapes: tuple[dict[str, Any], ...] = (
        {"fault": "too-large"},
        {"bound": "p2"},
        {"table": "plain"},
        {"padding": "zero"},
        {"mode": "grad"},
    )
    return any(
        is_sound(replace(given, **{key: value}))
        for escape in escapes
        for key, value in escape.items()
        if key not in chosen
    )


def _by_chance(
    family: Mapping[str, Sequence[Any]], count: int, rng: random.Random
) -> Iterator[Structure]:
    """Choose sound structures: they meet triples as well as more arrays do, at next to no cost."""
    found = 0
    while found < count:
        one = Structure(**{key: rng.choice(values) for key, values in family.items()})
        if is_sound(one):
            found += 1
            yield one


def _worth_compiling(s: Structure) -> bool:
    """Tell whether a directed structure adds more than a dtype to another one."""
    odd = s.weight_layout != "contiguous" or s.padding != "none" or s.bound != "none"
    return s.dtype in ("float32", "bfloat16" if s.bound == "p2" else "") or not odd


def _families(compiled: bool) -> tuple[Mapping[str, Sequence[Any]], ...]:
    return (_COMPILED,) if compiled else FAMILIES


@cache
def pairs(*, compiled: bool = False) -> tuple[tuple[Structure, ...], ...]:
    """Cover all pairs of the factors of each family; the same for every seed."""
    made = tuple(tuple(filter(is_sound, _pairs(family))) for family in _families(compiled))
    pairs_storage.key_cache.clear()  # it would keep every pair that was ever made
    return made


@lru_cache(4)  # a run in rounds has many seeds
def _all_structures(arrays: int, seed: int, compiled: bool) -> tuple[Structure, ...]:
    found: dict[Structure, None] = dict.fromkeys(s for s in _DIRECTED if is_sound(s))
    if compiled:
        found = dict.fromkeys(s for s in found if _worth_compiling(s))
        arrays = max(arrays // 16, 1)
    rng, paired = random.Random(seed), pairs(compiled=compiled)
    for rows in paired:
        found.update(dict.fromkeys(rows))
    more = [
        structure
        for family, rows in zip(_families(compiled), paired, strict=True)
        for structure in _by_chance(family, len(rows) * (arrays - 1), rng)
    ]
    rng.shuffle(more)
    found.update(dict.fromkeys(more))
    return tuple(found)


def strata(backend: Described, profile: Profile, *, arrays: int, seed: int) -> list[Structure]:
    """List the structures to draw cases from.

    Parameters
    ----------
    backend : Described
        A backend with only one entry point gets the other's structures through it.
    profile : Profile
    arrays : int
        The first holds all pairs, and is the same for every seed; instead of more, as many
        structures are chosen by chance.
    seed : int
        Orders the others.

    Returns
    -------
    list of Structure
        Without repetition, the plainest first.
    """
    chosen: dict[Structure, None] = {}
    for structure in _all_structures(arrays, seed, backend.compiled):
        fitted = structure
        if fitted.entry not in backend.able:
            other: Entry = "module" if fitted.entry == "functional" else "functional"
            fitted = replace(fitted, entry=other)
        if "gradient" not in backend.able and fitted.program.startswith(("repeat", "update")):
            fitted = replace(fitted, mode="frozen")  # else it ends at its first backward pass
        if fits(fitted, backend, profile):
            chosen[fitted] = None
    return list(chosen)
