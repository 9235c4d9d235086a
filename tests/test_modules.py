"""Modules: right ones pass, what a class lacks is unsupported, the draw is tested at its level."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from embconform.backends.adapt import as_backend
from embconform.backends.backend import OPTIONS, Backend
from embconform.backends.eager import BACKEND as EAGER
from embconform.backends.textbook import BACKEND as TEXTBOOK
from embconform.conformance.probes.modules import draws as modules_draws
from embconform.conformance.probes.modules.common import Subject
from embconform.conformance.probes.modules.registry import CHECKS, MODULE_PROBES, WITHOUT_MEMORY
from embconform.conformance.report import Status
from embconform.conformance.running.engine import RunOptions, run
from embconform.mutants.module import Layer
from embconform.reference.clause import Profile, registry
from embconform.right import RIGHT

BACKENDS = [EAGER, TEXTBOOK, as_backend("Table", RIGHT[-1]), as_backend("Layer", Layer)]


class Bare(nn.Module):
    """A module with nothing but a table."""

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_embeddings, embedding_dim))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return nn.functional.embedding(input, self.weight)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_right_modules_pass(backend: Backend, seed: int) -> None:
    runs = [probe.run(backend, backend.profiles[0], seed, "cpu") for probe in MODULE_PROBES]
    rulings = [ruling for each in runs for ruling in each]
    broken = [r for r in rulings if r.finding is not None and not r.finding.refused]
    assert broken == []


def test_what_a_class_does_not_offer_is_unsupported_and_says_why() -> None:
    report = run(as_backend("Bare", Bare), RunOptions(Profile.TORCH, select="module.*"), target="b")
    seen = {result.clause.id: result for result in report.clauses}
    assert report.conformant
    for clause in (
        "deepcopy",
        "tied",
        "hooks",
        "parametrized",
        "default-dtype",
        "device-context",
        "meta",
    ):
        assert seen[f"module.{clause}"].status is Status.PASS
    assert seen["module.repr"].status is Status.FAIL
    for clause in ("module.from-pretrained", "module.reset-parameters", "module.weight-argument"):
        assert seen[clause].status is Status.UNSUPPORTED
        assert "Bare has no" in seen[clause].detail


def test_a_class_that_pickle_cannot_import_is_exempt() -> None:
    class Local(Bare):
        pass

    subject = Subject(as_backend("Local", Local), Profile.TORCH, 0)
    (claim,) = CHECKS["module.pickle"](subject)
    finding = claim.judge()
    assert finding is not None
    assert finding.refused
    assert "can't import" in finding.got


def test_a_class_that_keeps_its_number_of_rows_need_not_take_more() -> None:
    class Sized(nn.Embedding):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            if len(self.weight) != self.num_embeddings:
                raise ValueError("resized")
            return super().forward(input)

    subject = Subject(as_backend("Sized", Sized), Profile.TORCH, 0)
    findings = [claim.judge() for claim in CHECKS["module.padding-fixed"](subject)]
    assert all(finding is not None and finding.refused for finding in findings)


def test_a_class_need_not_have_options_that_can_be_set() -> None:
    class Fixed(nn.Embedding):
        def __setattr__(self, name: str, value: Any) -> None:
            if name in OPTIONS and name in self.__dict__:
                raise AttributeError(f"{name} is fixed")
            super().__setattr__(name, value)

    subject = Subject(as_backend("Fixed", Fixed), Profile.TORCH, 0)
    (finding,) = [claim.judge() for claim in CHECKS["module.options-later"](subject)]
    assert finding is not None
    assert finding.refused


def test_a_class_that_needs_its_values_is_not_made_elsewhere() -> None:
    class Checked(nn.Embedding):
        def reset_parameters(self) -> None:
            super().reset_parameters()
            assert bool(self.weight.isfinite().all())

    subject = Subject(as_backend("Checked", Checked), Profile.TORCH, 0)
    (finding,) = [claim.judge() for claim in WITHOUT_MEMORY["module.device-context"](subject)]
    assert finding is not None
    assert finding.refused


@pytest.mark.parametrize(("factor", "right"), [(1 + 2.0**-20, True), (2100 / 2096, False)])
def test_a_sum_of_shares_need_not_be_repeated_to_the_bit(factor: float, right: bool) -> None:
    class Atomic(nn.Embedding):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002
            rows = super().forward(input)
            if self.scale_grad_by_freq and torch.get_default_dtype() != torch.float32:
                rows.register_hook(lambda gradient: gradient * factor)
            return rows

    subject = Subject(as_backend("Atomic", Atomic), Profile.TORCH, 0)
    findings = [claim.judge() for claim in CHECKS["module.default-dtype"](subject)]
    assert (not any(findings)) is right


def test_every_check_has_a_clause() -> None:
    assert CHECKS.keys() | WITHOUT_MEMORY.keys() == {
        clause for clause in registry() if clause.startswith("module.")
    }


# The initial draw


def normal(seed: int, rows: int = 60, width: int = 20) -> Any:
    return np.random.default_rng(seed).standard_normal((rows, width))


def test_number_of_tests_is_what_the_level_counts() -> None:
    assert len(modules_draws.chances(normal(0))) == modules_draws.TESTS
    assert modules_draws.LEVEL * modules_draws.TESTS * modules_draws.TABLES <= 1e-7


def test_each_test_of_the_draw_keeps_its_level() -> None:
    """At 5 %, 2,000 right tables are rejected 100 times at most, up to 4.5 deviations of chance."""
    rejected: Counter[str] = Counter()
    for seed in range(2000):
        for test, chance in modules_draws.chances(normal(seed)).items():
            rejected[test] += chance < 0.05
    assert max(rejected.values()) <= 100 + 4.5 * 95**0.5


@pytest.mark.parametrize(
    ("spoil", "test"),
    [
        (lambda table: table + 0.06, "the sum of all values"),
        (lambda table: table * 1.05, "the sum of all squares"),
        (np.sign, "the distribution of all values"),
        (lambda table: table + 2 * (np.arange(509) == 5)[:, None], "the sum of each row"),
        (lambda table: table + 0.5 * (np.arange(37) == 5), "the sum of each column"),
        (lambda table: table * (np.arange(509) != 5)[:, None], "the sum of squares of each row"),
        (lambda table: table * (np.arange(37) != 5), "the sum of squares of each column"),
        (lambda table: table + table[:, :1] * 0.3, "the spread of the sums of the rows"),
        (lambda table: table + table[:1] * 0.5, "the spread of the sums of the columns"),
        (lambda table: np.repeat(table[:255], 2, axis=0), "the products of neighbouring rows"),
        (lambda table: np.tile(table[:255], (2, 1)), "the products of rows half a table apart"),
        (lambda table: np.repeat(table[:, :18], 2, axis=1), "the products of neighbouring columns"),
        (
            lambda table: np.tile(table[:, :18], (1, 2)),
            "the products of columns half a table apart",
        ),
    ],
)
def test_each_test_of_the_draw_finds_its_fault(spoil: Any, test: str) -> None:
    found = modules_draws.chances(spoil(normal(1, 509, 37)))
    assert found[test] < modules_draws.LEVEL


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("rows", [True, False])
def test_lines_that_come_twice_are_found(rows: bool, sign: int) -> None:
    table = normal(2, 40, 30).astype(np.float32)
    assert modules_draws.NoneTwice("a table", table).judge() is None
    lines = table if rows else table.T
    lines[21] = sign * lines[4]
    finding = modules_draws.NoneTwice("a table", table).judge()
    assert finding is not None
    assert f"1 {'rows' if rows else 'columns'}" in finding.message
