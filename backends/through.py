"""A torch.nn.Embedding whose lookup goes through another function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch


class EmbeddingThrough(torch.nn.Embedding):
    """The base of the Module forms of functional backends.

    Attributes
    ----------
    lookup : staticmethod
        ``f(input, weight, **options)`` as :func:`torch.nn.functional.embedding`.
    """

    lookup: ClassVar[Callable[..., Any]]

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        """Look rows up.

        Parameters
        ----------
        input : Tensor of int32 or int64
            Indices, of any shape.

        Returns
        -------
        Tensor
            The shape of `input` followed by embedding_dim.
        """
        return type(self).lookup(  # type: ignore[no-any-return]
            input,
            self.weight,
            padding_idx=self.padding_idx,
            max_norm=self.max_norm,
            norm_type=self.norm_type,
            scale_grad_by_freq=self.scale_grad_by_freq,
            sparse=self.sparse,
        )
