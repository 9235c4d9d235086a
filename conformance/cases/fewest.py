"""The strata of a small budget where a new program costs seconds, as it must be compiled.

At their heart are the fewest strata whose first cases exercise every clause that cases can. A
target that compiles each new size of a call gets these alone.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Final

from embconform.conformance.cases.directed import is_directed
from embconform.conformance.cases.structure import EMPTY, Structure

_NAMES: Final = frozenset(
    """
program=error fault=too-large
program=error fault=negative
program=error fault=far-positive
program=error fault=too-large size=crowd
program=error fault=too-large size=no-columns
program=error fault=too-large size=no-rows
program=error fault=too-large bound=p2
program=error fault=too-large padding=zero
program=error fault=too-large padding=zero gradient=sparse
program=error fault=too-large index_dtype=int32
program=error fault=too-large mode=no_grad
program=error fault=index-float32
program=error fault=index-int8
program=error fault=weight-1d
program=error fault=padding-above
padding=negative
padding=zero upstream=nonfinite-padding
bound=zero
bound=p2 table=huge
dtype=float16 bound=p2 table=huge
bound=p2 table=spike
bound=p2 table=zero-rows
weight_layout=transposed
rank=2 index_layout=transposed
rank=2 upstream_layout=transposed
dtype=float64
dtype=bfloat16 size=many
size=tall
size=no-indices
size=most bound=p2
program=update-weight mode=frozen
upstream=nonfinite
size=some upstream=subnormal
program=update-indices size=block mode=served
size=many padding=zero
table=special
gradient=sparse-scaled
gradient=scaled
rank=2 gradient=scaled
rank=0 gradient=sparse
padding=last gradient=sparse
program=served padding=last gradient=sparse
size=many gradient=sparse
size=many padding=last gradient=sparse
size=no-indices gradient=sparse
program=accumulate gradient=sparse
program=retain
program=two-uses
program=accumulate padding=zero
program=update-weight
program=repeat
program=repeat bound=p2
program=stale-backward
program=repeat size=many upstream=plain deterministic=True
bound=p2 table=special
program=double-backward
program=double-backward gradient=scaled
size=block
dtype=float16 size=block
size=block gradient=scaled
size=block bound=p3
size=some bound=p2 table=spike
size=some bound=p2 table=special
size=wide bound=p2 table=spike
rank=2 size=some bound=p2 table=spike
bound=p2 table=spike upstream=plain
index_dtype=int32 size=tall
program=error fault=negative padding=last
program=error fault=negative size=block index_layout=stepped
dtype=float64 index_dtype=int32 rank=2 weight_layout=transposed index_layout=stepped padding=zero bound=p2 gradient=scaled
dtype=bfloat16 rank=2 padding=inner bound=p2 gradient=sparse
dtype=bfloat16 index_dtype=int32 rank=0 weight_layout=sliced padding=zero gradient=scaled
program=update-indices size=block mode=frozen
dtype=bfloat16 weight_layout=transposed index_layout=stepped bound=p2 mode=no_grad
""".strip().splitlines()  # noqa: E501
)


def is_among_the_fewest(s: Structure) -> bool:
    """Tell whether a structure, through whichever entry point, is one that a clause is left to."""
    return s.through("functional").name in _NAMES


def without_costly(structures: Sequence[Structure], *, sizes_compiled: bool) -> list[Structure]:
    """Leave out the structures that would be compiled and that no clause is left to.

    Parameters
    ----------
    structures : sequence of Structure
    sizes_compiled : bool
        Whether each new size is compiled; then only the fewest stay. Elsewhere those stay, too,
        that run the same programs as these, and the pairs of what makes a program.

    Returns
    -------
    list of Structure
        In their order.
    """
    fewest = [s for s in structures if is_among_the_fewest(s)]
    if sizes_compiled:
        return fewest
    programs = {_program(s) for s in fewest}
    return [s for s in structures if not is_directed(s) or _program(s) in programs]


def _program(s: Structure) -> Hashable:
    """Name the program that a call is compiled to where sizes are not: values change nothing."""
    padding = s.padding if s.padding in ("none", "zero") else "other"
    layouts = [one.replace("offset", "contiguous") for one in (s.weight_layout, s.index_layout)]
    empty = s.size if s.size in (*EMPTY, "one-column") else ""
    kinds = (s.dtype, s.index_dtype, s.rank, s.bound, s.gradient, s.mode == "grad")
    return kinds, *layouts, padding, empty
