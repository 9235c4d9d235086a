"""AOTInductor's packages: a compiler for a few dtypes, none for each size."""

from __future__ import annotations

import pytest
import torch

from embconform.backends import aoti


def test_no_package_is_made_for_another_dtype() -> None:
    with pytest.raises(NotImplementedError, match=r"no package is made for torch\.int8"):
        aoti.embedding(torch.tensor([0]), torch.ones(2, 3, dtype=torch.int8))


def test_a_package_is_asked_for_by_dtypes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[torch.dtype, ...]] = []

    def packaged(*dtypes: torch.dtype) -> object:
        asked.append(dtypes)
        return lambda indices, weight: weight[indices]

    monkeypatch.setattr(aoti, "packaged", packaged)
    table = torch.randn(5, 3)
    for ids in (
        torch.tensor(4),
        torch.tensor([[1, 0], [2, 2]]),
        torch.zeros(2, 0, dtype=torch.int64),
    ):
        assert torch.equal(aoti.embedding(ids, table), table[ids])
    assert set(asked) == {(torch.float32, torch.int64)}


@pytest.mark.slow
@pytest.mark.skipif(aoti.unavailable() is not None, reason=aoti.unavailable() or "")
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_one_package_serves_all_sizes() -> None:
    aoti.packaged.cache_clear()
    for rows, width, count in ((1, 1, 1), (3, 0, 2), (5, 64, 0), (4099, 129, 3001)):
        table = torch.randn(rows, width)
        ids = torch.randint(rows, (count,))
        assert torch.equal(aoti.embedding(ids, table), table[ids])
    assert aoti.packaged.cache_info().misses == 1
