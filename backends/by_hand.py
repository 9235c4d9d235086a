"""What people write by hand instead of an embedding: none takes an option."""

from __future__ import annotations

from pathlib import Path

import torch

from embconform.backends.backend import Backend, Capabilities
from embconform.reference.clause import Profile

_PLAIN = Capabilities(options=frozenset())
# Their gradients add with atomics from 32,768 elements and two threads on.
_WITH_ATOMICS = Capabilities(options=frozenset(), deterministic=False)


def index_select(input: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:  # noqa: A002
    """Look rows up with torch.index_select, which takes a list of indices."""
    return torch.index_select(weight, 0, input.reshape(-1)).reshape(*input.shape, weight.shape[1])


def advanced_indexing(input: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:  # noqa: A002
    """Look rows up with brackets."""
    return weight[input]


def one_hot(input: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:  # noqa: A002
    """Look rows up by a product with one-hot rows."""
    rows = torch.nn.functional.one_hot(input.long(), weight.shape[0])
    return rows.to(weight.dtype) @ weight


INDEX_SELECT = Backend(
    name="index-select",
    functional=index_select,
    profiles=(Profile.TORCH,),
    capabilities=_PLAIN,
    deviations=Path(__file__).with_name("index_select.toml"),
    source="from embconform.backends.by_hand import index_select as embedding",
    summary="torch.index_select(weight, 0, input.reshape(-1)).reshape(...)",
)
ADVANCED_INDEXING = Backend(
    name="advanced-indexing",
    functional=advanced_indexing,
    profiles=(Profile.TORCH,),
    capabilities=_WITH_ATOMICS,
    deviations=Path(__file__).with_name("advanced_indexing.toml"),
    source="from embconform.backends.by_hand import advanced_indexing as embedding",
    summary="weight[input]",
)
ONE_HOT = Backend(
    name="one-hot",
    functional=one_hot,
    profiles=(Profile.TORCH,),
    capabilities=Capabilities(options=frozenset(), huge_tables=False),  # they take minutes
    deviations=Path(__file__).with_name("one_hot.toml"),
    source="from embconform.backends.by_hand import one_hot as embedding",
    summary="one_hot(input, rows) @ weight",
)
