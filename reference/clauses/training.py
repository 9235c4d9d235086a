"""Training on real text, and the steps of torch's optimisers."""

from embconform.reference.clause import BOTH, TORCH, Clause, Level

_DOCUMENT = "founding document, §2 (learning) and §3 (Word2Vec)"
_RUNNING = "bound: Higham, Accuracy and Stability, 2nd ed., §3.3 (running error)"
_NEEDS = frozenset({"gradient"})

CLAUSES = (
    Clause(
        "training.skip-gram",
        Level.MUST,
        BOTH,
        "After 50 SGD steps of a skip-gram with negative sampling on Python's documentation, the "
        "table equals the oracle's within a running error bound.",
        f"{_DOCUMENT}; bound: Higham, Accuracy and Stability, 2nd ed., §3.3 (running error)",
        "for batch in batches:\n    loss(batch).backward(); sgd.step()",
        _NEEDS,
    ),
    Clause(
        "training.padding-row-unmoved",
        Level.MUST,
        BOTH,
        "The padding row keeps its bits through the 50 steps.",
        "founding document, §1 (2): padding does not affect learning",
        "before = weight[0].clone()\nfor batch in batches: step(batch)  # weight[0] equals before",
        frozenset({"gradient", "padding_idx"}),
    ),
    Clause(
        "training.loss-falls",
        Level.MUST,
        BOTH,
        "The loss over the last steps is below the loss over the first.",
        _DOCUMENT,
        "losses = [step(batch) for batch in batches]\nsum(losses[-10:]) < sum(losses[:10])",
        _NEEDS,
    ),
    Clause(
        "training.sgd-step",
        Level.MUST,
        BOTH,
        "After each of three steps of torch.optim.SGD, in float32 and float64, with and without "
        "momentum, the table equals the oracle's within a running error bound, and the next step "
        "looks it up.",
        f"{_DOCUMENT}; torch.optim.SGD, documentation; {_RUNNING}",
        "optimiser = torch.optim.SGD([weight], lr=0.125)\n"
        "optimiser.zero_grad(); loss(batch).backward(); optimiser.step()  # three times",
        _NEEDS,
    ),
    Clause(
        "training.adagrad-step",
        Level.MUST,
        BOTH,
        "So it does after each of three steps of torch.optim.Adagrad; rows that were not looked up "
        "keep their bits.",
        f"torch.optim.Adagrad, documentation; {_RUNNING}",
        "optimiser = torch.optim.Adagrad([weight], lr=0.5)",
        _NEEDS,
    ),
    Clause(
        "training.adamw-step",
        Level.MUST,
        BOTH,
        "So it does after each of three steps of torch.optim.Adam and AdamW: rows that were looked "
        "up before go on moving, and weight decay moves every row.",
        f"torch.optim.Adam and AdamW, documentation; {_RUNNING}",
        "optimiser = torch.optim.AdamW([weight], lr=0.125, weight_decay=0.0625)",
        _NEEDS,
    ),
    Clause(
        "training.sparse-adam-step",
        Level.MUST,
        TORCH,
        "So it does after each of three steps of torch.optim.SparseAdam with sparse=True: only the "
        "rows of the batch move, and only their moments change.",
        f"torch.optim.SparseAdam, documentation; {_RUNNING}",
        "embedding(ids, weight, sparse=True).sum().backward()\n"
        "torch.optim.SparseAdam([weight], lr=0.125).step()",
        frozenset({"gradient", "sparse"}),
    ),
    Clause(
        "training.padding-row-decays",
        Level.MUST,
        BOTH,
        "None of these optimisers moves row padding_idx, but for the weight decay of AdamW, which "
        "moves it like the others.",
        "founding document, §1 (2); torch 2.13, observed",
        "before = weight[0].clone()\nfor batch in batches: step(batch)  # weight[0] equals before",
        frozenset({"gradient", "padding_idx"}),
    ),
)
