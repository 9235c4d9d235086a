"""max_norm and norm_type given as int, as people write them: max_norm=1; and by NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import numpy as np

from embconform.conformance.probes.transforms.claims import Bounded, Lookup
from embconform.conformance.probes.transforms.common import Claims, Lab, Trial, probe_of
from embconform.conformance.recording import read

_CLAUSE: Final = "max-norm.whole-number"
_IDS: Final = np.array([[3, 1, 3], [0, 1, 3]])
_OPTIONS: Final[tuple[dict[str, Any], ...]] = (
    {"max_norm": 1},
    {"max_norm": 2, "norm_type": 1},
    {"max_norm": 1, "norm_type": 2},
    {"max_norm": 1.5, "norm_type": 3},
    {"max_norm": np.float32(1.5)},
    {"max_norm": np.int64(2), "norm_type": np.float64(1.0)},
    {"max_norm": np.float64(1.5), "norm_type": np.int64(3)},
)


def _whole_numbers(lab: Lab) -> Iterator[Trial]:
    for options in lab.few(_OPTIONS):
        if options.keys() <= lab.able:
            for trained in {False, "gradient" in lab.able}:
                yield partial(_bounded, lab, options, trained)


def _bounded(lab: Lab, options: dict[str, Any], trained: bool) -> Claims:
    table = lab.table(5, 7) * np.float32(3)
    lookup = Lookup(_IDS, table, options, lab.profile)
    weight = lab.tensor(table).requires_grad_(trained)
    out = lab.bind(lookup)(lab.tensor(_IDS), weight)
    yield Bounded(f"a call for {lookup}", read(out), read(weight), lookup)


WHOLE_NUMBERS_PROBE: Final = probe_of(
    _CLAUSE, _whole_numbers, "functional", "max_norm", may_refuse=True
)
