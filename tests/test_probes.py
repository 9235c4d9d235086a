"""Probes: what crosses to the judges is plain, tells no expected value, and loses nothing."""

from __future__ import annotations

import dataclasses
import io
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from embconform.backends.adapt import as_backend
from embconform.backends.backend import Backend
from embconform.backends.eager import BACKEND as EAGER
from embconform.conformance.judging import Ruling
from embconform.conformance.probes import claims, optimisers, tables
from embconform.conformance.probes.claims import Claim, Record, Returned
from embconform.conformance.probes.modules import claims as modules_claims
from embconform.conformance.probes.modules.registry import MODULE_PROBES
from embconform.conformance.probes.optimisers import OPTIMISER_PROBE
from embconform.conformance.probes.registry import Probe, probes
from embconform.conformance.probes.tables import TABLE_PROBES
from embconform.conformance.probes.threads import THREAD_PROBE
from embconform.conformance.probes.training import TRAINING_PROBE
from embconform.conformance.probes.transforms import claims as transforms_claims
from embconform.conformance.probes.transforms.eager import TRANSFORM_PROBES
from embconform.mutants.registry import all_planted
from embconform.reference import skipgram, text
from embconform.reference.clause import Profile, registry, spoken_of
from embconform.reference.dtypes import Array, bits

HOMES = ("builtins", "numpy", "ml_dtypes", "embconform.conformance", "embconform.reference")
"""Where the types of an observation may be defined: neither in torch nor with the target."""
EVERY = tuple(probe for probe in probes() if probe.clauses <= spoken_of("cpu").keys())
LARGE_OBSERVATIONS = {"lookup.large-calls": 2 * 10**7}
"""Bytes, where a probe is about size; others have half of that."""
MAX_NORM = "transforms.vmap-max-norm"
LAYOUT_IS_NOTHING = ("state.torch-as-it-was", "state.default-device", "late errors")
"""Probes that read no value."""
OF_FUNCTIONS = [
    probe
    for probe in EVERY
    if "quick" in probe.budgets and probe.name != "huge table" and "module" not in probe.needs
]
each_probe = pytest.mark.parametrize("probe", EVERY, ids=lambda probe: probe.name)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Strict(pickle.Unpickler):
    """Loads nothing but plain data."""

    def find_class(self, module: str, name: str) -> Any:
        assert module.startswith(HOMES), f"an observation holds a {module}.{name}"
        return super().find_class(module, name)


def crossed(observation: Any) -> Any:
    """What arrives in another process."""
    return Strict(io.BytesIO(pickle.dumps(observation))).load()


class NoTorch(TorchDispatchMode):
    """Lets no operation of torch through."""

    def __torch_dispatch__(self, func: Any, *rest: object, **options: object) -> None:
        raise AssertionError(f"a judge calls {func}")


def judged(probe: Probe, observation: Any, backend: Backend, profile: Profile) -> list[Ruling]:
    """Judge as it is done in a process that has no target."""
    with NoTorch():
        return probe.judge(crossed(observation), backend.describe(), profile, 0)


def found(rulings: list[Ruling]) -> list[Any]:
    return [(ruling.clause, ruling.finding) for ruling in rulings]


def broken(rulings: list[Ruling]) -> set[str]:
    return {r.clause for r in rulings if r.finding is not None and not r.finding.refused}


# What crosses


def in_one_process(
    probe: Probe, observation: Any, backend: Backend, profile: Profile
) -> list[Ruling]:
    """What run() makes of the same observation; a second one takes seconds and may differ."""
    observed = dataclasses.replace(probe, observe=lambda *_: observation)
    return observed.run(backend, profile, 0, "cpu")


@each_probe
def test_rulings_on_a_right_target_are_those_of_one_process(probe: Probe) -> None:
    observation = probe.observe(EAGER, Profile.TORCH, 0, "cpu")
    rulings = judged(probe, observation, EAGER, Profile.TORCH)
    of_torch = any(Profile.TORCH in registry()[clause].profiles for clause in probe.clauses)
    assert bool(rulings) is of_torch
    assert found(rulings) == found(in_one_process(probe, observation, EAGER, Profile.TORCH))
    assert len(pickle.dumps(observation)) < LARGE_OBSERVATIONS.get(probe.name, 10**7)


@each_probe
def test_rulings_on_a_planted_bug_are_those_of_one_process(probe: Probe) -> None:
    """Threads may miss each other, and a probe rule on a part of a clause: so there are others."""
    bugs = [bug for bug in all_planted() if bug.clause in probe.clauses]
    for bug in islice(cycle(bugs), max(5, len(bugs))):
        backend, profile = as_backend(bug.where, bug.target), Profile(bug.profile)
        observation = probe.observe(backend, profile, 0, "cpu")
        rulings = judged(probe, observation, backend, profile)
        assert found(rulings) == found(in_one_process(probe, observation, backend, profile))
        if bug.clause in broken(rulings):
            return
    pytest.fail(f"none of {len(bugs)} bugs was caught")


def test_an_observation_that_is_not_plain_is_noticed() -> None:
    with pytest.raises(AssertionError, match=r"holds a torch\."):
        crossed((torch.ones(2),))


def test_claims_are_judged_without_torch() -> None:
    names = ["claims", "modules.claims", "modules.draws", "transforms.claims"]
    modules = [f"embconform.conformance.probes.{name}" for name in names]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'torch'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout.decode().strip() == "[]"


# What does not cross


def sevens(input: Tensor, weight: Tensor, **options: Any) -> Tensor:  # noqa: A002
    """Wrong everywhere, but of the right dtype and shape: nothing that is right comes from it."""
    del options
    rows = torch.full((*input.shape, weight.shape[1]), 7, device=weight.device)
    return (rows + weight.sum() * 0).to(weight.dtype)


class Sevens(nn.Embedding):
    """The same as a module."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return sevens(input, self.weight)


def arrays(value: Any) -> Iterator[Array]:
    """Every array that can be reached, but for what the target returned."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, dict):
        yield from arrays(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from arrays(each)
    elif dataclasses.is_dataclass(value) and not isinstance(value, Returned):
        for field in dataclasses.fields(value):
            yield from arrays(getattr(value, field.name))


def holds(observation: Any, wanted: Array) -> bool:
    """Whether an array of these bits, or of these values in another dtype, can be reached."""
    return any(
        array.shape == wanted.shape
        and (np.array_equal(array, wanted) or np.array_equal(bits(array), bits(wanted)))
        for array in arrays(observation)
    )


def spied(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, at: int) -> list[Array]:
    """Collect what a comparison of a module is given as right, its argument number `at`."""
    right: list[Array] = []
    compare = getattr(module, name)

    def spy(*arguments: Any) -> Any:
        right.append(arguments[at])
        return compare(*arguments)

    monkeypatch.setattr(module, name, spy)
    return right


def every_claim(records: tuple[Record, ...]) -> list[Claim]:
    return [claim for record in records for claim in record.claims]


@pytest.mark.parametrize("probe", TRANSFORM_PROBES, ids=lambda probe: probe.name)
def test_claims_of_lookups_hold_nothing_that_is_right(
    probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = spied(monkeypatch, transforms_claims, "compare", 2)
    target = Sevens if probe.name == "transforms.functional-call" else sevens
    records = probe.observe(as_backend("sevens", target), Profile.TORCH, 0, "cpu")
    assert {str(record.raised) for record in records} == {"None"}
    compared = 0
    for claim in every_claim(records):
        if isinstance(claim, transforms_claims.Bounded):
            continue  # the table after it is right where nothing was looked up
        right.clear()
        claim.judge()
        compared += len(right)
        assert not any(holds(claim, exact) for exact in right), type(claim).__name__
    only_raise = {"transforms.vmap-range", "transforms.vmap-range-alone"}
    assert bool(compared) is (probe.name not in {*only_raise, MAX_NORM})


def test_claims_of_max_norm_hold_no_bounded_row(monkeypatch: pytest.MonkeyPatch) -> None:
    right = spied(monkeypatch, transforms_claims, "compare", 2)
    (probe,) = (p for p in TRANSFORM_PROBES if p.name == MAX_NORM)
    records = probe.observe(as_backend("sevens", sevens), Profile.TORCH, 0, "cpu")
    for claim in every_claim(records):
        assert isinstance(claim, transforms_claims.Bounded)
        right.clear()
        assert claim.judge() is not None
        assert not holds(claim, right[0])


def test_claims_of_casts_hold_nothing_that_is_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    right = spied(monkeypatch, modules_claims, "compare_arrays", 2)
    (probe,) = (probe for probe in MODULE_PROBES if probe.name == "module.cast")
    records = probe.observe(EAGER, Profile.TORCH, 0, "cpu")
    casts = [c for c in every_claim(records) if isinstance(c, modules_claims.CastOf)]
    assert casts
    for claim in casts:
        right.clear()
        assert claim.judge() is None
        inputs = [array for array in (claim.given, claim.ids) if array is not None]
        assert not any(
            array.dtype == right[0].dtype and array.shape == right[0].shape for array in inputs
        )


def test_tables_of_other_dtypes_hold_no_row_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    right = spied(monkeypatch, tables, "same_bits", 2)
    probe, backend = TABLE_PROBES[0], as_backend("sevens", sevens)
    observation = probe.observe(backend, Profile.TORCH, 0, "cpu")
    assert broken(judged(probe, observation, backend, Profile.TORCH)) == probe.clauses
    assert right
    seen = [each.values for each in observation if isinstance(each, Returned)]
    assert not any(holds(seen, exact) for exact in right)


def test_optimiser_steps_hold_none_of_the_oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    right = spied(monkeypatch, optimisers, "within", 2)
    right += spied(monkeypatch, optimisers, "compare_arrays", 2)
    backend = as_backend("sevens", sevens)
    observation = OPTIMISER_PROBE.observe(backend, Profile.TORCH, 0, "cpu")
    judged(OPTIMISER_PROBE, observation, backend, Profile.TORCH)
    assert right
    assert not any(holds(observation, exact) for exact in right)


def test_training_holds_none_of_the_oracle() -> None:
    backend = as_backend("sevens", sevens)
    seen = TRAINING_PROBE.observe(backend, Profile.TORCH, 0, "cpu")
    plan = skipgram.make_plan(text.python_documentation(), 0)
    exact = skipgram.oracle(plan, Profile.TORCH)
    for array in (*exact.tables, *exact.bounds, exact.losses, exact.loss_bounds):
        assert not holds(seen, array)


def test_threads_hold_no_row_that_is_right() -> None:
    backend = as_backend("sevens", sevens)
    observation = THREAD_PROBE.observe(backend, Profile.TORCH, 0, "cpu")
    rows = [seen.rows for thread in observation for seen in thread]
    assert rows
    assert all((each == 7).all() for each in rows)
    assert not any(
        each.any() for thread in observation for seen in thread for each in seen.gradient
    )


def test_a_value_that_is_reachable_is_noticed() -> None:
    rows = np.arange(6.0).reshape(2, 3)
    assert holds(Record("c", (claims.SameBits("rows", rows * 0, rows),), None, 0.0), rows.copy())
    assert not holds(Returned("Tensor", "float64", (2, 3), rows), rows)


# Targets that misbehave


def leaves(input: Tensor, weight: Tensor, **options: Any) -> Tensor:  # noqa: A002
    raise SystemExit("planted")


def nothing(input: Tensor, weight: Tensor, **options: Any) -> None:  # noqa: A002
    return None


def in_sparse(input: Tensor, weight: Tensor, **options: Any) -> Tensor:  # noqa: A002
    return nn.functional.embedding(input, weight).to_sparse()


def endless(input: Tensor, weight: Tensor, **options: Any) -> Tensor:  # noqa: A002
    return torch.zeros((), dtype=weight.dtype).expand(2**40)


class Shaped(nn.Module):
    """Holds a table of another shape."""

    shape: tuple[int, ...] = (3,)

    def __init__(self, num_embeddings: int, embedding_dim: int, **options: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(self.shape))
        self.num_embeddings: Any = torch.tensor([num_embeddings])
        self.padding_idx: Any = object()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return self.weight[input]


class Empty(Shaped):
    shape = (0, 0)


class Deep(Shaped):
    shape = (5, 4, 3)


class Leaving(Shaped):
    def __init__(self, num_embeddings: int, embedding_dim: int, **options: Any) -> None:
        raise SystemExit("planted")


@pytest.mark.parametrize("probe", OF_FUNCTIONS, ids=lambda probe: probe.name)
@pytest.mark.parametrize(
    "target", [leaves, nothing, in_sparse, endless], ids=lambda target: target.__name__
)
def test_whatever_a_function_does_is_recorded_and_judged(
    probe: Probe, target: Callable[..., Any]
) -> None:
    backend = as_backend(target.__name__, target)
    observation = probe.observe(backend, Profile.TORCH, 0, "cpu")
    rulings = judged(probe, observation, backend, Profile.TORCH)
    needs_a_module = probe.name == "transforms.functional-call"
    looks_at_no_layout = probe.name in LAYOUT_IS_NOTHING
    judged_wrong = not needs_a_module and not (looks_at_no_layout and target is in_sparse)
    assert any(ruling.finding for ruling in rulings) is judged_wrong


@pytest.mark.parametrize("target", [Shaped, Empty, Deep, Leaving], ids=lambda cls: cls.__name__)
def test_whatever_a_module_does_is_recorded_and_judged(target: Callable[..., Any]) -> None:
    backend = as_backend(target.__name__, target)
    rulings: list[Ruling] = []
    for probe in MODULE_PROBES:
        observation = probe.observe(backend, Profile.TORCH, 0, "cpu")
        found = judged(probe, observation, backend, Profile.TORCH)
        assert len(found) == len(observation)
        rulings += found
    wrong = {"module.weight-is-parameter", "module.init-normal", "module.attributes"}
    assert wrong <= broken(rulings)


def test_an_unreadable_tensor_of_the_right_kind_is_a_refusal() -> None:
    seen = Returned("Tensor", "float32", (2,))
    finding = claims.compare("it", seen, np.zeros(2, np.float32))
    assert finding is not None
    assert finding.refused


LIMITED = """
import resource
from embconform.backends.adapt import as_backend
from embconform.conformance.probes import tables
from embconform.reference.clause import Profile
import psutil, torch
most = psutil.Process().memory_info().vms + 2**31
resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
psutil.virtual_memory = lambda: type("", (), {"available": 2**40})
backend = as_backend("eager", torch.nn.functional.embedding)
(seen,) = tables._observe_huge(backend, Profile.TORCH, 0, "cpu")
assert isinstance(seen, tables.TooLittleMemory) and seen.free <= 2**31, seen
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_no_huge_table_is_made_where_the_target_may_not_have_the_memory() -> None:
    subprocess.run([sys.executable, "-c", LIMITED], check=True, timeout=120)
