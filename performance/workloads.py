"""Workloads: which table is asked for how many rows, as data with sources."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Final

import numpy as np
import psutil

from embconform.performance import ids as streams
from embconform.performance.ids import Ids

ITEM_BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
SHARE_OF_MEMORY: Final = 0.4
"""Most of the free memory that a workload may take; the rest is for targets that are wasteful."""
LEAST_ROWS: Final = 64


@dataclass(frozen=True, slots=True)
class Table:
    """A table that exists in the world."""

    name: str
    rows: int
    width: int
    source: str


@dataclass(frozen=True, slots=True)
class Workload:
    """A call: a table, indices and a dtype.

    Attributes
    ----------
    table : Table
    call : str
        What the call is in its application: ``token``, ``prompt``, ``batch``, ``hot``.
    count : int
        Number of indices.
    ids : str
        A kind of :data:`embconform.performance.ids.KINDS`.
    dtype : str
        Of the table, by NumPy's name.
    padding : float
        Share of the indices that are padding.
    source : str
        Why this number of indices.
    default : bool
        Whether it is measured where the user names none.
    adapted : str
        How it was made smaller to fit the memory at hand; empty where it wasn't.
    """

    table: Table
    call: str
    count: int
    ids: str
    dtype: str = "float32"
    padding: float = 0.0
    source: str = ""
    default: bool = False
    adapted: str = ""

    @property
    def name(self) -> str:
        """What the user types, such as ``bert-batch-zipf-pad30-float32``."""
        padded = f"-pad{round(100 * self.padding)}" if self.padding else ""
        return f"{self.table.name}-{self.call}-{self.ids}{padded}-{self.dtype}"

    @property
    def rows(self) -> int:
        """Rows of the table."""
        return self.table.rows

    @property
    def width(self) -> int:
        """Columns of the table."""
        return self.table.width

    @property
    def item(self) -> int:
        """Bytes of an element."""
        return ITEM_BYTES[self.dtype]

    @property
    def padding_idx(self) -> int | None:
        """The padding row, where there is padding."""
        return streams.PADDING if self.padding else None

    @property
    def bytes(self) -> int:
        """Most memory that a pass needs: table, gradient, a temporary, and five row blocks."""
        return self.item * self.width * (3 * self.rows + 5 * self.count)

    def draw(self, rng: np.random.Generator) -> Ids:
        """Draw the indices, shape (count,)."""
        return streams.draw(self.ids, self.rows, self.count, self.padding, rng)


GLOVE = Table("glove", 400_000, 300, "GloVe 6B: 400,000 words, 300 dimensions (Pennington 2014)")
BERT = Table("bert", 30_522, 768, "BERT-base uncased: vocab_size 30522, hidden_size 768")
GPT2 = Table("gpt2", 50_257, 768, "GPT-2 small: n_vocab 50257, n_embd 768")
LLAMA3 = Table("llama3", 128_256, 4_096, "Llama 3 8B: vocab_size 128256, dim 4096")
DLRM_1M = Table("dlrm-1m", 1_000_000, 64, "DLRM on Criteo, tables capped at 1M rows, 64 wide")
DLRM_10M = Table("dlrm-10m", 10_000_000, 128, "MLPerf DLRM: tables capped at 10M rows, 128 wide")
USERS = Table("movielens-users", 162_541, 64, "MovieLens 25M: 162,541 users (README of the data)")
ITEMS = Table("movielens-items", 62_423, 64, "MovieLens 25M: 62,423 films (README of the data)")
HOT = Table("hot-row", 1_000, 384, "pytorch/pytorch issue 137425: rows of 384; 1,000 is our choice")

_CONTEXT = "context length 8,192 of Llama 3"
_TOKEN = "one token of one sequence: a decoding step"
_BERT = "32 sequences of 128, BERT's fine-tuning batch"
_GPT2 = "4 sequences of 1,024, GPT-2's context"
_CRITEO = "2,048 samples, DLRM's training batch"
_PAIRS = "4,096 pairs of user and film"
_HOT = "713,000 equal ids, pytorch/pytorch issue 137425"
_WORDS = "4,096 words of running text, or as many negative samples"

WORKLOADS: Final = (
    Workload(GLOVE, "batch", 4_096, "text", source=_WORDS),
    Workload(GLOVE, "batch", 4_096, "zipf", source=_WORDS),
    Workload(GLOVE, "batch", 4_096, "sorted", source=_WORDS),
    Workload(BERT, "batch", 4_096, "zipf", source=_BERT, default=True),
    Workload(BERT, "batch", 4_096, "zipf", padding=0.3, source=_BERT),
    Workload(BERT, "batch", 4_096, "zipf", padding=0.9, source=_BERT),
    Workload(BERT, "batch", 4_096, "zipf", "bfloat16", source=_BERT, default=True),
    Workload(BERT, "batch", 4_096, "zipf", "float16", source=_BERT),
    Workload(BERT, "batch", 4_096, "text", padding=0.3, source=_BERT, default=True),
    Workload(BERT, "batch", 4_096, "sorted", source=_BERT),
    Workload(BERT, "batch", 4_096, "equal", source=_BERT),
    Workload(BERT, "batch", 4_096, "uniform", source=_BERT),
    Workload(GPT2, "token", 1, "zipf", source=_TOKEN, default=True),
    Workload(GPT2, "batch", 4_096, "zipf", source=_GPT2),
    Workload(GPT2, "batch", 4_096, "text", "float16", source=_GPT2),
    Workload(LLAMA3, "token", 1, "zipf", "bfloat16", source=_TOKEN),
    Workload(LLAMA3, "prompt", 8_192, "zipf", "bfloat16", source=_CONTEXT),
    Workload(LLAMA3, "prompt", 8_192, "text", source=_CONTEXT),
    Workload(DLRM_1M, "batch", 2_048, "uniform", source=_CRITEO),
    Workload(DLRM_1M, "batch", 2_048, "zipf", "float16", source=_CRITEO),
    Workload(DLRM_10M, "batch", 2_048, "zipf", source=_CRITEO),
    Workload(USERS, "batch", 4_096, "uniform", source=_PAIRS, default=True),
    Workload(ITEMS, "batch", 4_096, "zipf", source=_PAIRS, default=True),
    Workload(HOT, "hot", 713_000, "equal", source=_HOT),
    Workload(HOT, "hot", 713_000, "equal", "bfloat16", source=_HOT),
)


def find(pattern: str | None) -> list[Workload]:
    """List workloads.

    Parameters
    ----------
    pattern : str or None
        A shell pattern of names, several joined by commas; None for the default ones.

    Returns
    -------
    list of Workload
        In the order of the patterns, and for each of the table; empty if nothing matches.
    """
    if pattern is None:
        return [workload for workload in WORKLOADS if workload.default]
    wanted = [part.strip() for part in pattern.split(",")]
    found = [w for part in wanted for w in WORKLOADS if fnmatchcase(w.name, part)]
    return list(dict.fromkeys(found))


def free_memory(device: str) -> int:
    """Count the bytes that are free on a device."""
    if device == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    return int(psutil.virtual_memory().available)


def fit(workload: Workload, free: int | None = None) -> Workload:
    """Make a workload small enough for the memory at hand, and let it say so.

    Parameters
    ----------
    workload : Workload
    free : int, optional
        Bytes; what is free in the host's memory by default.

    Returns
    -------
    Workload
        The same object where it fits; otherwise with fewer rows and, where the indices alone are
        too many, fewer indices, and with `adapted` set.
    """
    most = int((free_memory("cpu") if free is None else free) * SHARE_OF_MEMORY)
    if workload.bytes <= most:
        return workload
    line = workload.item * workload.width
    count = max(1, min(workload.count, most // 2 // (5 * line)))
    rows = max(LEAST_ROWS, min(workload.rows, (most - 5 * count * line) // (3 * line)))
    cut = [
        f"{now:,} {what} instead of {wished:,}"
        for now, wished, what in (
            (rows, workload.rows, "rows"),
            (count, workload.count, "indices"),
        )
        if now < wished
    ]
    said = f"{' and '.join(cut)}: {most / 2**30:.2f} GiB may be used"
    table = replace(workload.table, rows=rows)
    return replace(workload, table=table, count=count, adapted=said)
