"""The checks of a backend's module form: what its class makes, takes, and does with its table."""

from __future__ import annotations

from functools import partial
from typing import Final

from embconform.backends.backend import Backend
from embconform.conformance import (
    modules_around,
    modules_contexts,
    modules_copies,
    modules_later,
    modules_made,
    modules_pretrained,
    modules_tied,
    modules_use,
)
from embconform.conformance.claims import Record, judge_records
from embconform.conformance.lazy_torch import torch
from embconform.conformance.modules_common import Check, Subject
from embconform.conformance.probes import Probe
from embconform.conformance.recording import record
from embconform.conformance.settling import Settling
from embconform.reference.clause import Profile, registry

CHECKS: Final[dict[str, Check]] = {
    "module.weight-is-parameter": modules_made.parameter,
    "module.init-normal": modules_made.drawn,
    "module.init-scaled-normal": modules_made.drawn,
    "module.padding-row-zeroed": modules_made.padding_row,
    "module.padding-row-drawn": modules_made.padding_row,
    "module.seeded-init": modules_made.seeded,
    "module.reset-parameters": modules_made.redrawn,
    "module.dtype": modules_made.dtype_argument,
    "module.default-dtype": modules_contexts.dtype_by_default,
    "module.device-context": modules_contexts.device_by_context,
    "module.meta": modules_contexts.meta,
    "module.padding-out-of-range": modules_made.padding_out_of_range,
    "module.weight-argument": modules_made.weight_shape,
    "module.argument-names": modules_made.argument_names,
    "module.attributes": modules_made.attributes,
    "module.padding-normalised": modules_made.padding_normalised,
    "module.padding-fixed": modules_use.padding_fixed,
    "module.options-later": modules_later.options_later,
    "module.repr": modules_made.shown,
    "module.from-pretrained": modules_pretrained.holds_the_rows,
    "module.from-pretrained-shares": modules_pretrained.shares,
    "module.from-pretrained-freezes": modules_pretrained.freezes,
    "module.from-pretrained-options": modules_pretrained.keeps_options,
    "module.from-pretrained-rank": modules_pretrained.checks_rank,
    "module.state-dict": modules_copies.state,
    "module.load-copies": modules_copies.load_copies,
    "module.load-strict": modules_copies.load_strict,
    "module.cast": modules_copies.cast,
    "module.deepcopy": modules_copies.deepcopy,
    "module.pickle": modules_copies.pickled,
    "module.tied": modules_tied.tied,
    "module.table-kept": modules_use.table_kept,
    "module.eval-mode": modules_use.eval_mode,
    "module.zero-grad": modules_use.zero_grad,
    "module.freezing": modules_use.freezing,
    "module.hooks": modules_around.hooks,
    "module.parametrized": modules_around.parametrized,
}


def _observe(
    clause: str, backend: Backend, profile: Profile, seed: int, device: str
) -> tuple[Record, ...]:
    """Run a check, if profile and backend have its clause."""
    entry = registry()[clause]
    if profile not in entry.profiles or not entry.needs <= backend.able:
        return ()
    check = partial(CHECKS[clause], Subject(backend, profile, seed))
    with torch.device(device):
        return (record(clause, check, Settling(backend, device)),)


MODULE_PROBES = tuple(
    Probe(
        clause, frozenset({clause}), frozenset({"module"}), partial(_observe, clause), judge_records
    )
    for clause in CHECKS
)
"""One a clause: a target that crashes in one of them has the others judged."""
