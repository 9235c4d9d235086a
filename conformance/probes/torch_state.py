"""What of torch is the same after a call as before: random state, threads, default dtype, mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final, TypeAlias

from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.claims import Must, judge_records
from embconform.conformance.probes.registry import Probe
from embconform.conformance.probes.torch_threads import torch_threads
from embconform.conformance.probes.transforms.claims import Lookup
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial, observe_check

_CLAUSE: Final = "state.torch-as-it-was"
THREADED: Final = 1500
"""Indices of the largest call: beyond where kernels change their number of threads."""
State: TypeAlias = "dict[str, Any]"
Settings: TypeAlias = "dict[str, tuple[Callable[[], Any], Callable[[Any], object]]]"


def _settings() -> Settings:
    """List what is to stay, and how it is read and set."""
    return {
        "the random state": (
            lambda: torch.get_rng_state().tolist(),
            lambda state: torch.set_rng_state(torch.tensor(state, dtype=torch.uint8)),
        ),
        "the number of threads": (torch.get_num_threads, torch.set_num_threads),
        "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
        "whether gradients are recorded": (torch.is_grad_enabled, torch.set_grad_enabled),
        "whether algorithms are deterministic": (
            torch.are_deterministic_algorithms_enabled,
            torch.use_deterministic_algorithms,
        ),
    }


def _state() -> State:
    return {name: read() for name, (read, _) in _settings().items()}


def _restore(state: State) -> None:
    """Put back what is not as it was; some of it takes seconds to set, Inductor being told."""
    for name, (read, write) in _settings().items():
        if read() != state[name]:
            write(state[name])


def _as_it_was(lab: Lab) -> Iterator[Trial]:
    sizes = (3, 70, THREADED)
    for size in sizes[1:2] if lab.backend.compiled else sizes:
        ids = lab.draw.integers(0, 5, size)
        for options in lab.choices(ids, 6, "padding_idx", "scale_grad_by_freq", "max_norm"):
            yield partial(_passes, lab, Lookup(ids, lab.table(6, 3), options, lab.profile))


def _passes(lab: Lab, lookup: Lookup) -> Claims:
    """Compare torch before and after both passes, and put it back, whoever changed it."""
    weight, ids = lab.tensor(lookup.table), lab.tensor(lookup.ids)
    weight.requires_grad_("gradient" in lab.able)
    upstream = lab.tensor(lab.upstream(*lookup.shape))
    with torch_threads(2):  # with one there would be nothing to take away
        before = _state()
        try:
            out = lab.bind(lookup)(ids, weight)
            if weight.requires_grad:
                torch.autograd.backward([out], [upstream])
            after = _state()
        finally:
            _restore(before)
    for name, value in before.items():
        yield Must(after[name] == value, f"a call for {lookup} changed {name}")


TORCH_STATE_PROBE: Final = Probe(
    _CLAUSE,
    frozenset({_CLAUSE}),
    frozenset({"functional"}),
    partial(observe_check, (_CLAUSE, _as_it_was)),
    judge_records,
)
