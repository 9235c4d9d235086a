"""The layer as a module: what its constructor makes."""

from embconform.reference.clause import BOTH, TEXTBOOK, TORCH, Clause, Level

_MODULE = "torch.nn.Embedding, documentation"
_DOCUMENT = "founding document, §2"
_NEEDS = frozenset({"module"})

CLAUSES = (
    Clause(
        "module.weight-is-parameter",
        Level.MUST,
        BOTH,
        "weight is a trainable Parameter of shape (num_embeddings, embedding_dim), and the only "
        "parameter.",
        f"{_MODULE}; {_DOCUMENT}",
        "module = Embedding(4, 3)\n[(n, p.shape) for n, p in module.named_parameters()]",
        _NEEDS,
    ),
    Clause(
        "module.init-normal",
        Level.MUST,
        TORCH,
        "A new table is drawn from N(0, 1).",
        f"{_MODULE}: initialized from N(0, 1)",
        "module = Embedding(1000, 100)\nmodule.weight.std()  # about 1",
        _NEEDS,
    ),
    Clause(
        "module.init-scaled-normal",
        Level.MUST,
        TEXTBOOK,
        "A new table is drawn from N(0, 1) and multiplied by 1/sqrt(embedding_dim).",
        f"{_DOCUMENT}",
        "module = Embedding(1000, 100)\nmodule.weight.std()  # about 0.1",
        _NEEDS,
    ),
    Clause(
        "module.padding-row-zeroed",
        Level.MUST,
        TORCH,
        "A new table holds zeros in row padding_idx.",
        f"{_MODULE}: defaults to all zeros",
        "module = Embedding(4, 3, padding_idx=1)\nmodule.weight[1]  # zeros",
        frozenset({"module", "padding_idx"}),
    ),
    Clause(
        "module.padding-row-drawn",
        Level.MUST,
        TEXTBOOK,
        "A new table is drawn in row padding_idx as elsewhere: the mask is applied to the output.",
        "DESIGN, two profiles: nothing zeroed at init",
        "module = Embedding(4, 3, padding_idx=1)\nmodule.weight[1]  # not zeros",
        frozenset({"module", "padding_idx"}),
    ),
    Clause(
        "module.seeded-init",
        Level.MUST,
        BOTH,
        "torch.manual_seed reproduces the new table, and two tables drawn in turn differ.",
        "torch.manual_seed, documentation",
        "torch.manual_seed(0); a = Embedding(4, 3)\n"
        "torch.manual_seed(0); b = Embedding(4, 3)  # equal bits",
        _NEEDS,
    ),
    Clause(
        "module.state-dict",
        Level.MUST,
        BOTH,
        "state_dict holds weight alone, and loading it makes another module look up the same rows.",
        "torch.nn.Module.state_dict; torch 2.13, observed",
        "b.load_state_dict(a.state_dict())\nb(ids) == a(ids)",
        _NEEDS,
    ),
)
