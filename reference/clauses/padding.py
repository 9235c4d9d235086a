"""padding_idx."""

from embconform.reference.clause import BOTH, TEXTBOOK, TORCH, Clause, Level

_DOCUMENT = "founding document, §1 (2)"
_FUNCTIONAL = "torch.nn.functional.embedding, documentation of padding_idx"
_PADDING = frozenset({"padding_idx"})
_PADDING_GRADIENT = frozenset({"padding_idx", "gradient"})

CLAUSES = (
    Clause(
        "padding.row-returned",
        Level.MUST,
        TORCH,
        "The output at padding_idx is the stored row, whatever it holds.",
        f"{_FUNCTIONAL}; pytorch/pytorch#46585, fixed in #53368",
        "weight = torch.tensor([[5.0], [6.0]])\n"
        "embedding(torch.tensor([0]), weight, padding_idx=0)  # [[5.]]",
        _PADDING,
    ),
    Clause(
        "padding.output-is-zero",
        Level.MUST,
        TEXTBOOK,
        "The output is 0 wherever the index equals padding_idx, whatever the table holds.",
        f"{_DOCUMENT}: masked_fill at input == padding_idx",
        "weight = torch.tensor([[5.0], [6.0]])\n"
        "embedding(torch.tensor([0, 1]), weight, padding_idx=0)  # [[0.], [6.]]",
        _PADDING,
    ),
    Clause(
        "padding.gradient-is-zero",
        Level.MUST,
        BOTH,
        "The gradient of row padding_idx is exactly 0.",
        f"{_FUNCTIONAL}: entries at padding_idx do not contribute to the gradient",
        "embedding(torch.tensor([1, 2]), weight, padding_idx=1).sum().backward()\n"
        "weight.grad[1]  # zeros",
        _PADDING_GRADIENT,
    ),
    Clause(
        "padding.nonfinite-upstream",
        Level.MUST,
        BOTH,
        "The gradient of row padding_idx is exactly 0 also where the upstream gradient at padding "
        "holds Inf or NaN: the mask selects, it does not multiply.",
        f"{_FUNCTIONAL}; {_DOCUMENT}: padding does not affect learning",
        "out = embedding(torch.tensor([1]), weight, padding_idx=1)\n"
        "out.backward(torch.full_like(out, torch.inf))  # weight.grad is all zeros",
        _PADDING_GRADIENT,
    ),
    Clause(
        "padding.zero-is-an-index",
        Level.MUST,
        BOTH,
        "padding_idx=0 means row 0; it is not the absence of padding.",
        f"{_FUNCTIONAL}; {_DOCUMENT}: padding_idx = 0 gives w0 = 0",
        "embedding(torch.tensor([0, 1]), weight, padding_idx=0).sum().backward()\n"
        "weight.grad[0]  # zeros",
        _PADDING_GRADIENT,
    ),
    Clause(
        "padding.negative",
        Level.MUST,
        TORCH,
        "padding_idx=-k means row num_embeddings - k.",
        "torch/nn/functional.py::embedding; pytorch/pytorch#3233",
        "embedding(torch.tensor([3]), weight, padding_idx=-1).sum().backward()\n"
        "weight.grad[3]  # zeros, for a table of 4 rows",
        _PADDING_GRADIENT,
    ),
    Clause(
        "padding.whole-number",
        Level.MAY,
        BOTH,
        "padding_idx given as an integer of NumPy means what it means as int, or is refused.",
        "torch.nn.Embedding: padding_idx (int, optional); torch 2.13, observed: these are taken",
        "embedding(ids, weight, padding_idx=numpy.int64(3))  # as padding_idx=3",
        _PADDING_GRADIENT,
    ),
    Clause(
        "padding.other-rows",
        Level.MUST,
        BOTH,
        "With padding_idx set, the gradient of every other row is the sum over its own indices.",
        "pytorch/pytorch#26302: one index dropped",
        "embedding(torch.tensor([0, 1, 1]), weight, padding_idx=0).sum().backward()\n"
        "weight.grad[1]  # twos",
        _PADDING_GRADIENT,
    ),
    Clause(
        "padding.all-padding",
        Level.MUST,
        BOTH,
        "A call in which every index is padding_idx has an all-zero gradient.",
        "pytorch/pytorch#5472, fixed in #6211",
        "embedding(torch.tensor([2, 2]), weight, padding_idx=2).sum().backward()\n"
        "weight.grad  # zeros everywhere",
        _PADDING_GRADIENT,
    ),
    Clause(
        "padding.many-indices",
        Level.MUST,
        BOTH,
        "Padding holds for every number of indices, on both sides of the sizes at which kernels "
        "switch.",
        "pytorch/pytorch#26302: padding ignored from 769 indices on",
        "ids = torch.zeros(769, dtype=torch.long)\n"
        "embedding(ids, weight, padding_idx=0).sum().backward()  # weight.grad[0] is zeros",
        _PADDING_GRADIENT,
    ),
    Clause(
        "padding.row-untouched",
        Level.MUST,
        BOTH,
        "Without max_norm the stored row padding_idx keeps its bits through forward and backward.",
        "fairseq#4076; torch.nn.Embedding zeroes it at initialisation only",
        "before = weight.clone()\n"
        "embedding(ids, weight, padding_idx=1).sum().backward()  # weight equals before",
        _PADDING,
    ),
    Clause(
        "padding.out-of-range",
        Level.MUST,
        TORCH,
        "A padding_idx outside -num_embeddings..num_embeddings-1 raises.",
        "torch/nn/functional.py::embedding: AssertionError",
        "embedding(torch.tensor([0]), torch.zeros(4, 2), padding_idx=4)  # raises\n"
        "embedding(torch.tensor([0]), torch.zeros(4, 2), padding_idx=-5)  # raises",
        _PADDING,
    ),
)
