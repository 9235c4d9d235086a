"""Compiles each Triton kernel for a GPU that need not be here, and prints its widest accesses.

``python compile_triton.py 90`` with TRITON_INTERPRET=0: a line a kernel, its name and the widest
load and store of global memory that it has both of, in bytes. Lines ``early-`` say whether a
kernel that is launched early lets the next be launched, and then waits, before all its accesses.
"""

import re
import sys

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from embconform.backends.gpu import triton_kernels, triton_scatter
from embconform.backends.gpu.triton_import import tl, triton

POINTERS = {
    "indices": "*i64",
    "fault": "*i64",
    "report": "*i64",
    "distinct": "*i64",
    "positions": "*i64",
    "chains": "*i64",
    "claims": "*i32",
    "keys": "*i32",
    "numbers": "*i32",
    "scale": "*fp32",
    "partial": "*fp32",
    "total": "*fp32",
    "found": "*i32",
    "max_norm_bits": "i64",
    "p_bits": "i64",
}
COPY = {
    "WORD": tl.int32,
    "LANES": 4,
    "UNITS": 512,
    "OFFSET": tl.int32,
    "ACCUMULATOR": None,
    "EARLY": False,
}
SCALED = {
    "WORD": tl.bfloat16,
    "LANES": 8,
    "UNITS": 512,
    "OFFSET": tl.int64,
    "ACCUMULATOR": tl.float32,
    "EARLY": False,
}
NORM = {
    "unit_stride": 1,
    "ACCUMULATOR": tl.float32,
    "HUGE": 2.0**50,
    "SHRINK": 2.0**-90,
    "SMALLEST_NORMAL": 2.0**-126,
    "LANES": 8,
    "ROWS": 4,
    "BLOCK": 512,
    "WHOLE": True,
}
WIDE_NORM = {
    **NORM,
    "ACCUMULATOR": tl.float64,
    "HUGE": 2.0**450,
    "SHRINK": 2.0**-600,
    "SMALLEST_NORMAL": 2.0**-1022,
    "LANES": 2,
}
WALK = {"KEY_OFFSET": 0, "INDEX": tl.int32, "LANES": 8, "GROUPS": 1, "COLUMNS": 64}
NARROW = {"KEY_OFFSET": 0, "INDEX": tl.int64, "LANES": 4, "GROUPS": 8, "COLUMNS": 8}
CHAIN = {"KEY_OFFSET": 0, "COLUMNS": 256, "AT_ONCE": 8, "LONGEST": 32}
LONG = {"KEY_OFFSET": 0, "COLUMNS": 16, "AT_ONCE": 512}
CHAINS = {**CHAIN, "COLUMNS": 1024, "LONG_COLUMNS": 16, "LONG_AT_ONCE": 128}
HALF = {"weight": "*bf16", "upstream": "*bf16", "out": "*bf16"}
SINGLE = {"weight": "*fp32", "upstream": "*fp32", "out": "*fp32"}
DOUBLE = dict.fromkeys(("weight", "upstream", "out", "scale", "partial", "total"), "*fp64")
WORDS = {"weight": "*i16", "out": "*i16"}

gather, renorm = triton_kernels.gather_kernel, triton_kernels.renorm_kernel
segment, scatter = triton_scatter.segment_kernel, triton_scatter
KERNELS = [
    ("check", triton_kernels.check_kernel, {}, {"IDS": 512}, 4),
    ("gather", gather, WORDS, COPY, 4),
    ("gather-scaled", gather, HALF, SCALED, 4),
    ("claim", triton_kernels.claim_kernel, {"found": "*i64"}, {"IDS": 512}, 4),
    *(
        (f"renorm-{kind}", renorm, {**HALF, "found": "*i64"}, {**NORM, "KIND": kind}, 4)
        for kind in range(7)
    ),
    *(
        (f"renorm-{kind}-wide", renorm, {**DOUBLE, "found": "*i64"}, {**WIDE_NORM, "KIND": kind}, 4)
        for kind in range(7)
    ),
    (
        "rank",
        scatter.rank_kernel,
        {"keys": "*i64", "out": "*fp32", "total": "i64"},
        {
            "KEY": tl.int32,
            "NEVER": 2**31 - 1,
            "MINE": 16,
            "OTHERS": 128,
            "CLEARED": 8192,
            "EARLY": False,
        },
        4,
    ),
    ("accumulate", scatter.accumulate_kernel, SINGLE, {"LANES": 4, "UNITS": 512}, 4),
    ("accumulate-wide", scatter.accumulate_kernel, DOUBLE, {"LANES": 2, "UNITS": 128}, 4),
    *(
        (
            f"{name}-{by_frequency}",
            kernel,
            kinds,
            {**constants, "BY_FREQUENCY": by_frequency, "EARLY": False},
            warps,
        )
        for name, kernel, kinds, constants, warps in (
            ("segment", segment, HALF, WALK, 1),
            ("segment-narrow", segment, SINGLE, NARROW, 1),
            ("segment-wide", segment, DOUBLE, {**NARROW, "LANES": 2}, 1),
            ("chains", scatter.chains_kernel, HALF, CHAINS, 4),
            ("chains-wide", scatter.chains_kernel, DOUBLE, CHAINS, 4),
            ("chain", scatter.chain_kernel, HALF, CHAIN, 1),
            ("chain-wide", scatter.chain_kernel, DOUBLE, CHAIN, 1),
            ("long-chain", scatter.long_chain_kernel, HALF, LONG, 4),
            ("long-chain-wide", scatter.long_chain_kernel, DOUBLE, LONG, 4),
        )
        for by_frequency in (False, True)
    ),
]


def compiled(kernel, kinds, constants, warps, architecture):
    """Compile for a GPU of that compute capability, times 10, and return what came out."""
    names, types = kernel.arg_names, {**POINTERS, **kinds}
    signature = {
        name: "constexpr" if name in constants else types.get(name, "i32") for name in names
    }
    pointers = [name for name in names if signature[name].startswith("*")]
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in pointers},
    )
    target = GPUTarget("cuda", architecture, 32)
    return triton.compile(source, target=target, options={"num_warps": warps})


def widest(ptx, access):
    """Find the widest vector of a kind of access, in bytes."""
    found = re.findall(rf"{access}\.global[.\w]*?(?:\.v(\d))?\.b(\d+)", ptx)
    return max((int(lanes or 1) * int(bits) // 8 for lanes, bits in found), default=0)


def waits_first(ptx):
    """Tell whether dependents are launched and waited for once, before any access."""
    order = r"griddepcontrol\.\w+|\b(?:ld|st|atom|red)\.global"
    steps = re.findall(order, ptx)
    early = ["griddepcontrol.launch_dependents", "griddepcontrol.wait"]
    return steps[:2] == early and not set(early) & set(steps[2:])


def main():
    """Compile all."""
    architecture = int(sys.argv[1])
    for name, kernel, kinds, constants, warps in KERNELS:
        ptx = compiled(kernel, kinds, constants, warps, architecture).asm["ptx"]
        print(name, min(widest(ptx, "ld"), widest(ptx, "st")))  # noqa: T201
        if "EARLY" in constants and architecture >= 90:
            early = {**constants, "EARLY": True}
            ptx = compiled(kernel, kinds, early, warps, architecture).asm["ptx"]
            print(f"early-{name}", waits_first(ptx))  # noqa: T201


if __name__ == "__main__":
    main()
