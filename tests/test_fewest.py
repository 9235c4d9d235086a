"""The fewest strata exercise every clause that cases can, with whatever a target can do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from embconform.backends import compile_static, textbook, tinygrad
from embconform.backends.backend import Backend, Capabilities
from embconform.conformance.cases import fewest
from embconform.conformance.cases.directed import is_directed
from embconform.conformance.cases.strata import strata
from embconform.conformance.judging import judged
from embconform.conformance.options import RunOptions
from embconform.conformance.running.explorer import Explorer
from embconform.conformance.running.in_process import InProcess
from embconform.conformance.running.work import Draws
from embconform.reference.clause import Profile

PLAIN = Capabilities(
    options=frozenset(), dtypes=("float32",), index_dtypes=("int64",), gradient=False,
    double_backward=False, strided=False,
)  # fmt: skip
ABLE = {
    "no option": tinygrad.BACKEND.capabilities,
    "no gradient": PLAIN,
    "no sparse": compile_static.BACKEND.capabilities,
    "all": Capabilities(),
}


def stand_in(able: Capabilities) -> Backend:
    """Torch's own embedding, which takes no time to compile, as a target that does."""
    call = torch.nn.functional.embedding
    return Backend("stand-in", call, capabilities=able, compiled=True, sizes_compiled=True)


def explorer_of(backend: Backend, profile: Profile, seed: int = 0) -> Explorer:
    return Explorer(InProcess(backend), RunOptions(profile, budget="quick", seed=seed))


def never_exercised(explorer: Explorer) -> set[str]:
    """Run the cases, and name the clauses that wanted one and had none."""
    seen: set[str] = set()
    for number, unit in enumerate(explorer.work):
        if isinstance(unit, Draws):
            part = explorer.do(number)
            assert part is not None
            seen |= {clause for clause, tally in part.tallies.items() if tally.exercised}
    return set(explorer.wanted & judged()) - seen


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("able", ABLE)
def test_they_exercise_every_clause(able: str, seed: int) -> None:
    explorer = explorer_of(stand_in(ABLE[able]), Profile.TORCH, seed)
    assert never_exercised(explorer) == set()


def test_they_exercise_the_textbooks_too() -> None:
    backend = replace(textbook.BACKEND, compiled=True, sizes_compiled=True)
    assert never_exercised(explorer_of(backend, Profile.TEXTBOOK)) == set()


def test_a_clause_whose_stratum_is_not_among_them_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = fewest._NAMES - {"program=error fault=far-positive"}
    monkeypatch.setattr(fewest, "_NAMES", names)
    explorer = explorer_of(stand_in(ABLE["no option"]), Profile.TORCH)
    assert never_exercised(explorer) == {"errors.far-away"}


def test_each_of_them_is_a_stratum() -> None:
    found = {
        replace(structure, entry="functional").name
        for able in ABLE.values()
        for structure in strata(stand_in(able), Profile.TORCH, arrays=2, seed=0)
    }
    assert found >= fewest._NAMES


def test_only_a_small_budget_of_what_compiles_is_left_with_few() -> None:
    whole = strata(stand_in(Capabilities()), Profile.TORCH, arrays=2, seed=0)
    few = [s for s in whole if fewest.is_among_the_fewest(s)]
    assert len(few) < len(whole) / 3
    backend = stand_in(Capabilities())
    thorough = Explorer(InProcess(backend), RunOptions(Profile.TORCH, budget="default"))
    others = explorer_of(replace(backend, sizes_compiled=False), Profile.TORCH)
    frugal = explorer_of(backend, Profile.TORCH)
    sizes, structures, every = (
        {s for unit in each.work if isinstance(unit, Draws) for s in unit.structures}
        for each in (frugal, others, thorough)
    )
    assert sizes == set(few)
    assert sizes < structures < set(whole) < every
    pairs = {structure for structure in whole if not is_directed(structure)}
    assert structures >= pairs
    programs = {fewest._program(structure) for structure in sizes}
    assert {fewest._program(structure) for structure in structures - pairs} <= programs


def test_a_target_that_compiles_structures_exercises_every_clause_too() -> None:
    backend = replace(stand_in(Capabilities()), sizes_compiled=False)
    assert never_exercised(explorer_of(backend, Profile.TORCH)) == set()
