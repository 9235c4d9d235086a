"""Which structures are sound, and which fit a backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from embconform.backends.backend import Described
from embconform.conformance.cases.layouts import SHARING
from embconform.conformance.cases.structure import BACKWARD_ONLY, Structure, is_counted
from embconform.reference.clause import Profile


def is_sound(s: Structure) -> bool:
    """Tell whether the factors go together: the call is legal, or wrong in the one way meant."""
    return all(rule(s) for rule in _RULES)


def _shape_rules(s: Structure) -> bool:
    if s.rank == 0 and (s.index_layout not in ("contiguous", "offset") or is_counted(s.size)):
        return False
    if s.rank == 0 and s.size in ("no-indices", "no-rows") and s.program != "error":
        return False
    if s.rank < 2 and s.index_layout in ("transposed", "spread", "broadcast", "windows"):
        return False
    if s.index_layout == "swapped" and s.rank < 3:
        return False  # the same as transposed, or nothing at all
    if s.upstream_layout in ("swapped", "pooled", "split") and s.rank < 2:
        return False
    if s.deterministic and (s.program not in ("single", "repeat") or s.mode != "grad"):
        return False
    if s.size in ("hot", "vast") and s.program != "single":
        return False
    return not (s.size == "no-rows" and (s.padding != "none" or s.index_layout in SHARING))


def _table_rules(s: Structure) -> bool:
    if s.weight_layout in SHARING and (
        s.bound != "none"
        or s.program in ("update-weight", "steps", "wandering")
        or s.size == "no-rows"
    ):
        return False
    if s.size in ("no-columns", "no-rows") and s.bound != "none" and s.program != "error":
        return False
    if s.bound == "none":
        return s.table in ("plain", "special", "near")
    if s.table in ("tiny", "dust"):
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
    return not (s.gradient.startswith("sparse") and s.weight_layout in SHARING)


def _upstream_rules(s: Structure) -> bool:
    if s.upstream == "subnormal" and (s.bound, s.gradient, s.padding) != ("none", "dense", "none"):
        return False  # a clause of its own judges the sum, and products would be rounded there
    if s.upstream == "large" and (s.bound, s.gradient) != ("none", "dense"):
        return False
    if s.upstream == "scales" and s.table == "huge":
        return False  # their product is beyond the largest number
    if s.upstream == "nonfinite-padding":
        return s.padding != "none" and s.upstream_layout not in SHARING
    return True


def _fault_rules(s: Structure) -> bool:
    if s.program == "wandering":
        return s.fault in ("none", "too-large")
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
    _upstream_rules,
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
        "huge_tables": s.size == "towering",
        "strided": s.weight_layout not in ("contiguous", "offset", "rows")
        or s.index_layout not in ("contiguous", "offset"),
    }
    return (
        all(name in able for name, needed in needs.items() if needed)
        and s.dtype in backend.capabilities.dtypes
        and s.index_dtype in backend.capabilities.index_dtypes
    )
