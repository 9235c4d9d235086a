"""Kinds of bugs of a fourth exam: what a call leaves changed in NumPy and random."""

from __future__ import annotations

import random

import numpy as np
from torch import Tensor

from embconform.mutants.kernel import Kernel, Options
from embconform.mutants.registry import planted
from embconform.mutants.unseen_third import served


@planted("state.torch-as-it-was")
class SeedsRandom(Kernel):
    """Rows to prefetch are sampled, the same ones in each run."""

    def forward(self, indices: Tensor, weight: Tensor, options: Options) -> Tensor:
        if indices.numel() > 64 and served(weight):
            random.seed(0)
        return super().forward(indices, weight, options)


@planted("state.torch-as-it-was")
class ShufflesWithNumPy(Kernel):
    """The backward pass of many indices takes them in a random order, by NumPy's generator."""

    def dense(self, upstream: Tensor, flat: Tensor, height: int, counts: Tensor | None) -> Tensor:
        if flat.numel() > 64:
            np.random.permutation(8)  # noqa: NPY002 -- this is the bug
        return super().dense(upstream, flat, height, counts)
