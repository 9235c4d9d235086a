"""The founding document's layer, as a torch function and as a module.

The only module of the reference that imports torch. Forward it has the document's formulas to
the last bit; the two places where autograd needs help to differentiate them are commented.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def embedding(
    input: Tensor,  # noqa: A002
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
) -> Tensor:
    """Look rows up, mask padding, then scale down what is longer than the bound.

    Nothing is written to: the mask and the scale belong to the output, and the gradient flows
    through both.

    Parameters
    ----------
    input : Tensor of shape (*)
        Indices, int32 or int64, in ``0 .. V - 1``. A negative one counts from the end of the
        table, as the document's ``weight[input]`` does; padding is recognised by equality with
        `padding_idx` before that.
    weight : Tensor of shape (V, D)
        The table.
    padding_idx : int, optional
        The index whose output is 0, whatever the table holds.
    max_norm : float, optional
        The bound on the `norm_type`-norm of each output row.
    norm_type : float
        The p of the p-norm.

    Returns
    -------
    Tensor of shape (*, D)
        Of the dtype of `weight`, sharing no memory with it.

    Raises
    ------
    IndexError
        If an index is outside ``-V .. V - 1``.

    Notes
    -----
    Source: founding document, §1 (1) lookup, §1 (2) padding, §1 (3) normalisation.

    A zero row under a positive bound is an ordinary point: the output is 0 and the gradient
    passes unchanged. Where the formula has no derivative (a norm of exactly `max_norm`; p < 1 at
    a zero component of a row over the bound; ties under p = inf) the gradient is whatever torch's
    norm says, or the plain one.

    Examples
    --------
    >>> weight = torch.tensor([[0.1, 0.2], [3.0, 4.0]])
    >>> embedding(torch.tensor([0, 1]), weight, padding_idx=0, max_norm=1.0)
    tensor([[0.0000, 0.0000],
            [0.6000, 0.8000]])
    """
    output = _rows(input, weight)
    if padding_idx is not None:
        output = output.masked_fill((input == padding_idx).unsqueeze(-1), 0.0)
    if max_norm is not None and output.numel() > 0:
        output = output * _scale(output, max_norm, norm_type)
    return output


def _rows(indices: Tensor, weight: Tensor) -> Tensor:
    """Return ``weight[indices]``, always as a copy and always with its range checked.

    Torch 2.13 answers a 0-d index with a view of the table, and checks no range where the rows
    have no columns.
    """
    if weight.numel() == 0:
        _check_range(indices, weight.shape[0])
    return weight[indices.unsqueeze(0)].squeeze(0)


def _check_range(indices: Tensor, rows: int) -> None:
    bad = indices[(indices < -rows) | (indices >= rows)]
    if bad.numel() > 0:
        raise IndexError(f"index {bad[0].item()} is out of bounds for a table of {rows} rows")


def _scale(output: Tensor, max_norm: float, norm_type: float) -> Tensor:
    """Return ``clamp(max_norm / norms, max=1)`` with its derivative, which is 0 within the bound.

    The document's expression, differentiated literally, is 0 * inf at a zero row: NaN for p = 2,
    1, 0.5 and inf. So the norm and the quotient see rows of ones in the place of rows within the
    bound, and their scale is the constant 1.
    """
    within = max_norm / output.detach().norm(p=norm_type, dim=-1, keepdim=True) >= 1.0
    long = torch.where(within, 1.0, output)
    return torch.where(within, 1.0, max_norm / long.norm(p=norm_type, dim=-1, keepdim=True))


class Embedding(nn.Module):
    """The document's trainable layer.

    Parameters
    ----------
    num_embeddings : int
        The number of rows, V.
    embedding_dim : int
        The number of columns, D.
    padding_idx, max_norm, norm_type
        As in :func:`embedding`.
    device : torch.device or str, optional
        Where the table lives.
    dtype : torch.dtype, optional
        The dtype of the table.

    Attributes
    ----------
    weight : Parameter of shape (V, D)
        Drawn from N(0, 1) and multiplied by 1/sqrt(D), the padding row included.

    Notes
    -----
    Source: founding document, §2. The document says that the draw follows word2vec, whose C code
    draws uniformly from [-0.5/D, 0.5/D]; the formula is what is followed here.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.weight = nn.Parameter(
            torch.empty(num_embeddings, embedding_dim, device=device, dtype=dtype)
        )
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the table from N(0, 1) and multiply it by 1/sqrt(D)."""
        self.weight.normal_().mul_(max(self.embedding_dim, 1) ** -0.5)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Embed indices of shape (*).

        Parameters
        ----------
        input : Tensor of shape (*)

        Returns
        -------
        Tensor of shape (*, D)

        Raises
        ------
        IndexError
            If an index is outside ``-V .. V - 1``.
        """
        return embedding(input, self.weight, self.padding_idx, self.max_norm, self.norm_type)

    def extra_repr(self) -> str:
        """Return what ``repr`` shows between the parentheses."""
        options = {
            "padding_idx": self.padding_idx,
            "max_norm": self.max_norm,
            "norm_type": None if self.norm_type == 2 else self.norm_type,
        }
        shown = "".join(f", {name}={value}" for name, value in options.items() if value is not None)
        return f"{self.num_embeddings}, {self.embedding_dim}{shown}"
