"""The checks of a backend's module form: what its class makes, takes, and does with its table."""

from __future__ import annotations

import warnings
from typing import Final

import torch

from embconform.backends.backend import Backend
from embconform.conformance import (
    modules_copies,
    modules_draws,
    modules_made,
    modules_pretrained,
    modules_use,
)
from embconform.conformance.finding import Finding
from embconform.conformance.judging import Ruling
from embconform.conformance.modules_common import Check, Subject
from embconform.conformance.outcome import raised_from
from embconform.conformance.probes import Probe
from embconform.reference.clause import Profile, registry

CHECKS: Final[dict[str, Check]] = {
    "module.weight-is-parameter": modules_made.parameter,
    "module.init-normal": modules_draws.drawn,
    "module.init-scaled-normal": modules_draws.drawn,
    "module.padding-row-zeroed": modules_made.padding_row,
    "module.padding-row-drawn": modules_made.padding_row,
    "module.seeded-init": modules_made.seeded,
    "module.reset-parameters": modules_draws.redrawn,
    "module.dtype": modules_made.dtype_argument,
    "module.padding-out-of-range": modules_made.padding_out_of_range,
    "module.weight-argument": modules_made.weight_shape,
    "module.attributes": modules_made.attributes,
    "module.padding-normalised": modules_made.padding_normalised,
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
    "module.eval-mode": modules_use.eval_mode,
    "module.zero-grad": modules_use.zero_grad,
    "module.freezing": modules_use.freezing,
}


def _run(backend: Backend, profile: Profile, seed: int, device: str) -> list[Ruling]:
    subject = Subject(backend, profile, seed)
    rulings = []
    for clause, check in CHECKS.items():
        entry = registry()[clause]
        if profile not in entry.profiles or not entry.needs <= backend.able:
            continue
        with (
            torch.random.fork_rng(devices=[]),
            torch.device(device),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            try:
                finding = check(subject)
            except Exception as error:
                finding = Finding(f"raised {raised_from(error)}", str(raised_from(error)))
        rulings.append(Ruling(clause, finding))
    return rulings


MODULE_PROBE = Probe("module", frozenset(CHECKS), frozenset({"module"}), _run)
