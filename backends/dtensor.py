"""DTensor: an Embedding that several processes hold together, by torch's own parallel styles."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final
from weakref import finalize

import torch

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.foreign import AS_IT_IS, Pullback, bridge
from embconform.backends.ranks import Backward, Forward, close, has_nccl, world
from embconform.reference.clause import Profile

_tickets: Final = count(1)
_unused: Final[list[int]] = []


def _look_up(
    indices: torch.Tensor, weight: torch.Tensor, *, style: str, size: int, **options: Any
) -> tuple[torch.Tensor, Pullback]:
    ranks = world(size)
    ticket = next(_tickets)
    forgotten, _unused[:] = tuple(_unused), []
    device = weight.device.type
    request = Forward(ticket, forgotten, style, _own(indices), _own(weight), options, device)
    output = ranks.ask(request)
    assert output is not None

    def pull(upstream: torch.Tensor) -> torch.Tensor | None:
        anomalies = torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()
        return ranks.ask(Backward(ticket, _own(upstream), anomalies))

    finalize(pull, _unused.append, ticket)
    return output, pull


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """Copy a tensor to the CPU, out of the memory around it, all of which would be sent."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _over(style: str, size: int) -> Callable[..., torch.Tensor]:
    return bridge(partial(_look_up, style=style, size=size), AS_IT_IS)


row, row_3, column, column_3 = (_over(style, n) for style in ("row", "column") for n in (2, 3))


def unavailable() -> str | None:
    """Say why it can't run here, or None."""
    if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
        return "this torch has no torch.distributed with gloo"
    return None


def _backend(
    name: str, functional: Callable[..., torch.Tensor], attr: str, known: str, what: str
) -> Backend:
    return Backend(
        name=name,
        functional=functional,
        profiles=(Profile.TORCH,),
        capabilities=Capabilities(
            options=frozenset({"padding_idx", "scale_grad_by_freq"}),
            double_backward=False,
            huge_tables=False,  # each rank is sent the whole table
            devices=("cpu", "cuda") if has_nccl() else ("cpu",),
        ),
        deviations=Path(__file__).with_name(f"{known}.toml"),
        source=f"from embconform.backends.dtensor import {attr} as embedding",
        summary=what,
    )


ROW = _backend("dtensor-row", row, "row", "dtensor_row", "RowwiseParallel over two gloo processes")
ROW_3 = _backend(
    "dtensor-row-3", row_3, "row_3", "dtensor_row_3", "RowwiseParallel over three gloo processes"
)
COLUMN = _backend(
    "dtensor-col", column, "column", "dtensor_col", "ColwiseParallel over two gloo processes"
)
COLUMN_3 = _backend(
    "dtensor-col-3",
    column_3,
    "column_3",
    "dtensor_col_3",
    "ColwiseParallel over three gloo processes",
)
__all__ = ["COLUMN", "COLUMN_3", "ROW", "ROW_3", "close"]
