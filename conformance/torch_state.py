"""What of torch is the same after a call as before: random state, threads, default dtype, mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, TypeAlias

from embconform.conformance.claims import Must, judge_records
from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes import Probe
from embconform.conformance.torch_threads import torch_threads
from embconform.conformance.transforms_claims import Lookup
from embconform.conformance.transforms_common import Claims, Lab, Trial, observe_check

_CLAUSE: Final = "state.torch-as-it-was"
THREADED: Final = 1500
"""Indices of the largest call: beyond where kernels change their number of threads."""
State: TypeAlias = "dict[str, Any]"


def _state() -> State:
    return {
        "the random state": torch.get_rng_state().tolist(),
        "the number of threads": torch.get_num_threads(),
        "the default dtype": torch.get_default_dtype(),
        "whether gradients are recorded": torch.is_grad_enabled(),
        "whether algorithms are deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def _restore(state: State) -> None:
    """Put back what is not as it was; some of it takes seconds to set, Inductor being told."""
    now = _state()
    restore: dict[str, Callable[[Any], object]] = {
        "the random state": lambda s: torch.set_rng_state(torch.tensor(s, dtype=torch.uint8)),
        "the number of threads": torch.set_num_threads,
        "the default dtype": torch.set_default_dtype,
        "whether gradients are recorded": torch.set_grad_enabled,
        "whether algorithms are deterministic": torch.use_deterministic_algorithms,
    }
    for name, value in state.items():
        if now[name] != value:
            restore[name](value)


def _as_it_was(lab: Lab) -> Iterator[Trial]:
    sizes = (3, 70, THREADED)
    for size in sizes[1:2] if lab.backend.compiled else sizes:
        ids = lab.draw.integers(0, 5, size)
        for options in lab.choices(ids, 6, "padding_idx", "scale_grad_by_freq", "max_norm"):
            yield partial(_passes, lab, Lookup(ids, lab.table(6, 3), options, lab.profile))


def _passes(lab: Lab, lookup: Lookup) -> Claims:
    weight, ids = lab.tensor(lookup.table), lab.tensor(lookup.ids)
    weight.requires_grad_("gradient" in lab.able)
    upstream = lab.tensor(lab.upstream(*lookup.shape))

    def passes() -> None:
        out = lab.bind(lookup)(ids, weight)
        if weight.requires_grad:
            torch.autograd.backward([out], [upstream])

    yield from _unchanged(passes, f"a call for {lookup}")


def _unchanged(call: Callable[[], None], what: str) -> Claims:
    """Compare torch before and after a call, and put it back, whoever changed it."""
    with torch_threads(2):  # with one there would be nothing to take away
        before = _state()
        try:
            call()
            after = _state()
        finally:
            _restore(before)
    for name, value in before.items():
        yield Must(after[name] == value, f"{what} changed {name}")


TORCH_STATE_PROBE: Final = Probe(
    _CLAUSE,
    frozenset({_CLAUSE}),
    frozenset({"functional"}),
    partial(observe_check, (_CLAUSE, _as_it_was)),
    judge_records,
)
