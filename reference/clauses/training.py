"""Training on real text."""

from embconform.reference.clause import BOTH, Clause, Level

_DOCUMENT = "founding document, §2 (learning) and §3 (Word2Vec)"
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
)
