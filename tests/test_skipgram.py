"""The reference's half of training on real text: the text, the plan, the exact trajectory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from embconform.backends.backend import Backend
from embconform.conformance.probes.training import observe_training
from embconform.reference import text
from embconform.reference.clause import Profile
from embconform.reference.skipgram import Plan, Trajectory, make_plan, oracle, upstream

Floats = NDArray[np.float64]
EAGER = Backend("eager", functional=F.embedding)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def planned(seed: int = 0) -> Plan:
    return make_plan(text.python_documentation(), seed)


@cache
def exact(seed: int = 0, profile: Profile = Profile.TORCH) -> Trajectory:
    return oracle(planned(seed), profile)


# The oracle and its bound


def autograd_in_float64(plan: Plan, profile: Profile) -> tuple[list[Floats], list[float]]:
    """The same training by torch's own loss and autograd, without anything of the reference."""
    tables = [torch.tensor(table, dtype=torch.float64).requires_grad_() for table in plan.tables]
    keep = torch.ones(len(plan.words), 1, dtype=torch.float64)
    keep[0] = 0
    losses = []
    for c, o, n in zip(plan.centres, plan.contexts, plan.negatives, strict=True):
        read = [table * keep if profile is Profile.TEXTBOOK else table for table in tables]
        u, v, w = read[0][c], read[1][o], read[1][n]
        positive = F.logsigmoid((u[:, None] * v).sum(-1)).sum()
        negative = F.logsigmoid(-(u[:, None] * w).sum(-1)).sum()
        loss = -(positive + negative) / len(c)
        losses.append(float(loss.detach()))
        gradients = torch.autograd.grad(loss, tables)
        with torch.no_grad():
            for table, gradient in zip(tables, gradients, strict=True):
                table.sub_(plan.rate * gradient * keep)
    return [table.detach().numpy() for table in tables], losses


@pytest.mark.parametrize("profile", list(Profile))
def test_oracle_agrees_with_autograd_in_float64(profile: Profile) -> None:
    """Of the bound, float64 needs about 2**-29, the quotient of the unit roundoffs."""
    trajectory = exact(profile=profile)
    tables, losses = autograd_in_float64(planned(), profile)
    for table, right, bound in zip(tables, trajectory.tables, trajectory.bounds, strict=True):
        error = np.linalg.norm(table - right, axis=1)
        assert (error <= bound * 2.0**-25).all()
    assert (np.abs(np.array(losses) - trajectory.losses) <= trajectory.loss_bounds).all()


def test_bound_is_tight() -> None:
    """Eager's error is between a thousandth of the bound and all of it, in every row."""
    seen = observe_training(EAGER, planned())
    assert seen.tables is not None
    for table, right, bound in zip(seen.tables, exact().tables, exact().bounds, strict=True):
        named = bound > 0
        ratio = np.linalg.norm(table - right, axis=1)[named] / bound[named]
        assert ratio.max() <= 1
        assert np.median(ratio) > 1e-2
        assert ratio.min() > 1e-4


def test_row_that_no_batch_names_has_bound_zero() -> None:
    named = np.zeros(len(planned().words), bool)
    named[planned().centres] = True
    named[0] = False
    bound = exact().bounds[0]
    assert np.array_equal(bound > 0, named)
    assert not named.all()
    assert np.array_equal(exact().tables[0][~named], planned().tables[0][~named])


def test_bound_grows_with_the_length_of_the_run() -> None:
    plan = planned()
    half = replace(plan, centres=plan.centres[:25])
    short, long = oracle(half, Profile.TORCH), exact()
    assert all((a <= b).all() for a, b in zip(short.bounds, long.bounds, strict=True))
    assert long.bounds[1].max() > short.bounds[1].max()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("profile", list(Profile))
def test_exact_loss_falls_clearly(seed: int, profile: Profile) -> None:
    losses = exact(seed, profile=profile).losses
    assert losses[-10:].mean() < losses[:10].mean() - 3 * losses[-10:].std()


def test_update_has_the_bits_of_torch_sgd() -> None:
    plan = planned()
    tables = [torch.nn.Parameter(torch.tensor(table)) for table in plan.tables]
    sgd = torch.optim.SGD(tables, lr=plan.rate)
    seen = observe_training(EAGER, replace(plan, centres=plan.centres[:1]))
    ids = [torch.tensor(each[0]) for each in (plan.centres, plan.contexts, plan.negatives)]
    vectors = [F.embedding(i, tables[min(k, 1)], 0) for k, i in enumerate(ids)]
    wanted = upstream(*(vector.detach().numpy() for vector in vectors))
    gradients = [torch.tensor(g) for g in (wanted.centres, wanted.contexts, wanted.negatives)]
    torch.autograd.backward(vectors, gradients)
    sgd.step()
    assert seen.tables is not None
    for table, mine in zip(tables, seen.tables, strict=True):
        assert np.array_equal(table.detach().numpy(), mine)


# The text and the plan


def test_documentation_is_large_enough_to_tell() -> None:
    corpus = text.python_documentation()
    assert len(corpus.ids) > 50_000
    assert len(corpus.words) > 1_100
    assert corpus.words[:2] == ("<padding>", "the")
    assert corpus.counts.sum() == len(corpus.ids)
    assert (corpus.counts[1:] >= text.LEAST).all()
    assert (np.diff(corpus.counts[1:]) <= 0).all()


def test_rare_words_and_sentences() -> None:
    corpus = text.corpus("The cat. The dog! the_end\n\nthe CAT 3.5 x=cat", least=2)
    assert corpus.words == ("<padding>", "the", "cat")
    assert corpus.ids.tolist() == [1, 2, 1, 0, 0, 1, 2, 0, 2]
    assert corpus.sentences.tolist() == [0, 0, 1, 1, 2, 3, 3, 3, 3]
    assert corpus.counts.tolist() == [3, 3, 3]


def test_padding_stands_where_the_sentence_ends() -> None:
    corpus = text.corpus("a b c. a b c. a b", least=1)
    plan = make_plan(corpus, 0, steps=1, batch=8)
    windows = {
        tuple(map(int, (c, *o))) for c, o in zip(plan.centres[0], plan.contexts[0], strict=True)
    }
    assert windows == {
        (1, 0, 0, 2, 3),
        (2, 0, 1, 3, 0),
        (3, 1, 2, 0, 0),
        (1, 0, 0, 2, 0),
        (2, 0, 1, 0, 0),
    }


def test_padding_occurs_among_centres_and_contexts() -> None:
    plan = planned()
    assert ((plan.centres == 0).sum(axis=1) > 0).mean() > 0.9
    assert ((plan.contexts == 0).sum(axis=(1, 2)) > 0).all()
    assert (plan.negatives > 0).all()
    row = plan.tables[0][0]
    assert (row < 0).any()
    assert (row > 0).any()
    assert (row != 0).all()


def test_plan_depends_on_the_seed_alone() -> None:
    again = make_plan(text.python_documentation(), 0)
    assert all(np.array_equal(a, b) for a, b in zip(again.tables, planned().tables, strict=True))
    assert np.array_equal(again.negatives, planned().negatives)
    assert not np.array_equal(again.centres, planned(1).centres)


def test_short_text_is_refused() -> None:
    with pytest.raises(ValueError, match="2 places in the text, 50 x 128 needed"):
        make_plan(text.corpus("a a", least=1), 0)
