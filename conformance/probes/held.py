"""A function as a module that holds its table, for what takes modules only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class Held(nn.Module):
    """A function as a module that holds its table."""

    def __init__(self, function: Callable[..., Any], weight: Tensor, options: dict[str, Any]):
        super().__init__()
        self.function, self.options = function, options
        self.weight = nn.Parameter(weight)

    def forward(self, ids: Tensor) -> Any:
        """Look rows up."""
        return self.function(ids, self.weight, **self.options)
