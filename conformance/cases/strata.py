"""The strata: which structures of a call are forced to appear.

A stratum fixes everything about a call but sizes and values. All pairs of its factors occur
(allpairspy); more budget means as many rows again by chance, hence more triples.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from itertools import takewhile
from typing import Any, Final, get_args

from allpairspy import AllPairs, pairs_storage

from embconform.backends.backend import Described
from embconform.backends.constants import own_sizes
from embconform.conformance.cases.case import GRAD_MODES, Entry
from embconform.conformance.cases.directed import DIRECTED, is_directed
from embconform.conformance.cases.near import near_constants
from embconform.conformance.cases.soundness import fits, is_sound
from embconform.conformance.cases.structure import (
    BOUNDS,
    EMPTY,
    INDEX_LAYOUTS,
    OUT_OF_RANGE,
    PADDINGS,
    POOLED,
    UPSTREAM_LAYOUTS,
    WEIGHT_LAYOUTS,
    Program,
    Structure,
)
from embconform.reference.clause import Profile

_SINGLE: Final[Mapping[str, Sequence[Any]]] = {
    "entry": ("functional", "module"),
    "dtype": ("float32", "float64", "float16", "bfloat16"),
    "index_dtype": ("int64", "int32"),
    "rank": (1, 2, 0, 3, 4),
    "size": (
        *("tiny", "block", "some", "many", "wide"),
        *("one-column", "most", "widest", "populous", "tiles", "ranked"),
    ),
    "weight_layout": WEIGHT_LAYOUTS,
    "index_layout": INDEX_LAYOUTS,
    "upstream_layout": UPSTREAM_LAYOUTS,
    "padding": PADDINGS,
    "bound": (*("none",) * 5, *BOUNDS[1:]),  # what is chosen by chance has no bound as often as one
    "gradient": ("dense", "sparse", "scaled", "sparse-scaled"),
    "table": ("plain", "special", "tiny", "huge", "spike", "zero-rows", "minute"),
    "upstream": (
        *("units", "plain", "ones", "wild", "scales"),
        *("subnormal", "nonfinite-padding", "nonfinite"),
    ),
    "deterministic": (False, True),
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
        if key not in ("upstream_layout", "gradient", "upstream", "deterministic")
    },
}
_SEQUENCES: Final[Mapping[str, Sequence[Any]]] = {
    "program": tuple(
        one for one in get_args(Program) if one not in ("single", "error", "wandering")
    ),
    **{key: _SINGLE[key] for key in ("entry", "dtype", "index_dtype", "padding", "gradient")},
    "rank": (1, 2, 0, 3),
    "size": ("tiny", "some", "many", "block"),
    "weight_layout": ("contiguous", "sliced", "transposed"),
    "index_layout": ("contiguous", "stepped", "transposed"),
    "upstream_layout": ("contiguous", "transposed", "expanded"),
    "bound": ("none", "p2", "p1"),
    "mode": ("grad", "grad", "no_grad", "frozen", "served"),
    "upstream": ("units", "plain", "wild", "scales"),
}
_WANDERING: Final[Mapping[str, Sequence[Any]]] = {
    **_SEQUENCES,
    "program": ("wandering",),
    "fault": ("none", "none", "too-large"),
    "size": ("tiny", "some", "many", "block", "tall", "most"),
    "bound": ("none", "none", "none", "p2", "p1"),
}
_FAULTS: Final[Mapping[str, Sequence[Any]]] = {
    "program": ("error",),
    "fault": OUT_OF_RANGE[:4],
    "entry": _SINGLE["entry"],
    "dtype": _SINGLE["dtype"],
    "index_dtype": _SINGLE["index_dtype"],
    "rank": (1, 2, 0, 3),
    "size": ("tiny", "some", "block", "crowd", "no-columns", "no-rows"),
    "weight_layout": ("contiguous", "sliced", "transposed", "offset"),
    "index_layout": ("contiguous", "stepped", "transposed"),
    "padding": ("none", "zero", "inner", "last", "negative"),
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
_CALLS: Final = ("repeat", "update", "wandering")
"""How programs begin that have something to show where nothing can be differentiated."""
_NEAR: Final = (_SINGLE, _SINGLE, _WITHOUT_GRADIENT, _SEQUENCES, _FAULTS)
"""What sizes near to a target's constants are combined with, by chance."""
FAMILIES: Final = (
    *(_SINGLE, _WITHOUT_GRADIENT, _EMPTIES, _SEQUENCES),
    *(_FAULTS, _REFUSED, _WANDERING),
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
    if s.upstream_layout == POOLED:
        return False
    if s == Structure(dtype="float16", bound="p2", table="huge"):
        return True  # only float16's range is exceeded by squares of ordinary numbers
    odd = s.weight_layout != "contiguous" or s.padding != "none" or s.bound != "none"
    return s.dtype in ("float32", "bfloat16" if s.bound == "p2" else "") or not odd


def _families(compiled: bool) -> tuple[Mapping[str, Sequence[Any]], ...]:
    return (_COMPILED,) if compiled else FAMILIES


def pairs(*, compiled: bool) -> Pairs:
    """Cover all pairs of the factors of each family; the same for every seed."""
    if compiled not in _made:
        found = tuple(tuple(filter(is_sound, _pairs(family))) for family in _families(compiled))
        pairs_storage.key_cache.clear()  # it would keep every pair that was ever made
        _made[compiled] = found
    return _made[compiled]


def take_pairs(found: Pairs, *, compiled: bool) -> None:
    """Use what :func:`pairs` gave in another process, where it took half a second."""
    _made[compiled] = found


Pairs = tuple[tuple[Structure, ...], ...]
_made: Final[dict[bool, Pairs]] = {}


@lru_cache(1)  # a run in rounds has many seeds, one after the other
def _all_structures(arrays: int, seed: int, compiled: bool) -> tuple[Structure, ...]:
    found: dict[Structure, None] = dict.fromkeys(s for s in DIRECTED if is_sound(s))
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


@lru_cache(2)
def _through(only: Entry | None, arrays: int, seed: int, compiled: bool) -> tuple[Structure, ...]:
    """Give all structures, those of the other entry point through the only one that there is."""
    found = _all_structures(arrays, seed, compiled)
    if only is None:
        return found
    return tuple(structure.through(only) for structure in found)


def strata(
    backend: Described,
    profile: Profile,
    *,
    arrays: int,
    seed: int,
    constants: int = 0,
    near: int = 0,
) -> list[Structure]:
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
    constants : int
        Most constants of the backend's code that sizes are near to.
    near : int
        Structures by chance of such sizes.

    Returns
    -------
    list of Structure
        Without repetition, the plainest first.
    """
    chosen: dict[Structure, None] = {}
    only = next((entry for entry in get_args(Entry) if backend.forms == {entry}), None)
    found = _through(only, arrays, seed, backend.compiled)
    made = len(list(takewhile(is_directed, found)))

    def fits_through(structure: Structure) -> bool:
        return fits(structure.through(only) if only else structure, backend, profile)

    own = own_sizes(backend, constants)
    by_number = near_constants(own, _NEAR, fits_through, chances=near, seed=seed)
    sized = (one.through(only) if only else one for one in by_number)
    for structure in (*found[:made], *sized, *found[made:]):
        fitted = structure
        if "gradient" not in backend.able and fitted.program.startswith(_CALLS):
            fitted = replace(fitted, mode="frozen")  # else it ends at its first backward pass
        if fits(fitted, backend, profile):
            chosen[fitted] = None
    return list(chosen)
