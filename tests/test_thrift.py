"""Where programs are compiled, the quick budget has few of them, and each size has one shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import Phase

from embconform.backends import compile as compile_
from embconform.backends import compile_static
from embconform.backends.backend import Backend, Capabilities
from embconform.conformance.cases.case import Call, Case
from embconform.conformance.cases.fewest import is_among_the_fewest
from embconform.conformance.cases.one_shape import _SIZES
from embconform.conformance.cases.soundness import is_sound
from embconform.conformance.cases.strata import strata
from embconform.conformance.cases.structure import PADDINGS, Structure
from embconform.conformance.options import RunOptions
from embconform.conformance.probes.thrift import FIRST, LAST, few, fewest
from embconform.conformance.running.driver import Batch, Driver
from embconform.conformance.running.engine import run
from embconform.conformance.running.work import Draws
from embconform.reference.clause import Profile

WITHOUT_TRANSFORMS = "lookup.*,padding.*,max-norm.*,gradient.*,sparse.*,errors.*,state.*,training.*"
"""Compilers refuse most transforms, which would be counted here."""
MOST = {"sizes": 130, "structures": 110}
"""Programs, each of up to two kernels that take over a second of a core."""


@dataclass
class Compiler:
    """Torch's own embedding, which notes for which calls a compiler would make a program."""

    sizes: bool
    programs: set[Any] = field(default_factory=set)

    def __call__(self, ids: torch.Tensor, weight: torch.Tensor, **options: Any) -> torch.Tensor:
        shapes = [
            (x.dtype, x.shape, x.stride()) if self.sizes else (x.dtype, x.dim(), x.is_contiguous())
            for x in (ids, weight)
        ]
        trained = weight.requires_grad and torch.is_grad_enabled()
        values = dict(options) if self.sizes else {k: bool(v) for k, v in options.items()}
        self.programs.add((*shapes, trained, *sorted(values.items())))
        return torch.nn.functional.embedding(ids, weight, **options)

    def backend(self, able: Capabilities, *, declared: bool = True) -> Backend:
        return Backend(
            "stand-in",
            self,
            capabilities=able,
            compiled=True,
            sizes_compiled=self.sizes and declared,
            threads=1,
        )


@pytest.mark.parametrize("kind", MOST)
def test_few_programs_are_compiled(kind: str) -> None:
    compiler = Compiler(sizes=kind == "sizes")
    able = (compile_static if compiler.sizes else compile_).BACKEND.capabilities
    options = RunOptions(Profile.TORCH, budget="quick", select=WITHOUT_TRANSFORMS)
    report = run(compiler.backend(able), options, target="stand-in")
    assert report.cases > 100
    assert MOST[kind] / 2 < len(compiler.programs) < MOST[kind]


def test_more_would_be_compiled_of_what_does_not_say_that_its_sizes_are() -> None:
    compiler, able = Compiler(sizes=True), compile_static.BACKEND.capabilities
    options = RunOptions(Profile.TORCH, budget="quick", select="state.threads,lookup.views-apart")
    run(compiler.backend(able, declared=False), options, target="stand-in")
    assert len(compiler.programs) > MOST["sizes"] / 2


def drawn(structure: Structure, seed: int) -> list[Case]:
    """Draw three cases from a structure, of its own shape."""
    found: list[Case] = []

    def note(batch: Batch) -> None:
        found.extend(case for case, _ in batch)

    driver = Driver(Profile.TORCH, seed, compiled=True, one_shape=True)
    driver.drive(Draws((structure,), 3), note, Phase.generate)
    return found


def program(case: Case) -> Any:
    """Tell what a case is compiled to, but for what its steps do."""
    shapes = {step.indices.values.shape for step in case.steps if isinstance(step, Call)}
    return case.weight.values.shape, frozenset(shapes), case.options


def test_a_structure_has_one_shape_whatever_the_seed() -> None:
    every = strata(Compiler(sizes=True).backend(Capabilities()), Profile.TORCH, arrays=2, seed=0)
    fewest_ = [s for s in every if is_among_the_fewest(s) and s.program != "error"]
    assert len(fewest_) > 40
    for structure in fewest_:
        cases = [case for seed in (0, 1) for case in drawn(structure, seed)]
        assert len({program(case) for case in cases}) == 1, structure.name
        values = {case.weight.values.tobytes() for case in cases}
        assert len(values) > 1 or not cases[0].weight.values.size


@pytest.mark.parametrize("size", _SIZES)
def test_each_size_has_a_shape_for_every_rank_and_padding(size: str) -> None:
    for rank, padding in product(range(5), PADDINGS):
        structure = Structure(size=size, rank=rank, padding=padding)
        if is_sound(structure):
            for case in drawn(structure, 0):
                (call, *_), height = case.steps, len(case.weight.values)
                assert isinstance(call, Call)
                ids, row = call.indices.values, case.options.padding_idx
                assert ids.ndim == rank or not ids.size
                assert row is None if padding == "none" else -height <= (row or 0) < max(height, 1)


def test_kinds_are_left_out_where_they_are_compiled() -> None:
    plain, structures, sizes = (
        Backend("stand-in", abs, compiled=compiled, sizes_compiled=sizes)
        for compiled, sizes in ((False, False), (True, False), (True, True))
    )
    kinds = ("a", "b", "c")
    assert [few(each, kinds) for each in (plain, structures, sizes)] == [kinds, ("a",), ("a",)]
    assert [few(each, kinds, LAST) for each in (plain, sizes)] == [kinds, ("c",)]
    assert [fewest(each, kinds, FIRST) for each in (plain, structures, sizes)] == [
        kinds,
        kinds,
        ("a",),
    ]
