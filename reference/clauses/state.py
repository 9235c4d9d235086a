"""What one call leaves behind for the next."""

from embconform.reference.clause import BOTH, Clause, Level

CLAUSES = (
    Clause(
        "state.repeatable",
        Level.MUST,
        BOTH,
        "The same call on the same data gives the same bits.",
        "torch CPU: bitwise equal across thread counts, observed",
        "a = embedding(ids, weight)\nb = embedding(ids, weight)  # equal bits",
    ),
    Clause(
        "state.repeatable-gradient",
        Level.MUST,
        BOTH,
        "The same call on the same data gives a gradient of the same bits.",
        "torch CPU: observed; pytorch/pytorch#195404: atomics in spite of the deterministic flag",
        "for _ in range(2): weight.grad = None; embedding(ids, weight).sum().backward()\n"
        "# equal bits",
        frozenset({"gradient", "deterministic"}),
        policy=True,
        devices=frozenset({"cpu"}),  # elsewhere atomics add in any order: gradient.deterministic
    ),
    Clause(
        "state.threads",
        Level.MUST,
        BOTH,
        "Calls from several threads at once are each right, forward and backward.",
        "PyTorch, autograd mechanics: concurrent training on CPU",
        "with ThreadPoolExecutor(4) as pool:\n"
        "    list(pool.map(lambda ids: embedding(ids, weight), batches))",
        frozenset({"functional"}),
    ),
    Clause(
        "state.options-apart",
        Level.MUST,
        BOTH,
        "Calls with other options on the same table and the same indices, one after the other, are "
        "each right by their own options.",
        "forced: a call is a function of its arguments; EMBEDDING-BUGS §4: caches",
        "embedding(ids, weight, padding_idx=0).sum().backward(); weight.grad = None\n"
        "embedding(ids, weight, padding_idx=1).sum().backward()  # row 0 is trained",
        frozenset({"functional", "gradient"}),
    ),
    Clause(
        "state.outputs-intact",
        Level.MUST,
        BOTH,
        "An output keeps its values when the embedding is called again or its table is written to.",
        "EMBEDDING-BUGS §4: an output buffer that is reused",
        "a = embedding(torch.tensor([0]), weight)\n"
        "embedding(torch.tensor([1]), weight)  # a still holds row 0",
    ),
)
