"""sparse=True."""

from embconform.reference.clause import TORCH, Clause, Level

_MODULE = "torch.nn.Embedding, documentation of sparse"
_SPARSE = frozenset({"gradient", "sparse"})
_SPARSE_PADDING = frozenset({"gradient", "sparse", "padding_idx"})

CLAUSES = (
    Clause(
        "sparse.layout",
        Level.MUST,
        TORCH,
        "The gradient is a COO tensor with one sparse dimension, of the shape and dtype of the "
        "table, its entries name rows of the table, and it is marked as coalesced only where no "
        "two entries name one row and they are in order.",
        f"{_MODULE}; pytorch/pytorch#4666: the flag was ignored",
        "embedding(ids, weight, sparse=True).sum().backward()\n"
        "weight.grad.layout == torch.sparse_coo and weight.grad.sparse_dim() == 1",
        _SPARSE,
    ),
    Clause(
        "sparse.rows",
        Level.MUST,
        TORCH,
        "The entries name every row that is looked up and is not padding, also where the upstream "
        "gradient is 0, and no row that is not looked up: optimisers with state move the rows that "
        "are named, and no others.",
        "torch.optim.SparseAdam, documentation: only moments that show up in the gradient are "
        "updated; torch 2.13, observed",
        "embedding(torch.tensor([1, 2]), weight, sparse=True).backward(torch.zeros(2, d))\n"
        "weight.grad.coalesce().indices()  # rows 1 and 2",
        _SPARSE,
    ),
    Clause(
        "sparse.equals-dense",
        Level.MUST,
        TORCH,
        "The entries add up to the dense gradient.",
        _MODULE,
        "embedding(torch.tensor([1, 1]), weight, sparse=True).sum().backward()\n"
        "weight.grad.to_dense()[1]  # twos",
        _SPARSE,
    ),
    Clause(
        "sparse.many-indices",
        Level.MUST,
        TORCH,
        "The entries add up to the dense gradient for every number of indices.",
        _MODULE,
        "ids = torch.arange(1025) % 3\n"
        "embedding(ids, weight, sparse=True).sum().backward()  # 342, 342, 341",
        _SPARSE,
    ),
    Clause(
        "sparse.padding-excluded",
        Level.MUST,
        TORCH,
        "No entry with a value other than 0 names row padding_idx, and the others add up.",
        "pytorch/pytorch#3506: padding ignored",
        "embedding(torch.tensor([0, 1]), weight, padding_idx=0, sparse=True).sum().backward()\n"
        "weight.grad.to_dense()[0]  # zeros",
        _SPARSE_PADDING,
    ),
    Clause(
        "sparse.all-padding",
        Level.MUST,
        TORCH,
        "A call in which every index is padding_idx has a sparse gradient that adds up to 0.",
        "pytorch/pytorch#5472, fixed in #6211",
        "embedding(torch.tensor([0, 0]), weight, padding_idx=0, sparse=True).sum().backward()\n"
        "weight.grad.to_dense()  # zeros everywhere",
        _SPARSE_PADDING,
    ),
    Clause(
        "sparse.scalar-index",
        Level.MUST,
        TORCH,
        "A 0-d index has a sparse gradient, with and without padding_idx.",
        "torch 2.13, observed: with padding_idx the backward pass raises",
        "embedding(torch.tensor(2), weight, padding_idx=0, sparse=True).sum().backward()\n"
        "weight.grad.to_dense()[2]  # ones",
        _SPARSE,
    ),
    Clause(
        "sparse.empty",
        Level.MUST,
        TORCH,
        "No indices give a sparse gradient that adds up to 0.",
        "torch 2.13, observed",
        "embedding(torch.empty(0, dtype=torch.long), weight, sparse=True).sum().backward()\n"
        "weight.grad.to_dense()  # zeros everywhere",
        _SPARSE,
    ),
    Clause(
        "sparse.accumulates",
        Level.MUST,
        TORCH,
        "A second pass, a second use in a graph and a second backward add to the sparse gradient.",
        "pytorch/pytorch#17919: the second backward gave garbage",
        "for _ in range(2):\n"
        "    embedding(ids, weight, sparse=True).sum().backward()  # the sum doubles",
        _SPARSE,
    ),
    Clause(
        "sparse.beside-dense",
        Level.MUST,
        TORCH,
        "Lookups of one table with sparse=True and without add up, in one graph and in passes that "
        "follow each other in any order.",
        "torch.Tensor.backward: accumulates into .grad, of whichever layout; torch 2.13, observed",
        "embedding(ids, weight, sparse=True).sum().backward()\n"
        "embedding(ids, weight).sum().backward()  # the gradient doubles",
        _SPARSE,
    ),
    Clause(
        "sparse.asked-for",
        Level.MUST,
        TORCH,
        "What torch.autograd.grad gives with sparse=True, and what a hook of the table sees, names "
        "every row that is looked up and is not padding, and none that is not looked up, also "
        "where half of the upstream gradient is 0 or some of it is not finite, which shows, and "
        "says rightly whether it is coalesced.",
        "pytorch/pytorch#4666: the flag was ignored; accumulating into .grad drops it; torch 2.13, "
        "observed",
        "out = embedding(torch.tensor([1, 1]), weight, sparse=True)\n"
        "(gradient,) = torch.autograd.grad(out.sum(), weight)\n"
        "gradient.is_coalesced()  # False: row 1 has two entries",
        _SPARSE,
    ),
    Clause(
        "sparse.owns-its-memory",
        Level.SHOULD,
        TORCH,
        "A sparse gradient keeps its entries when the indices or the upstream gradient are written "
        "to after the backward pass.",
        "quality: the buffers of one batch are written to by the next, before or after the step",
        "embedding(ids, weight, sparse=True).backward(upstream)\n"
        "ids.fill_(3)  # weight.grad stays what it was",
        _SPARSE | {"functional"},
        policy=True,
    ),
    Clause(
        "sparse.scale-by-freq",
        Level.MUST,
        TORCH,
        "With scale_grad_by_freq a sparse gradient is divided by the counts or refused with an "
        "error; it is never returned undivided.",
        "torch 2.13, observed: the backward pass raises RuntimeError",
        "out = embedding(ids, weight, scale_grad_by_freq=True, sparse=True)\n"
        "out.sum().backward()  # divides or raises",
        frozenset({"gradient", "sparse", "scale_grad_by_freq"}),
        policy=True,
    ),
    Clause(
        "sparse.optimiser-steps",
        Level.MUST,
        TORCH,
        "After each of three steps of torch.optim.SGD and Adagrad by sparse gradients the table "
        "equals the dense oracle's within a running error bound; rows that were not looked up keep "
        "their bits.",
        f"{_MODULE}: SGD, SparseAdam and Adagrad support sparse gradients; bound: Higham, §3.3",
        "embedding(ids, weight, sparse=True).sum().backward()\n"
        "torch.optim.Adagrad([weight], lr=0.5).step()",
        _SPARSE,
    ),
)
