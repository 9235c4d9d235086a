"""Calls that must be refused."""

from embconform.reference.clause import BOTH, TEXTBOOK, TORCH, Clause, Level

_RANGE = "torch.nn.functional.embedding: indices outside 0..V-1 raise"
_DOCUMENT = "founding document, §1 (1): weight[input] raises"

CLAUSES = (
    Clause(
        "errors.too-large",
        Level.MUST,
        BOTH,
        "An index equal to or just above the number of rows raises, and so does the last one of "
        "as many bits as the table's indices have.",
        f"{_RANGE}; {_DOCUMENT}; pytorch/pytorch#100831, #154235",
        "weight = torch.zeros(4, 2)\nembedding(torch.tensor([4]), weight)  # raises",
    ),
    Clause(
        "errors.negative",
        Level.MUST,
        TORCH,
        "A negative index raises; it does not wrap.",
        f"{_RANGE}; pytorch/pytorch#151918: negatives wrap under Inductor",
        "weight = torch.zeros(4, 2)\nembedding(torch.tensor([-1]), weight)  # raises",
    ),
    Clause(
        "errors.negative-wraps",
        Level.SHOULD,
        TEXTBOOK,
        "A negative index raises; the document's own weight[input] wraps it.",
        "DESIGN, two profiles; founding document, §1 (1)",
        "weight = torch.zeros(4, 2)\nembedding(torch.tensor([-1]), weight)  # should raise",
    ),
    Clause(
        "errors.far-away",
        Level.MUST,
        BOTH,
        "An index far outside raises and does not wrap into the range: 2**32 + 3, 2**40, 2**62, "
        "what lies 2**64 elements beyond a row and, for torch, -2**63.",
        f"{_RANGE}; pytorch/pytorch#115239, #142837",
        "weight = torch.zeros(4, 2)\nembedding(torch.tensor([2**32 + 3]), weight)  # raises",
    ),
    Clause(
        "errors.any-position",
        Level.MUST,
        BOTH,
        "One bad index among thousands raises, at the first, a middle or the last place and beside "
        "them.",
        _RANGE,
        "ids = torch.zeros(5000, dtype=torch.long); ids[-1] = 4\n"
        "embedding(ids, torch.zeros(4, 2))  # raises",
    ),
    Clause(
        "errors.int32",
        Level.MUST,
        BOTH,
        "A bad int32 index raises.",
        _RANGE,
        "ids = torch.tensor([4], dtype=torch.int32)\nembedding(ids, torch.zeros(4, 2))  # raises",
        frozenset({"int32"}),
    ),
    Clause(
        "errors.other-table",
        Level.MUST,
        BOTH,
        "An index that is out of range of the call's table raises, though the same index tensor "
        "was in range of another table before, or was refused by this one, and though a thousand "
        "good calls or 2**16 good indices came before it.",
        f"{_RANGE}; a call is a function of its arguments",
        "ids = torch.tensor([5])\nembedding(ids, torch.zeros(6, 2))\n"
        "embedding(ids, torch.zeros(4, 2))  # raises",
        frozenset({"functional"}),
    ),
    Clause(
        "errors.zero-width",
        Level.MUST,
        BOTH,
        "A bad index raises also when the table has no columns.",
        "pytorch/pytorch#115239: segfault",
        "weight = torch.zeros(4, 0)\nembedding(torch.tensor([4]), weight)  # raises",
    ),
    Clause(
        "errors.empty-table",
        Level.MUST,
        BOTH,
        "Any index raises when the table has no rows.",
        "pytorch/pytorch#145267",
        "weight = torch.zeros(0, 2)\nembedding(torch.tensor([0]), weight)  # raises",
    ),
    Clause(
        "errors.with-max-norm",
        Level.MUST,
        BOTH,
        "A bad index raises also with max_norm.",
        "pytorch/pytorch#170782: renorm indexed before the table",
        "weight = torch.zeros(4, 2)\nembedding(torch.tensor([4]), weight, max_norm=1.0)  # raises",
        frozenset({"max_norm"}),
    ),
    Clause(
        "errors.with-padding",
        Level.MUST,
        BOTH,
        "A bad index raises also with padding_idx set.",
        "Paddle#79491: setting padding disables the range check",
        "weight = torch.zeros(4, 2)\nembedding(torch.tensor([4]), weight, padding_idx=0)  # raises",
        frozenset({"padding_idx"}),
    ),
    Clause(
        "errors.without-grad",
        Level.MUST,
        BOTH,
        "A bad index raises also under no_grad, under inference_mode and for a frozen table.",
        _RANGE,
        "with torch.no_grad():\n    embedding(torch.tensor([4]), torch.zeros(4, 2))  # raises",
    ),
    Clause(
        "errors.index-dtype",
        Level.MUST,
        TORCH,
        "Indices of a dtype other than int32 and int64 raise: float, bool, int8, int16, uint8; "
        "bools and bytes, one for each row, are no mask.",
        "torch.nn.functional.embedding: Input (LongTensor or IntTensor)",
        "embedding(torch.tensor([1.0]), weight)  # raises\n"
        "embedding(torch.tensor([True]), weight)  # raises",
    ),
    Clause(
        "errors.weight-rank",
        Level.MUST,
        TORCH,
        "A table that is not 2-D raises.",
        "torch.nn.functional.embedding: weight of shape (V, embedding_dim)",
        "embedding(torch.tensor([0]), torch.zeros(4))  # raises\n"
        "embedding(torch.tensor([0]), torch.zeros(4, 2, 2))  # raises",
        frozenset({"functional"}),
    ),
    Clause(
        "errors.exception-type",
        Level.SHOULD,
        BOTH,
        "A bad index raises IndexError.",
        "torch CPU: IndexError; Inductor: RuntimeError",
        "with pytest.raises(IndexError):\n    embedding(torch.tensor([4]), torch.zeros(4, 2))",
    ),
    Clause(
        "errors.names-the-index",
        Level.SHOULD,
        BOTH,
        "The message of the exception contains the bad index.",
        "quality: NumPy does (index 4 is out of bounds for axis 0 with size 4)",
        "embedding(torch.tensor([1, 7]), torch.zeros(4, 2))\n"
        "# IndexError: index 7 is out of bounds for a table of 4 rows",
    ),
    Clause(
        "errors.atomic",
        Level.SHOULD,
        BOTH,
        "A call that raises leaves the table and the indices as they were.",
        "torch 2.13, observed: rows are renormed before the error",
        "weight = torch.full((4, 2), 9.0)\n"
        "embedding(torch.tensor([1, 4]), weight, max_norm=1.0)  # raises; weight is all nines",
    ),
    Clause(
        "errors.next-call-works",
        Level.MUST,
        BOTH,
        "A good call after a refused one is right, with max_norm too.",
        "forced: an error carries no state",
        "try: embedding(torch.tensor([4]), weight)\n"
        "except IndexError: embedding(torch.tensor([0]), weight)  # row 0",
    ),
)
