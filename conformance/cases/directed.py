"""Structures that are made for a clause, whatever the pairs are."""

from __future__ import annotations

from typing import Final

from embconform.conformance.cases.case import GRAD_MODES
from embconform.conformance.cases.structure import (
    BOUNDS,
    COLUMN_SLICE,
    EMPTY,
    INDEX_LAYOUTS,
    MIXED,
    NEAR,
    OUT_OF_RANGE,
    OVERLAPPING,
    PADDINGS,
    PAIRED,
    PLAIN,
    POOLED,
    ROW_SLICE,
    UNEVEN,
    UPSTREAM_LAYOUTS,
    WEIGHT_LAYOUTS,
    Structure,
)

DIRECTED: Final = (
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
    *(Structure(bound=bound, rank=rank) for rank in (1, 2) for bound in BOUNDS[1:]),
    *(Structure(bound=bound, entry="module") for bound in BOUNDS[1:]),
    *(Structure(bound="p2", table=table) for table in ("tiny", "huge", "spike", "zero-rows")),
    *(Structure(bound="p2", dtype=dtype) for dtype in ("float64", "float16", "bfloat16")),
    *(Structure(bound="p2", table="huge", dtype=dtype) for dtype in ("float16", "bfloat16")),
    *(Structure(bound="p2", mode=mode) for mode in GRAD_MODES[1:]),
    *(Structure(weight_layout=layout) for layout in WEIGHT_LAYOUTS[1:]),
    *(Structure(weight_layout=layout, bound="p2") for layout in WEIGHT_LAYOUTS[1:5]),
    *(Structure(index_layout=layout, rank=2) for layout in INDEX_LAYOUTS[1:]),
    *(Structure(index_layout=layout, rank=3, size="some") for layout in ("swapped", "windows")),
    Structure(index_layout="windows", rank=2, size="many"),
    *(Structure(upstream_layout=layout, rank=2) for layout in UPSTREAM_LAYOUTS[1:]),
    *(Structure(upstream_layout="swapped", rank=2, size=size) for size in ("some", "many")),
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
    *(Structure(weight_layout=layout, dtype="bfloat16") for layout in WEIGHT_LAYOUTS[1:4]),
    *(
        Structure(gradient="sparse", index_layout=layout, rank=2)
        for layout in ("transposed", "spread")
    ),
    Structure(gradient="sparse", upstream_layout="broadcast"),
    *(Structure(gradient="sparse", upstream="wild", size=size) for size in ("tiny", "some")),
    *(Structure(program="update-weight", mode=mode) for mode in GRAD_MODES[1:]),
    *(Structure(program="update-weight", mode=m, dtype="float16") for m in ("frozen", "no_grad")),
    *(
        Structure(program="update-weight", mode=mode, weight_layout=layout)
        for mode in ("frozen", "no_grad")
        for layout in ("sliced", "transposed")
    ),
    *(Structure(program="served", gradient=kind, upstream="plain") for kind in ("dense", "scaled")),
    *(
        Structure(gradient=gradient, padding=padding, deterministic=True)
        for gradient, padding in (("scaled", "none"), ("dense", "last"), ("sparse", "zero"))
    ),
    *(
        Structure(gradient=gradient, upstream_layout=layout, size="some")
        for gradient in ("dense", "scaled")
        for layout in ("transposed", "spread", "expanded")
    ),
    *(Structure(size="many", padding="last", gradient=kind) for kind in ("sparse", "scaled")),
    *(Structure(size="widest", rank=rank) for rank in (1, 2)),
    *(
        Structure(weight_layout=ROW_SLICE, size=size, gradient=kind)
        for size, kind in (("tiny", "dense"), ("some", "dense"), ("some", "sparse"))
    ),
    *(Structure(weight_layout=ROW_SLICE, size="some", bound=b) for b in ("p2", "none")),
    Structure(weight_layout=ROW_SLICE, size="some", program="update-weight", mode="no_grad"),
    *(
        Structure(upstream="large", size=size, dtype=dtype)
        for size in ("some", "many")
        for dtype in ("float16", "bfloat16", "float32")
    ),
    Structure(size="tall", mode="no_grad", dtype="bfloat16", rank=2),
    Structure(size="tall", mode="frozen", dtype="float16", rank=2),
    Structure(size="tall", mode="served"),
    Structure(size="tall", gradient="scaled"),
    *(Structure(size="most", mode=mode, rank=2) for mode in ("frozen", "no_grad")),
    *(Structure(bound="p2", dtype="float64", size="some", table=t) for t in ("plain", "spike")),
    Structure(program="served", index_dtype="int32"),
    *(Structure(size=size, dtype="bfloat16") for size in ("many", "hot")),
    Structure(size="hot", dtype="float64"),
    Structure(size="vast"),
    Structure(size="vast", index_dtype="int32", rank=2),
    *(Structure(size="vast", padding="zero", gradient=kind) for kind in ("dense", "sparse")),
    Structure(size="vast", gradient="scaled"),
    Structure(size="vast", bound="p2"),
    *(Structure(upstream="nonfinite", size=size) for size in ("tiny", "some")),
    *(
        Structure(upstream="subnormal", size=size, dtype=dtype)
        for size in ("some", "many")
        for dtype in ("float32", "float16")
    ),
    *(Structure(upstream="wild", size=size) for size in ("some", "many", "block")),
    *(Structure(program="update-weight", size="block", mode=m) for m in ("frozen", "no_grad")),
    *(Structure(program="update-indices", size="block", mode=m) for m in ("served", "no_grad")),
    Structure(upstream="nonfinite", rank=2, padding="zero"),
    *(Structure(size="many", padding=padding) for padding in ("zero", "last")),
    *(Structure(size=size, bound=bound) for size in ("many", "wide") for bound in ("p2", "pinf")),
    Structure(table="special"),
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
    *(Structure(size="some", bound="p2", table=table) for table in ("spike", "zero-rows")),
    *(Structure(bound="p2", table="spike", upstream="plain", rank=rank) for rank in (1, 2)),
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
    *(
        Structure(program="error", fault="negative", padding=padding, mode=mode)
        for padding in ("last", "negative")
        for mode in ("grad", "no_grad")
    ),
    Structure(program="error", fault="negative", size="block", index_layout="stepped"),
    Structure(program="repeat", size="many", mode="no_grad"),
    Structure(program="double-backward", gradient="scaled", rank=2),
    Structure(size="block", padding="last", dtype="bfloat16"),
    Structure(size="some", bound="p2", table="spike", rank=2),
    Structure(program="error", fault="negative", size="some"),
    Structure(program="error", fault="negative", size="some", index_dtype="int32"),
    *(Structure(table="special", size="some", dtype=dtype) for dtype in ("bfloat16", "float64")),
    Structure(table="special", size="some", index_dtype="int32"),
    Structure(table="special", size="some", weight_layout="transposed"),
    Structure(table="special", size="some", rank=2, index_layout="transposed"),
    Structure(rank=0, mode="no_grad"),
    Structure(table="special", size="some", dtype="bfloat16", mode="frozen"),
    Structure(table="special", dtype="float16", weight_layout="transposed", mode="frozen"),
    Structure(size="some", bound="p2", table="special"),
    *(Structure(size="apart", mode=mode) for mode in ("grad", "no_grad", "frozen")),
    *(Structure(weight_layout=OVERLAPPING, mode=mode) for mode in ("grad", "no_grad")),
    Structure(weight_layout=OVERLAPPING, size="some", rank=2),
    *(Structure(weight_layout=COLUMN_SLICE, bound=bound) for bound in ("none", "p2")),
    Structure(weight_layout=COLUMN_SLICE, size="some", bound="p2", mode="no_grad"),
    *(Structure(program="error", fault="too-large", size=size) for size in ("block", "apart")),
    Structure(program="error", fault="too-large", size="block", mode="no_grad"),
    Structure(program="error", fault="index-bool"),
    *(Structure(size="widest", bound="p2", dtype=dtype) for dtype in ("float16", "bfloat16")),
    *(Structure(upstream_layout=POOLED, rank=2, size=size) for size in ("some", "block", "many")),
    Structure(upstream_layout=POOLED, rank=2, size="block", padding="last"),
    Structure(upstream_layout=POOLED, rank=2, size="block", gradient="scaled"),
    *(
        Structure(upstream_layout="broadcast", size="some", padding=padding)
        for padding in ("negative", "inner")
    ),
    Structure(upstream_layout="spread", size="some", padding="last"),
    *(
        Structure(program="double-backward", rank=2, size=size, index_layout=layout)
        for layout in ("transposed", "stepped")
        for size in ("some", "block")
    ),
    Structure(program="double-backward", rank=2, size="some", upstream_layout="transposed"),
    *(Structure(program="update-indices", size=size) for size in ("some", "block")),
    *(
        Structure(program="update-indices", size="most", gradient=gradient, rank=rank)
        for gradient in ("dense", "scaled")
        for rank in (1, 2, 3)
    ),
    *(Structure(size="ranked", rank=2, gradient=gradient) for gradient in ("dense", "sparse")),
    *(Structure(size="many", dtype=d, deterministic=True) for d in ("float16", "bfloat16")),
    *(
        Structure(gradient="sparse", padding=padding, upstream="nonfinite-padding", rank=2)
        for padding in ("zero", "last")
    ),
    Structure(gradient="sparse", size="most", dtype="float64", upstream="plain"),
    *(
        Structure(padding=padding, bound="p2", table="zero-rows", rank=rank, size=size)
        for padding in ("zero", "inner", "last")
        for rank, size in ((2, "tiny"), (1, "some"))
    ),
    *(Structure(size="paced", table="near", mode=mode) for mode in ("grad", "no_grad", "frozen")),
    Structure(size="hot", mode="no_grad"),
    Structure(index_layout=PAIRED, index_dtype="int32", size="some"),
    Structure(index_layout=PAIRED, index_dtype="int32", size="block", mode="no_grad"),
    Structure(weight_layout=PAIRED, size="some", mode="frozen"),
    Structure(program="error", fault="far-offset", padding="zero", rank=2, mode="no_grad"),
    Structure(program="error", fault="too-large", padding="zero", mode="frozen"),
    Structure(program="error", fault="too-large", size="crowd", rank=2),
    Structure(program="error", fault="index-float32", size="no-indices"),
    Structure(program="error", fault="weight-3d"),
    Structure(program="error", fault="negative", size="some", rank=2),
    *(
        Structure(program="error", fault=fault, weight_layout="expanded", mode=mode)
        for fault in ("too-large", "negative")
        for mode in ("frozen", "no_grad")
    ),
    *(Structure(upstream="nonfinite", size=size) for size in ("many", "most")),
    *(Structure(gradient="scaled", size=size, upstream="plain") for size in ("wide", "widest")),
    Structure(gradient="sparse", index_layout="transposed", rank=2, size="some"),
    Structure(gradient="sparse", index_layout="swapped", rank=3, size="some"),
    *(Structure(weight_layout=COLUMN_SLICE, bound=bound, size="some") for bound in ("p1", "pinf")),
    *(Structure(size="tall", table="special", mode=mode) for mode in ("frozen", "no_grad")),
    Structure(size="tall", bound="p2"),
    Structure(program="error", fault="too-large", size="tall"),
    Structure(program="error", fault="too-large", size="tall", mode="frozen"),
    *(
        Structure(program="error", fault="negative", size="crowd", index_dtype="int32", mode=mode)
        for mode in ("frozen", "no_grad")
    ),
    Structure(program="error", fault="negative", size="crowd", mode="frozen"),
    *(
        Structure(upstream="scales", size=size, dtype=dtype)
        for size in ("tiny", "some", "many")
        for dtype in ("float32", "bfloat16")
    ),
    *(Structure(upstream="scales", size=size, deterministic=True) for size in ("tiny", "some")),
    Structure(upstream="scales", size="some", gradient="scaled"),
    Structure(size="tall", gradient="scaled", rank=2),
    *(Structure(bound=bound, size="wide") for bound in ("p1", "p0.5", "p1.5")),
    *(Structure(bound="p2", table="minute", dtype=d) for d in ("float16", "float32", "bfloat16")),
    *(
        Structure(bound=bound, table="huge", dtype=dtype, size="block")
        for bound, dtype in (("p2", "float16"), ("pinf", "float32"), ("pinf", "bfloat16"))
    ),
    *(Structure(size="vast", mode=mode) for mode in ("no_grad", "inference", "frozen")),
    *(Structure(program="retain", size=size) for size in ("many", "most")),
    *(
        Structure(program="served", size=size, gradient=gradient)
        for size in ("tall", "block", "some")
        for gradient in ("dense", "scaled")
    ),
    *(Structure(program="double-backward", size=size) for size in ("many", "most")),
    *(Structure(size=size, dtype="float64", upstream="plain") for size in ("many", "most", "hot")),
    *(Structure(bound="p2", table="lone-nan", size=size) for size in MIXED),
    *(
        Structure(program="repeat", bound="p2", weight_layout=layout)
        for layout in ("sliced", "transposed")
    ),
    Structure(gradient="sparse", size="no-indices", bound="p2", weight_layout="transposed"),
    *(Structure(size="most", padding=padding, upstream="plain") for padding in ("zero", "last")),
    *(
        Structure(weight_layout=UNEVEN, size="some", dtype=dtype)
        for dtype in ("float16", "bfloat16", "float32")
    ),
    *(
        Structure(weight_layout=UNEVEN, size="tiles", dtype=dtype, mode="no_grad")
        for dtype in ("float16", "bfloat16", "float32")
    ),
    Structure(weight_layout=UNEVEN, size="tiles", dtype="bfloat16", bound="p2"),
    *(
        Structure(size="tiles", table="special", dtype=dtype, mode=mode)
        for dtype in ("float16", "bfloat16", "float32")
        for mode in ("grad", "no_grad")
    ),
    *(Structure(size="towering", index_dtype=dtype) for dtype in ("int64", "int32")),
    *(Structure(size="longest", bound="p2", table=table) for table in ("spike", "plain")),
    Structure(size="longest", bound="p2", table="spike", dtype="float16"),
    *(Structure(bound=bound, table="dust") for bound in ("p2", "p1", "pinf")),
    *(
        Structure(upstream="gaps", size=size, gradient=gradient)
        for size in ("wide", "block", "many")
        for gradient in ("dense", "sparse")
    ),
    *(Structure(upstream="gaps", size="block", dtype=d) for d in ("float64", "bfloat16")),
    *(
        Structure(upstream="few", size=size, gradient="scaled", dtype=dtype)
        for size in ("hot", "most")
        for dtype in ("float16", "bfloat16", "float32")
    ),
    *(
        Structure(upstream="sizeable", size=size, gradient="scaled", dtype="float16")
        for size in ("tiny", "some", "many")
    ),
    *(Structure(size="most", table="special", mode=mode) for mode in ("grad", "no_grad", "frozen")),
    *(Structure(size="ranked", upstream=upstream) for upstream in ("nonfinite", "wild", "scales")),
    *(Structure(size="populous", gradient=gradient) for gradient in ("scaled", "sparse-scaled")),
    *(
        Structure(size=size, rank=2, upstream_layout="split")
        for size in ("some", "tiles", "block", "many")
    ),
    *(
        Structure(upstream="nonfinite", upstream_layout=layout, size=size, padding=padding)
        for layout in ("expanded", "broadcast")
        for size, padding in (("tiny", "zero"), ("some", "none"))
    ),
)


_FUNCTIONAL: Final = frozenset(structure.through("functional") for structure in DIRECTED)


def is_directed(s: Structure) -> bool:
    """Tell whether a structure is made for a clause or a size, through whichever entry point."""
    plain = s.through("functional")
    return plain in _FUNCTIONAL or (NEAR in s.size and plain == Structure(size=s.size))
