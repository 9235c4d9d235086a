"""The order of work: a little of everything first, all of it, and no case twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase

from embconform.backends.adapt import as_backend
from embconform.conformance.cases.directed import is_directed
from embconform.conformance.cases.structure import PLAIN, Structure
from embconform.conformance.probes.registry import Probe, probes
from embconform.conformance.running.driver import Batch, Driver
from embconform.conformance.running.work import COSTLY, FIRST, IMPORTING, Draws, Together, units
from embconform.mutants.kernel import Kernel
from embconform.reference.clause import Profile

KERNEL = as_backend("kernel", Kernel())
STRUCTURES = [Structure(rank=rank, dtype=name) for rank in range(120) for name in ("a", "b")]


def probe(name: str) -> Probe:
    return Probe(name, frozenset(), frozenset(), lambda *_: None, lambda *_: [])


def drawn(examples: int, number: int = 0, structure: Structure = PLAIN, seed: int = 0) -> list[Any]:
    """The cases of a round as something that can be compared."""
    return beside((structure,), examples, number, seed)[structure]


def beside(
    structures: tuple[Structure, ...], examples: int, number: int = 0, seed: int = 0
) -> dict[Structure, list[Any]]:
    """The cases of a round of several strata."""
    seen: dict[Structure, list[Any]] = {structure: [] for structure in structures}

    def note(batch: Batch) -> None:
        for case, structure in batch:
            seen[structure].append((case.weight.values.tolist(), repr(case.steps)))

    driver = Driver(Profile.TORCH, seed, compiled=False)
    driver.drive(Draws(structures, examples, number), note, Phase.generate)
    return seen


class TestOrder:
    def test_every_stratum_has_its_first_cases_before_any_has_more(self) -> None:
        work = [unit for unit in units(STRUCTURES, [6] * 240, []) if isinstance(unit, Draws)]
        first = [unit for unit in work if unit.round == 0]
        assert work[: len(first)] == first
        for kind, examples in ((first, FIRST), (work[len(first) :], 6 - FIRST)):
            assert [s for unit in kind for s in unit.structures] == STRUCTURES
            assert {unit.examples for unit in kind} == {examples}

    @pytest.mark.parametrize("share", [1, 2, 3, 14])
    def test_nothing_is_lost(self, share: int) -> None:
        work = units(STRUCTURES, [share] * 240, [probe("cheap"), probe("threads")])
        cases = [unit for unit in work if isinstance(unit, Draws)]
        assert sum(len(unit.structures) * unit.examples for unit in cases) == 240 * share
        assert len(work) - len(cases) == 2

    def test_cheap_probes_come_early_and_costly_ones_after_what_is_made_for_a_clause(self) -> None:
        work = units(STRUCTURES, [2] * 240, [probe("threads"), probe("cheap")])
        names = [unit.name if isinstance(unit, Probe) else "" for unit in work]
        assert 0 < names.index("cheap") < names.index("threads") < len(work) - 1

    def test_what_imports_the_compiler_is_done_by_one_process(self) -> None:
        some = [probe("cheap"), *map(probe, IMPORTING)]
        (unit,) = (one for one in units(STRUCTURES, [2] * 240, some) if isinstance(one, Together))
        assert {each.name for each in unit.probes} == IMPORTING
        assert not any(isinstance(one, Together) for one in units(STRUCTURES, [2] * 240, some[:1]))

    def test_costly_probes_exist(self) -> None:
        assert {probe.name for probe in probes()} >= COSTLY >= IMPORTING

    def test_a_small_limit_leaves_the_last_strata_out(self) -> None:
        work = units(STRUCTURES, [1] * 3, [])
        assert [s for unit in work if isinstance(unit, Draws) for s in unit.structures] == (
            STRUCTURES[:3]
        )

    @pytest.mark.parametrize("batch", [1, 8])
    def test_a_unit_has_strata_that_get_as_many_cases_and_no_more_than_a_batch(
        self, batch: int
    ) -> None:
        shares = [1 + k % 3 // 2 for k in range(240)]
        for unit in units(STRUCTURES, shares, [], batch):
            assert isinstance(unit, Draws)
            assert len(unit.structures) <= batch
            assert len({is_directed(structure) for structure in unit.structures}) == 1


class TestRounds:
    def test_have_the_number_of_cases_asked_for(self) -> None:
        assert len(drawn(2)) == 2
        assert len(drawn(4, 1)) == 4

    @pytest.mark.parametrize("structure", [PLAIN, Structure(program="repeat", size="many")])
    def test_do_not_repeat_each_other(self, structure: Structure) -> None:
        first, second = drawn(FIRST, 0, structure), drawn(12, 1, structure)
        assert not [case for case in second if case in first]

    def test_do_not_depend_on_the_strata_beside(self) -> None:
        structures = (PLAIN, Structure(padding="zero"), Structure(bound="p2"))
        together = beside(structures, 3)
        assert together == {s: beside((s,), 3)[s] for s in structures}
        assert len({repr(cases) for cases in together.values()}) == 3

    def test_are_each_new(self) -> None:
        cases = [repr(case) for case in drawn(40, 1, Structure(rank=2, size="some"))]
        assert len(set(cases)) == 40

    def test_depend_on_the_seed_alone(self) -> None:
        assert repr(drawn(4, 1)) == repr(drawn(4, 1))
        assert repr(drawn(4, 1)) != repr(drawn(4, 1, seed=1))
