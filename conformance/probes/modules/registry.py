"""The checks of a backend's module form: what its class makes, takes, and does with its table."""

from __future__ import annotations

from functools import partial
from typing import Final

from embconform.backends.backend import Backend
from embconform.conformance.lazy_torch import torch
from embconform.conformance.probes.claims import Record, judge_records
from embconform.conformance.probes.modules import (
    around,
    casts,
    contexts,
    copies,
    filled,
    hooked,
    later,
    loading,
    made,
    positions,
    pretrained,
    tied,
    use,
)
from embconform.conformance.probes.modules.common import Check, Subject
from embconform.conformance.probes.registry import Probe
from embconform.conformance.recording import record
from embconform.conformance.settling import Settling
from embconform.reference.clause import Profile, registry

CHECKS: Final[dict[str, Check]] = {
    "module.weight-is-parameter": made.parameter,
    "module.init-normal": made.drawn,
    "module.init-scaled-normal": made.drawn,
    "module.padding-row-zeroed": made.padding_row,
    "module.padding-row-drawn": made.padding_row,
    "module.seeded-init": made.seeded,
    "module.reset-parameters": made.redrawn,
    "module.dtype": made.dtype_argument,
    "module.default-dtype": contexts.dtype_by_default,
    "module.padding-out-of-range": made.padding_out_of_range,
    "module.weight-argument": made.weight_shape,
    "module.argument-names": positions.arguments,
    "module.attributes": made.attributes,
    "module.padding-normalised": made.padding_normalised,
    "module.padding-fixed": use.padding_fixed,
    "module.options-later": later.options_later,
    "module.repr": made.shown,
    "module.from-pretrained": pretrained.holds_the_rows,
    "module.from-pretrained-shares": pretrained.shares,
    "module.from-pretrained-freezes": pretrained.freezes,
    "module.from-pretrained-options": pretrained.keeps_options,
    "module.from-pretrained-subclass": pretrained.of_a_subclass,
    "module.from-pretrained-draws-nothing": pretrained.draws_nothing,
    "module.from-pretrained-rank": pretrained.checks_rank,
    "module.state-dict": loading.state,
    "module.load-copies": loading.load_copies,
    "module.load-strict": loading.load_strict,
    "module.load-assign": loading.load_assign,
    "module.cast": casts.cast,
    "module.deepcopy": copies.deepcopy,
    "module.pickle": copies.pickled,
    "module.shallow-copy": copies.shallow,
    "module.tied": tied.tied,
    "module.table-kept": use.table_kept,
    "module.eval-mode": use.eval_mode,
    "module.zero-grad": use.zero_grad,
    "module.freezing": use.freezing,
    "module.hooks": hooked.hooks,
    "module.parametrized": around.parametrized,
    "module.pruned": around.pruned,
}
WITHOUT_MEMORY: Final[dict[str, Check]] = {
    "module.device-context": contexts.device_by_context,
    "module.meta": contexts.meta,
    "module.given-memory": filled.in_every_way,
    "module.reset-parameters": contexts.redrawn,
}
"""Checks on the meta device: together, since the first draw there imports torch's compiler, which
takes a process two seconds."""


def _observe(
    checks: dict[str, Check], backend: Backend, profile: Profile, seed: int, device: str
) -> tuple[Record, ...]:
    """Run those checks whose clause profile and backend have."""
    with torch.device(device):
        return tuple(
            record(
                clause, partial(check, Subject(backend, profile, seed)), Settling(backend, device)
            )
            for clause, check in checks.items()
            if profile in registry()[clause].profiles and registry()[clause].needs <= backend.able
        )


def _probe(name: str, checks: dict[str, Check]) -> Probe:
    observe = partial(_observe, checks)
    return Probe(name, frozenset(checks), frozenset({"module"}), observe, judge_records)


MODULE_PROBES: Final = (
    *(_probe(clause, {clause: check}) for clause, check in CHECKS.items()),
    _probe("modules without memory", WITHOUT_MEMORY),
)
"""One a clause: a target that crashes in one of them has the others judged."""
