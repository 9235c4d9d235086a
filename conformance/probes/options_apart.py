"""Calls on one table and one index tensor whose options change from call to call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final

import numpy as np

from embconform.conformance.cases.case import FROZEN, MODE_WORDS, GradMode
from embconform.conformance.lazy_torch import torch
from embconform.conformance.observe import grad_context, to_numpy
from embconform.conformance.probes.claims import SameBits
from embconform.conformance.probes.transforms.claims import Bounded, Lookup, Rows
from embconform.conformance.probes.transforms.common import (
    Claims,
    Lab,
    Trial,
    probe_of,
    rows_and_gradient,
)
from embconform.conformance.recording import read

_CLAUSE: Final = "state.options-apart"
_IDS: Final = np.array([[3, 1, 3], [0, 1, 3]])
_WITH_GRADIENT: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"padding_idx": 3},
    {"scale_grad_by_freq": True},
    {"padding_idx": 1},
    {"sparse": True},
    {"padding_idx": 3, "scale_grad_by_freq": True},
    {"padding_idx": 0},
    {},
)
_WITHOUT_GRADIENT: Final[tuple[dict[str, Any], ...]] = (
    {"padding_idx": 3},
    {},
    {"max_norm": 1.0, "norm_type": 1.0},
    {"max_norm": 1.0, "norm_type": 2.0},
    {"max_norm": 0.5, "norm_type": 2.0},
    {},
    {"max_norm": 0.5, "norm_type": float("inf")},
    {"padding_idx": 1},
    {"max_norm": 1.0, "norm_type": 1.0},
    {"padding_idx": 1, "max_norm": 0.5, "norm_type": 2.0},
    {"padding_idx": 3, "max_norm": 0.5, "norm_type": 2.0},
    {},
)


_FALLING: Final[tuple[dict[str, Any], ...]] = (
    {"max_norm": 2.0},
    {"max_norm": 1.0},
    {"max_norm": 1.0, "norm_type": 1.0},
    {"max_norm": 0.25, "norm_type": float("inf")},
)


def _one_after_the_other(lab: Lab) -> Iterator[Trial]:
    yield partial(_gradients, lab)
    if lab.device == "cpu" and not lab.backend.compiled:  # elsewhere it may cost the device
        yield partial(_gradients, lab, refused=True)
    modes: tuple[GradMode, ...] = ("frozen", "no_grad", "inference")
    for mode in lab.few(modes, slice(1, 2)):
        yield partial(_without_gradients, lab, mode)
        if "max_norm" in lab.able:
            yield partial(_lower_bounds, lab, mode)


def _gradients(lab: Lab, *, refused: bool = False) -> Claims:
    """Differentiate the same lookup with one set of options after the other.

    Where some are `refused`, so is a call with the options before, for an index out of range.
    """
    table = lab.table(5, 3)
    ids, weight = lab.tensor(_IDS), lab.leaf(table)
    before: dict[str, Any] = {}
    for options in lab.few(_WITH_GRADIENT, slice(-4, None)):
        if not options.keys() <= lab.able:
            continue
        lookup = Lookup(_IDS, table, options, lab.profile)
        told = f"{lookup}, after a {'refused ' * refused}call with {before or 'no options'}"
        if refused:
            bad = lab.tensor(np.append(_IDS, len(table)))
            with suppress(Exception, SystemExit):  # another clause tells
                lab.bind(Lookup(_IDS, table, before, lab.profile))(bad, weight)
        yield from rows_and_gradient(lab, told, lookup, ids, weight)
        before = options


def _without_gradients(lab: Lab, mode: GradMode) -> Claims:
    """Look up with one set of options after the other, the table written anew before each."""
    table = lab.table(5, 3)
    ids, weight = lab.tensor(_IDS), lab.tensor(table).requires_grad_(mode not in FROZEN)
    before: dict[str, Any] = {}
    for options in lab.few(_WITHOUT_GRADIENT, slice(-5, None)):
        if not options.keys() <= lab.able:
            continue
        lookup = Lookup(_IDS, table, options, lab.profile)
        with grad_context(mode):
            with torch.no_grad():
                weight.copy_(lab.tensor(table))
            out = lab.bind(lookup)(ids, weight)
        what = f"{lookup} {MODE_WORDS[mode]}, after a call with {before or 'no options'}"
        if "max_norm" in options:
            yield Bounded(what, read(out), read(weight), lookup)
        else:
            yield Rows(f"the output for {what}", read(out), lookup)
            yield SameBits(f"the table after {what}", to_numpy(weight), table)
        before = options


def _lower_bounds(lab: Lab, mode: GradMode) -> Claims:
    """Look up under one bound after the other, nothing being written between."""
    table = lab.table(5, 3) * np.float32(4)
    ids, weight = lab.tensor(_IDS), lab.tensor(table).requires_grad_(mode not in FROZEN)
    before: dict[str, Any] = {}
    for options in lab.few(_FALLING, slice(2)):
        if not options.keys() <= lab.able:
            continue
        lookup = Lookup(_IDS, to_numpy(weight), options, lab.profile)
        with grad_context(mode):
            out = lab.bind(lookup)(ids, weight)
        told = f"{lookup} {MODE_WORDS[mode]}, after a call with {before or 'no options'}"
        yield Bounded(told, read(out), read(weight), lookup)
        before = options


OPTIONS_PROBE: Final = probe_of(_CLAUSE, _one_after_the_other, "functional", "gradient")
