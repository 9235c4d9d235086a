"""The strata: sound, the same everywhere, with all pairs in them and every clause exercised."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from typing import Any

import pytest
import torch

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.deviations import active, load
from embconform.backends.eager import BACKEND as EAGER
from embconform.backends.textbook import BACKEND as TEXTBOOK
from embconform.conformance.cases.directed import is_directed
from embconform.conformance.cases.soundness import fits, is_sound
from embconform.conformance.cases.strata import FAMILIES, strata
from embconform.conformance.cases.structure import PLAIN, Structure
from embconform.conformance.options import BUDGETS, RunOptions
from embconform.conformance.running.engine import run
from embconform.conformance.running.shrinking import plainer
from embconform.reference.clause import Profile

Pair = tuple[tuple[str, Any], tuple[str, Any]]
SINGLE = FAMILIES[0]
WEIGHTY = (
    "dtype",
    "index_dtype",
    "rank",
    "weight_layout",
    "index_layout",
    "padding",
    "bound",
    "gradient",
)
BACKENDS = {Profile.TORCH: EAGER, Profile.TEXTBOOK: TEXTBOOK}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def listed(profile: Profile, budget: str = "quick", seed: int = 0) -> list[Structure]:
    return strata(BACKENDS[profile], profile, arrays=BUDGETS[budget].arrays, seed=seed)


def can_be_sound(family: Mapping[str, Sequence[Any]], pair: Pair) -> bool:
    """Look for a sound structure with this pair, up to two other factors away from plain."""
    start = replace(PLAIN, **dict(pair))
    others = [key for key in family if key not in dict(pair)]
    single = ({key: value} for key in others for value in family[key])
    double = (
        {first: a, second: b}
        for first, second in itertools.combinations(others, 2)
        for a in family[first]
        for b in family[second]
    )
    return any(is_sound(replace(start, **more)) for more in itertools.chain([{}], single, double))


@cache
def sound_pairs() -> frozenset[Pair]:
    """All pairs of the weighty factors of a single call that some sound structure has."""
    pairs = (
        ((first, a), (second, b))
        for first, second in itertools.combinations(WEIGHTY, 2)
        for a in SINGLE[first]
        for b in SINGLE[second]
    )
    return frozenset(pair for pair in pairs if can_be_sound(SINGLE, pair))


def missing_pairs(structures: list[Structure]) -> set[Pair]:
    present: set[Pair] = set()
    for structure in structures:
        values = [(key, getattr(structure, key)) for key in WEIGHTY]
        present.update(itertools.combinations(values, 2))
    return set(sound_pairs()) - present


class TestPairs:
    def test_most_pairs_are_sound(self) -> None:
        assert len(sound_pairs()) > 600

    @pytest.mark.parametrize("seed", [0, 1])
    def test_the_default_budget_has_all_but_a_few(self, seed: int) -> None:
        missing = missing_pairs(listed(Profile.TORCH, "default", seed))
        assert len(missing) <= 3, missing

    @pytest.mark.xfail(
        reason="allpairspy gives up pairs that the filter makes hard to reach", strict=True
    )
    def test_one_array_has_them_all(self) -> None:
        assert not missing_pairs(listed(Profile.TORCH))

    @pytest.mark.parametrize("family", FAMILIES)
    def test_every_value_occurs(self, family: Mapping[str, Sequence[Any]]) -> None:
        found = listed(Profile.TORCH)
        for key, values in family.items():
            assert {getattr(s, key) for s in found} >= set(values)


class TestSoundness:
    @pytest.mark.parametrize("profile", list(Profile))
    def test_all_are_sound_and_fit_once(self, profile: Profile) -> None:
        found = listed(profile)
        assert len(set(found)) == len(found)
        assert len({structure.name for structure in found}) == len(found)
        assert all(fits(structure, BACKENDS[profile], profile) for structure in found)

    def test_the_plainest_comes_first(self) -> None:
        assert listed(Profile.TORCH)[0] == PLAIN
        assert PLAIN.name == "plain"

    def test_the_name_tells_what_is_not_plain(self) -> None:
        assert Structure(rank=2, bound="p1").name == "rank=2 bound=p1"

    @pytest.mark.parametrize(
        "structure",
        [
            Structure(rank=0, index_layout="transposed"),
            Structure(rank=0, size="many"),
            Structure(weight_layout="expanded", bound="p2"),
            Structure(weight_layout="broadcast", program="update-weight"),
            Structure(gradient="sparse", program="double-backward"),
            Structure(mode="no_grad", program="accumulate"),
            Structure(upstream="nonfinite-padding"),
            Structure(program="error"),
            Structure(fault="too-large"),
            Structure(program="error", fault="far-positive", index_dtype="int32"),
            Structure(program="error", fault="padding-above", padding="zero"),
        ],
        ids=lambda structure: structure.name,
    )
    def test_what_makes_no_sense_is_refused(self, structure: Structure) -> None:
        assert not is_sound(structure)


class TestBackends:
    def needs(self, capabilities: Capabilities, **forms: Any) -> list[Structure]:
        backend = Backend("b", capabilities=capabilities, **forms)
        arrays = BUDGETS["quick"].arrays
        return strata(backend, Profile.TORCH, arrays=arrays, seed=0)

    def test_options_that_it_lacks_are_left_out(self) -> None:
        found = self.needs(
            Capabilities(options=frozenset({"padding_idx"})), functional=EAGER.functional
        )
        assert {s.bound for s in found} == {"none"}
        assert {s.gradient for s in found} == {"dense"}
        assert len({s.padding for s in found}) == 5

    def test_dtypes_and_layouts_that_it_lacks_are_left_out(self) -> None:
        lean = Capabilities(dtypes=("float32",), index_dtypes=("int64",), strided=False)
        found = self.needs(lean, functional=EAGER.functional)
        assert {(s.dtype, s.index_dtype) for s in found} == {("float32", "int64")}
        assert {s.weight_layout for s in found} == {"contiguous", "offset", "rows"}

    @pytest.mark.parametrize("form", ["functional", "module"])
    def test_one_entry_point_gets_the_others_structures(self, form: str) -> None:
        found = self.needs(Capabilities(), **{form: getattr(EAGER, form)})
        assert {s.entry for s in found} == {form}
        assert len(found) > 0.9 * len(listed(Profile.TORCH))

    def test_the_textbook_profile_has_no_options_of_torchs(self) -> None:
        found = strata(EAGER, Profile.TEXTBOOK, arrays=1, seed=0)
        assert {s.gradient for s in found} == {"dense"}
        assert "negative" not in {s.padding for s in found}


class TestSeeds:
    def test_the_first_array_is_the_same_for_every_seed(self) -> None:
        first, second = (strata(EAGER, Profile.TORCH, arrays=1, seed=k) for k in (0, 7))
        assert first == second

    def test_the_others_are_not(self) -> None:
        first, second = (strata(EAGER, Profile.TORCH, arrays=2, seed=k) for k in (0, 7))
        assert first != second


class TestShrinking:
    WORST = Structure(rank=2, dtype="bfloat16", padding="last", size="many", upstream="plain")

    def test_goes_back_to_what_the_failure_needs(self) -> None:
        found = plainer(self.WORST, lambda s: s.dtype == "bfloat16" and s.size == "many")
        assert found == Structure(dtype="bfloat16", size="many")

    def test_asks_for_sound_structures_only(self) -> None:
        asked: list[Structure] = []
        start = Structure(padding="zero", upstream="nonfinite-padding")
        plainer(start, lambda s: asked.append(s) or False)
        assert asked
        assert all(map(is_sound, asked))

    def test_keeps_the_structure_where_nothing_plainer_fails(self) -> None:
        assert plainer(self.WORST, lambda _: False) == self.WORST

    def test_keeps_the_fault(self) -> None:
        start = Structure(program="error", fault="negative", rank=2)
        assert plainer(start, lambda _: True) == Structure(program="error", fault="negative")


@pytest.mark.parametrize("seed", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2))])
@pytest.mark.parametrize("profile", list(Profile))
def test_the_quick_budget_exercises_every_clause(profile: Profile, seed: int) -> None:
    backend = BACKENDS[profile]
    assert backend.deviations
    rows = active(load(backend.deviations))
    options = RunOptions(profile, budget="quick", seed=seed, deviations=rows)
    report = run(backend, options, target=backend.name)
    able = backend.able
    for result in report.clauses:
        if "budget leaves it out" not in result.detail:
            assert (result.exercised > 0) is (result.clause.needs <= able), result.clause.id


def test_every_factor_is_varied_in_a_family_or_by_a_clauses_own_stratum() -> None:
    made = [s for s in strata(EAGER, Profile.TORCH, arrays=1, seed=0) if is_directed(s)]
    assert PLAIN in made
    varied = {key for family in FAMILIES for key in family}
    for field in fields(Structure):
        values = {getattr(structure, field.name) for structure in made}
        assert field.name in varied or len(values) > 1
