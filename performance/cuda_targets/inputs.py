"""Tables, indices and upstream gradients, drawn on the device."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final
from zlib import crc32

import torch

from embconform.performance.cuda_targets.rows import Row
from embconform.performance.ids import zipf_exponent

SETS: Final = 3
"""Index tensors that calls go round."""
PLAIN_EXPONENT: Final = 0.9
"""Where this Python was packaged without the text that the exponent is fitted on: about its fit."""


@dataclass
class Inputs:
    """What all contenders of a row share.

    Attributes
    ----------
    row : Row
    weight : Tensor, shape (V, D)
        Not needed by backward passes; empty there.
    upstream : Tensor, shape (N, D)
        Needed by them alone.
    indices : list of Tensor of int64, shape (N,)
        :data:`SETS` of them.
    distinct : float
        Rows that they name, on average.
    scaled : float
        Rows of these that max_norm scales.
    saved : list of (Tensor, Tensor)
        Under max_norm, for each of the indices its distinct rows, and what the table holds there.
    """

    row: Row
    weight: torch.Tensor
    upstream: torch.Tensor
    indices: list[torch.Tensor]
    distinct: float
    scaled: float = 0.0
    saved: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    _dirty: set[int] = field(default_factory=set)

    @property
    def max_norm(self) -> float:
        """The bound: about half of the rows are longer."""
        return math.sqrt(self.row.width)

    def put_back(self, upcoming: torch.Tensor) -> None:
        """Undo what max_norm has done, before a call with the indices `upcoming`."""
        if not self.saved:
            return
        for turn in self._dirty:
            rows, values = self.saved[turn]
            self.weight.index_copy_(0, rows, values)
        self._dirty = {k for k, known in enumerate(self.indices) if known is upcoming}


class Draws:
    """Makes inputs; large buffers are kept from one row to the next.

    Parameters
    ----------
    device : str
    seed : int
    """

    def __init__(self, device: str, seed: int = 0) -> None:
        self._device, self._seed = device, seed
        self._pool: dict[str, torch.Tensor] = {}
        self.notes: list[str] = []

    def make(self, row: Row) -> Inputs:
        """Draw what a row needs.

        Parameters
        ----------
        row : Row

        Returns
        -------
        Inputs
        """
        generator = torch.Generator(self._device)
        generator.manual_seed(crc32(f"{self._seed} {row.name}".encode()))
        indices = [self._indices(row, generator) for _ in range(SETS)]
        named = [torch.unique(ids) for ids in indices]
        distinct = sum(map(len, named)) / SETS
        backward = row.group in ("backward", "equal")
        empty = torch.empty(0, row.width, device=self._device)
        weight = empty if backward else self._normal("weight", row.rows, row, generator)
        upstream = self._normal("upstream", row.count, row, generator) if backward else empty
        made = Inputs(row, weight, upstream, indices, distinct)
        if row.group == "max_norm":
            made.weight = weight.clone()  # calls write to it
            made.saved = [(rows, weight[rows]) for rows in named]
            norms = [torch.linalg.vector_norm(values.double(), dim=1) for _, values in made.saved]
            made.scaled = sum(int((norm > made.max_norm).sum()) for norm in norms) / SETS
        return made

    def _normal(self, what: str, rows: int, row: Row, generator: torch.Generator) -> torch.Tensor:
        """Give (rows, width) normal values, out of a buffer that is as large as any so far."""
        key, wanted = f"{what} {row.dtype}", rows * row.width
        pool = self._pool.get(key)
        if pool is None or len(pool) < wanted:
            self._pool = {name: kept for name, kept in self._pool.items() if name != key}
            del pool
            pool = torch.empty(wanted, dtype=getattr(torch, row.dtype), device=self._device)
            self._pool[key] = pool.normal_(generator=generator)
        return pool[:wanted].view(rows, row.width)

    def _indices(self, row: Row, generator: torch.Generator) -> torch.Tensor:
        shape, device = (row.count,), self._device
        if row.ids == "equal":
            return torch.full(shape, row.span // 2, device=device)
        if row.ids == "uniform":
            return torch.randint(row.span, shape, generator=generator, device=device)
        ranks = torch.arange(1, row.span + 1, dtype=torch.float64, device=device)
        cumulative = (ranks ** -self._exponent()).cumsum(0)
        drawn = torch.rand(shape, generator=generator, dtype=torch.float64, device=device)
        found = torch.searchsorted(cumulative, drawn * cumulative[-1], right=True)
        return found.clamp_(max=row.span - 1)

    def _exponent(self) -> float:
        try:
            return zipf_exponent()
        except ModuleNotFoundError:
            said = f"no pydoc_data here to fit Zipf's exponent on: it is {PLAIN_EXPONENT}"
            self.notes = [said]
            return PLAIN_EXPONENT
