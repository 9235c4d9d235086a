"""Training on real text: right backends pass, planted bugs are named, the bound is what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from embconform.backends.backend import Backend, Capabilities
from embconform.conformance.finding import Finding
from embconform.conformance.probes.training import judge_training, observe_training
from embconform.reference import text, textbook
from embconform.reference.clause import Profile, registry
from embconform.reference.skipgram import Plan, Trajectory, make_plan, oracle

SKIPGRAM = "training.skip-gram"
PADDING = "training.padding-row-unmoved"
LOSS = "training.loss-falls"

Rule = Callable[[Tensor, Tensor, int], Tensor]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def planned(seed: int = 0, padding: bool = True) -> Plan:
    return make_plan(text.python_documentation(), seed, padding=padding)


@cache
def exact(seed: int = 0, padding: bool = True, profile: Profile = Profile.TORCH) -> Trajectory:
    return oracle(planned(seed, padding), profile)


def backend(functional: Callable[..., Any]) -> Backend:
    return Backend("under test", functional=functional)


def verdicts(target: Backend, seed: int = 0) -> dict[str, Finding | None]:
    return judge_training(planned(seed), exact(seed), observe_training(target, planned(seed)))


def failed(found: dict[str, Finding | None]) -> dict[str, Finding]:
    return {clause: finding for clause, finding in found.items() if finding is not None}


class _Lookup(torch.autograd.Function):
    """A lookup whose table gradient a rule computes from ids (n,), gradients (n, D) and V."""

    @staticmethod
    def forward(ctx: Any, ids: Tensor, weight: Tensor, rule: Rule) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.rows, ctx.rule = weight.shape[0], rule
        return weight[ids]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None]:
        (ids,) = ctx.saved_tensors
        return None, ctx.rule(ids.flatten(), gradient.flatten(0, -2), ctx.rows), None


def with_rule(rule: Rule) -> Backend:
    def functional(ids: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
        result = _Lookup.apply(ids, weight, rule)  # type: ignore[no-untyped-call]
        assert isinstance(result, Tensor)
        return result

    return backend(functional)


def total(ids: Tensor, gradients: Tensor, rows: int) -> Tensor:
    """The right gradient, padding at row 0."""
    zeros = gradients.new_zeros(rows, gradients.shape[1])
    return zeros.index_add_(0, ids[ids != 0], gradients[ids != 0])


# Right backends


@pytest.mark.parametrize("seed", range(5))
def test_eager_passes(seed: int) -> None:
    found = verdicts(backend(F.embedding), seed)
    assert found == {SKIPGRAM: None, PADDING: None, LOSS: None}
    assert found.keys() <= registry().keys()


@pytest.mark.parametrize("seed", range(5))
def test_document_layer_passes_in_its_profile(seed: int) -> None:
    seen = observe_training(backend(textbook.embedding), planned(seed))
    trajectory = exact(seed, profile=Profile.TEXTBOOK)
    assert not failed(judge_training(planned(seed), trajectory, seen))


def test_profiles_are_told_apart() -> None:
    """The loss isn't masked, so what padding reads decides where the other rows go."""
    document = observe_training(backend(textbook.embedding), planned())
    eager = observe_training(backend(F.embedding), planned())
    assert SKIPGRAM in failed(judge_training(planned(), exact(), document))
    assert SKIPGRAM in failed(judge_training(planned(), exact(profile=Profile.TEXTBOOK), eager))


def in_float64(ids: Tensor, gradients: Tensor, rows: int) -> Tensor:
    return total(ids, gradients.double(), rows).float()


def backwards(ids: Tensor, gradients: Tensor, rows: int) -> Tensor:
    return total(ids.flip(0), gradients.flip(0), rows)


def by_matmul(ids: Tensor, gradients: Tensor, rows: int) -> Tensor:
    hot = F.one_hot(ids, rows).float()
    hot[:, 0] = 0
    return hot.T @ gradients


def largest_first(ids: Tensor, gradients: Tensor, rows: int) -> Tensor:
    order = gradients.norm(dim=1).argsort(descending=True)
    return total(ids[order], gradients[order], rows)


def every_rounding_up(ids: Tensor, gradients: Tensor, rows: int) -> Tensor:
    """Sums that all err to the same side, by as much as rounding may."""
    found = total(ids, gradients, rows)
    counts = torch.bincount(ids, minlength=rows)
    moved = torch.nextafter(found, torch.full_like(found, torch.inf))
    return torch.where((counts > 1)[:, None] & (found != 0), moved, found)


@pytest.mark.parametrize(
    "rule", [total, in_float64, backwards, by_matmul, largest_first, every_rounding_up]
)
def test_every_order_of_summation_passes(rule: Rule) -> None:
    assert not failed(verdicts(with_rule(rule)))


def test_module_form_passes() -> None:
    assert not failed(verdicts(Backend("module", module=torch.nn.Embedding)))


def test_backend_without_padding_gets_a_plan_without() -> None:
    plan = planned(padding=False)
    assert min(ids.min() for ids in (plan.centres, plan.contexts, plan.negatives)) > 0

    def plain(ids: Tensor, weight: Tensor) -> Tensor:
        return weight[ids]

    found = judge_training(plan, exact(padding=False), observe_training(backend(plain), plan))
    assert found == {SKIPGRAM: None, LOSS: None}


def test_index_dtype_is_one_that_the_backend_takes() -> None:
    dtypes = set()

    def functional(ids: Tensor, weight: Tensor, padding_idx: int) -> Tensor:
        dtypes.add(ids.dtype)
        return F.embedding(ids, weight, padding_idx)

    target = Backend("i4", functional, capabilities=Capabilities(index_dtypes=("int32",)))
    assert not failed(verdicts(target))
    assert dtypes == {torch.int32}


# Wrong backends


def drop_last_duplicate(ids: Tensor, gradients: Tensor, rows: int) -> Tensor:
    """One term less per call: the last one whose id has occurred before."""
    counts = torch.bincount(ids, minlength=rows)
    counts[0] = 0
    last = int(torch.nonzero(counts[ids] > 1).max())
    keep = torch.arange(len(ids)) != last
    return total(ids[keep], gradients[keep], rows)


def drop_one_in_twenty(ids: Tensor, gradients: Tensor, rows: int) -> Tensor:
    """One duplicate less in the rows that have about 20."""
    counts = torch.bincount(ids, minlength=rows)
    counts[0] = 0
    row = int((counts - 20).abs().argmin())
    keep = torch.arange(len(ids)) != int(torch.nonzero(ids == row)[-1])
    return total(ids[keep], gradients[keep], rows)


def leak_into_padding(ids: Tensor, gradients: Tensor, rows: int) -> Tensor:
    return gradients.new_zeros(rows, gradients.shape[1]).index_add_(0, ids, gradients)


def ignore_last_column(ids: Tensor, gradients: Tensor, rows: int) -> Tensor:
    found = total(ids, gradients, rows)
    found[:, 63::64] = 0
    return found


def wrong_sign(ids: Tensor, gradients: Tensor, rows: int) -> Tensor:
    return -total(ids, gradients, rows)


def divide_by_count(ids: Tensor, gradients: Tensor, rows: int) -> Tensor:
    counts = torch.bincount(ids, minlength=rows).clamp(min=1)
    return total(ids, gradients, rows) / counts[:, None]


def nothing_above_1024(ids: Tensor, gradients: Tensor, rows: int) -> Tensor:
    found = total(ids, gradients, rows)
    found[1025:] = 0
    return found


def neighbour_row(ids: Tensor, gradients: Tensor, rows: int) -> Tensor:
    """Rows 700 and 701 swap their gradients."""
    found = total(ids, gradients, rows)
    found[[700, 701]] = found[[701, 700]]
    return found


def in_half_precision(ids: Tensor, gradients: Tensor, rows: int) -> Tensor:
    return total(ids, gradients.half(), rows).float()


def in_bfloat16(ids: Tensor, gradients: Tensor, rows: int) -> Tensor:
    return total(ids, gradients.bfloat16(), rows).float()


def not_a_number(ids: Tensor, gradients: Tensor, rows: int) -> Tensor:
    found = total(ids, gradients, rows)
    found[5, 0] = torch.nan
    return found


@pytest.mark.parametrize(
    ("rule", "clause"),
    [
        (drop_last_duplicate, SKIPGRAM),
        (drop_one_in_twenty, SKIPGRAM),
        (leak_into_padding, PADDING),
        (ignore_last_column, SKIPGRAM),
        (wrong_sign, LOSS),
        (wrong_sign, SKIPGRAM),
        (divide_by_count, SKIPGRAM),
        (nothing_above_1024, SKIPGRAM),
        (neighbour_row, SKIPGRAM),
        (in_half_precision, SKIPGRAM),
        (in_bfloat16, SKIPGRAM),
        (not_a_number, SKIPGRAM),
        (not_a_number, LOSS),
    ],
)
def test_planted_bug_is_named(rule: Rule, clause: str) -> None:
    assert clause in failed(verdicts(with_rule(rule)))


@pytest.mark.parametrize(
    ("rule", "untouched"),
    [
        (drop_last_duplicate, {PADDING, LOSS}),
        (ignore_last_column, {PADDING, LOSS}),
        (nothing_above_1024, {PADDING, LOSS}),
        (wrong_sign, {PADDING}),
    ],
)
def test_other_clauses_hold(rule: Rule, untouched: set[str]) -> None:
    assert not untouched & failed(verdicts(with_rule(rule))).keys()


def from_step(first: int, wrong: Rule) -> Rule:
    calls = 0

    def rule(ids: Tensor, gradients: Tensor, rows: int) -> Tensor:
        nonlocal calls
        calls += 1
        chosen = wrong if calls > 3 * (first - 1) else total
        return chosen(ids, gradients, rows)

    return rule


@pytest.mark.parametrize("first", [30, 50])
def test_late_bug_is_found_and_dated(first: int) -> None:
    found = failed(verdicts(with_rule(from_step(first, ignore_last_column))))
    assert found.keys() == {SKIPGRAM}
    finding = found[SKIPGRAM]
    dated = f"the loss is off from step {first + 1} on" in finding.message
    assert dated is (first < planned().steps)
    assert finding.step == min(first, planned().steps - 1)


def test_reads_the_wrong_row() -> None:
    def functional(ids: Tensor, weight: Tensor, padding_idx: int) -> Tensor:
        return F.embedding(torch.where(ids == 1300, 1299, ids), weight, padding_idx)

    assert SKIPGRAM in failed(verdicts(backend(functional)))


def test_dropping_one_of_twenty_is_far_outside() -> None:
    """A dropped duplicate is at least ten times the bound, in the one row that it concerns."""
    finding = failed(verdicts(with_rule(drop_one_in_twenty)))[SKIPGRAM]
    times = float(finding.message.split("(2-norm), ")[1].split(" times")[0])
    assert times > 10


# What can't be trained on


def broken_after(calls_until: int) -> Callable[..., Tensor]:
    calls = 0

    def functional(ids: Tensor, weight: Tensor, padding_idx: int) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > calls_until:
            raise RuntimeError("planted")
        return F.embedding(ids, weight, padding_idx)

    return functional


@pytest.mark.parametrize(
    ("functional", "words"),
    [
        (broken_after(6), "broke off in step 3 of 50: RuntimeError: planted"),
        (lambda ids, weight, padding_idx: weight[ids].detach(), "does not require grad"),
        (lambda ids, weight, padding_idx: weight[ids].double(), "torch.float64 of shape (128, 64)"),
        (lambda ids, weight, padding_idx: weight[ids.flatten()], "shape (512, 64), not torch.f"),
        (lambda ids, weight, padding_idx: None, "returned NoneType, not a tensor"),
        (
            lambda ids, weight, padding_idx: weight.detach()[ids].requires_grad_(),
            "no gradient reached the table",
        ),
    ],
)
def test_broken_run_is_one_finding(functional: Callable[..., Any], words: str) -> None:
    found = verdicts(backend(functional))
    assert found.keys() == {SKIPGRAM}
    assert words in failed(found)[SKIPGRAM].message


def test_backend_gets_copies() -> None:
    """A backend that scribbles over its indices spoils its own run, not the plan."""
    before = planned().contexts.copy()

    def functional(ids: Tensor, weight: Tensor, padding_idx: int) -> Tensor:
        found = F.embedding(ids.clone(), weight, padding_idx)
        ids.zero_()
        return found

    assert not failed(verdicts(backend(functional)))
    assert np.array_equal(planned().contexts, before)


def test_infinite_vectors_warn_of_nothing() -> None:
    def functional(ids: Tensor, weight: Tensor, padding_idx: int) -> Tensor:
        return F.embedding(ids, weight, padding_idx) * torch.inf

    assert failed(verdicts(backend(functional))).keys() == {SKIPGRAM, LOSS}


# What a person reads


def test_message_names_the_word() -> None:
    finding = failed(verdicts(with_rule(nothing_above_1024)))[SKIPGRAM]
    row = int(finding.message.split()[1])
    assert row > 1024
    assert finding.message.startswith(f"row {row} ({planned().words[row]!r}) of the ")
    assert "times its bound; column " in finding.message
    assert "rows are outside" in finding.message
    assert "\n" not in finding.message
    assert abs(float(finding.got) - float(finding.exact)) > float(finding.bound)
    assert finding.ulp is not None
    assert finding.ulp > 1


def test_padding_message_names_table_and_column() -> None:
    finding = failed(verdicts(with_rule(leak_into_padding)))[PADDING]
    assert finding.message == (
        "row 0 ('<padding>') of the input table moved: 64 of 64 columns, column 0 first"
    )
    assert float(finding.exact) == pytest.approx(float(planned().tables[0][0, 0]))


def test_loss_message_shows_both_ends() -> None:
    finding = failed(verdicts(with_rule(wrong_sign)))[LOSS]
    first, last = map(float, finding.got.split(" to "))
    assert first < last
    first, last = map(float, finding.exact.split(" to "))
    assert first > last
