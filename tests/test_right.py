"""Right embeddings, written differently from each other, are accepted."""

from __future__ import annotations

import pytest

from embconform.proof.right import accept, right


@pytest.mark.parametrize(("seed", "name"), list(enumerate(right())))
def test_a_part_of_the_cases_accepts_it(name: str, seed: int) -> None:
    assert accept(name, seed=seed, shard=1 + seed % 3, of=3).refused == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize("name", right())
def test_right_embedding_is_accepted_over_many_seeds(name: str, seed: int) -> None:
    assert accept(name, seed=seed).refused == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", right())
def test_right_embedding_is_accepted_at_the_default_budget(name: str, seed: int) -> None:
    assert accept(name, seed=seed, budget="default").refused == {}
