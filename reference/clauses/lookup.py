"""Looking rows up."""

from embconform.reference.clause import BOTH, TORCH, Clause, Level

_DOCUMENT = "founding document, §1 (1)"
_FUNCTIONAL = "torch.nn.functional.embedding, documentation"

CLAUSES = (
    Clause(
        "lookup.shape",
        Level.MUST,
        BOTH,
        "The output has the shape of the indices followed by the width of the table; "
        "a 0-d index gives one row of shape (embedding_dim,).",
        f"{_FUNCTIONAL}: Output (*, embedding_dim)",
        "embedding(torch.tensor([[1, 3]]), weight).shape == (1, 2, weight.shape[1])\n"
        "embedding(torch.tensor(1), weight).shape == (weight.shape[1],)",
    ),
    Clause(
        "lookup.dtype",
        Level.MUST,
        BOTH,
        "The output has the dtype of the table.",
        _FUNCTIONAL,
        "weight = weight.to(torch.bfloat16)\nembedding(ids, weight).dtype == torch.bfloat16",
    ),
    Clause(
        "lookup.device",
        Level.MUST,
        BOTH,
        "The output is on the device of the table.",
        "PyTorch, CUDA semantics: results are where their inputs are",
        "embedding(ids, weight).device == weight.device",
        devices=frozenset({"cuda"}),
    ),
    Clause(
        "lookup.rows",
        Level.MUST,
        BOTH,
        "Each output row is a bit-for-bit copy of the row of the table that its index names.",
        f"{_DOCUMENT}: output = weight[input]",
        "weight = torch.tensor([[.1, .2], [.3, .4]])\n"
        "embedding(torch.tensor([1, 0, 1]), weight)  # rows 1, 0, 1",
    ),
    Clause(
        "lookup.special-values",
        Level.MUST,
        BOTH,
        "Negative zero, subnormal numbers, infinities and NaN payloads are copied bit for bit.",
        "a lookup does no arithmetic (IEEE 754-2019, §5.5.1 copy)",
        "weight = torch.tensor([[-0.0, 1e-42]])\n"
        "embedding(torch.tensor([0]), weight)  # [[-0., 1e-42]], not [[0., 0.]]",
    ),
    Clause(
        "lookup.float64",
        Level.MUST,
        BOTH,
        "A float64 table keeps all of its bits.",
        _DOCUMENT,
        "weight = torch.tensor([[1 / 3]], dtype=torch.float64)\n"
        "embedding(torch.tensor([0]), weight) == weight  # not rounded to float32",
        frozenset({"float64"}),
    ),
    Clause(
        "lookup.half-precision",
        Level.MUST,
        BOTH,
        "Rows of float16 and bfloat16 tables are copied bit for bit.",
        _DOCUMENT,
        "weight = weight.to(torch.float16)\nembedding(ids, weight)  # rows of weight, in float16",
        frozenset({"half"}),
    ),
    Clause(
        "lookup.int32-indices",
        Level.MUST,
        BOTH,
        "int32 indices select the same rows as int64 indices.",
        f"{_FUNCTIONAL}: Input (LongTensor or IntTensor)",
        "ids = torch.tensor([1, 3])\nembedding(ids.int(), weight) == embedding(ids, weight)",
        frozenset({"int32"}),
    ),
    Clause(
        "lookup.sees-every-write",
        Level.MUST,
        BOTH,
        "Each call looks up what the table reads as, in whichever way it was written since the "
        "last call, weight.data being given other memory, of another height or layout, included, "
        "and whichever rows come and go between; no call writes rows of its own back.",
        "forced: a lookup reads the table; optimisers, loaders and averaged weights each write in "
        "a way of their own",
        "embedding(ids, weight)\nweight.data = averaged\nembedding(ids, weight)  # averaged[ids]",
        frozenset({"functional"}),
    ),
    Clause(
        "lookup.views-apart",
        Level.MUST,
        BOTH,
        "Each call looks up, and with max_norm bounds, what its indices, of any number of axes, "
        "and its table read as, whichever other views of the memory were looked up before, and "
        "whosever memory it is: NumPy's or shared, at any address, or made under inference_mode.",
        "forced: views share address, version and storage, so that none of them tells the values; "
        "torch.from_numpy and share_memory_ give tensors like any other",
        "embedding(ids, weight)\nembedding(ids.t(), weight)  # the transposed rows\n"
        "embedding(ids, weight[:6]), embedding(ids, weight[6:])  # rows of either half",
        frozenset({"functional"}),
    ),
    Clause(
        "lookup.strided-weight",
        Level.MUST,
        BOTH,
        "A transposed, column-sliced, row-stepped, offset or expanded table, or one of windows "
        "that overlap, gives the rows that its indexing gives.",
        "pytorch/pytorch#195185: row width taken from stride(0)",
        "base = torch.randn(4, 6)\nembedding(ids, base[:, :5]) == base[:, :5][ids]",
        frozenset({"strided"}),
    ),
    Clause(
        "lookup.strided-indices",
        Level.MUST,
        BOTH,
        "Transposed, stepped, offset or expanded indices select the rows that they read as.",
        "pytorch/pytorch#63427: non-contiguous indices mishandled on CUDA",
        "ids = torch.tensor([[0, 1], [2, 3]]).t()\nembedding(ids, weight) == weight[ids]",
        frozenset({"strided"}),
    ),
    Clause(
        "lookup.empty",
        Level.MUST,
        BOTH,
        "No indices, a table of zero width, and an empty table with no indices are legal and give "
        "an empty output.",
        "torch 2.13, observed; torch/nn/functional.py::embedding sets no lower limit",
        "embedding(torch.empty(0, dtype=torch.long), weight).shape == (0, weight.shape[1])\n"
        "embedding(torch.tensor([1]), torch.empty(3, 0)).shape == (1, 0)",
    ),
    Clause(
        "lookup.many-indices",
        Level.MUST,
        BOTH,
        "The rows stay right for every number of indices, on both sides of the sizes at which "
        "kernels switch (32, 64, 128, 256, 768, 1000, 1024, 3072, 65536).",
        "pytorch/pytorch#28959 (N > 1000), #26302 (N = 769), #82886 (N > 3072)",
        "ids = torch.randint(0, 7, (1001,))\nembedding(ids, weight) == weight[ids]",
    ),
    Clause(
        "lookup.wide-rows",
        Level.MUST,
        BOTH,
        "Every column is copied for every width, on both sides of 32, 64, 128, 256 and 1024.",
        "EMBEDDING-BUGS §3: kernel switches; pytorch/pytorch#195185",
        "weight = torch.randn(3, 129)\nembedding(torch.tensor([2]), weight) == weight[2:]",
    ),
    Clause(
        "lookup.near-runs",
        Level.MUST,
        BOTH,
        "Indices that have the ends, the sum or the order of a range of rows, or are one but for "
        "an index, are looked up one by one, also in a batch that begins and ends with a range; an "
        "output that a view would serve may be written to.",
        f"{_DOCUMENT}: output = weight[input]; positions are a range, which a slice may serve",
        "embedding(torch.tensor([0, 2, 1, 3]), weight)  # rows 0, 2, 1, 3 and not weight[:4]",
    ),
    Clause(
        "lookup.large-calls",
        Level.MUST,
        BOTH,
        "More than 2**20 indices are looked up as few are, and so are rows of more than 2**15 "
        "columns, in int32 indices too, thousands of indices into tables of 2**16 rows, and rows "
        "beyond 2**24, bounds and gradients included, which padding_idx keeps from its row alone.",
        "forced: no size but memory's is a limit; EMBEDDING-BUGS §3: counters of few bits",
        "ids = torch.randint(0, 7, (2**20 + 9,))\nembedding(ids, weight) == weight[ids]\n"
        "embedding(ids[:3].int(), torch.randn(7, 2**15 + 33))",
        frozenset({"functional"}),
    ),
    Clause(
        "lookup.tall-table",
        Level.MUST,
        BOTH,
        "Rows beyond 32,767 and 65,535 are found.",
        "pytorch/pytorch#188756: high rows return zero",
        "weight = torch.randn(70_000, 1)\n"
        "embedding(torch.tensor([69_999]), weight) == weight[69_999]",
    ),
    Clause(
        "lookup.huge-table",
        Level.MUST,
        BOTH,
        "Rows beyond the 2**31st element of the table are found.",
        "pytorch/pytorch#130806, ORT#28107: 32-bit offsets",
        "weight = torch.empty(2**21 + 9, 1024, dtype=torch.bfloat16); weight[-1] = 1\n"
        "embedding(torch.tensor([2**21 + 8]), weight)  # ones",
        frozenset({"functional", "half", "huge_tables"}),
    ),
    Clause(
        "lookup.other-dtypes",
        Level.MAY,
        BOTH,
        "Tables of integers, booleans, complex numbers and 8-bit floats are copied bit for bit, "
        "and so are tables that are conjugated or negated only when they are read.",
        "torch 2.13, observed; the documentation speaks of floating-point tables only",
        "weight = torch.tensor([[1, 2], [3, 4]])\n"
        "embedding(torch.tensor([1]), weight)  # [[3, 4]], int64",
        frozenset({"functional"}),
    ),
    Clause(
        "lookup.fresh-output",
        Level.MUST,
        BOTH,
        "The output shares no memory with the table, the indices or an earlier output, and none of "
        "its elements with another.",
        "torch.nn.functional.embedding, observed: the output never aliases weight",
        "out = embedding(torch.tensor([0]), weight)\nout.zero_()  # weight keeps its values",
    ),
    Clause(
        "lookup.contiguous-output",
        Level.SHOULD,
        TORCH,
        "The output is contiguous, so that .view takes it, whatever the strides of the indices and "
        "of the table are.",
        "aten/src/ATen/native/Embedding.cpp::embedding_symint: index_select, which makes a "
        "contiguous tensor, then view",
        "ids = torch.tensor([[0, 1], [2, 3]]).t()\nembedding(ids, weight).view(-1)  # not refused",
        frozenset({"functional", "strided"}),
        policy=True,
    ),
    Clause(
        "lookup.weight-unchanged",
        Level.MUST,
        BOTH,
        "Without max_norm neither the forward pass, refused or not, nor the backward pass changes "
        "the table, nor the memory around a table that is a view.",
        f"{_FUNCTIONAL}: only max_norm modifies weight in place",
        "before = weight.clone()\nembedding(ids, weight)  # weight equals before",
    ),
    Clause(
        "lookup.indices-unchanged",
        Level.MUST,
        BOTH,
        "The indices are not changed, nor the memory around them.",
        "pytorch/pytorch#943: renorm sorted and deduplicated the caller's indices",
        "ids = torch.tensor([2, 1, 2])\nembedding(ids, weight, max_norm=1.0)  # ids is [2, 1, 2]",
    ),
    Clause(
        "lookup.sees-weight-updates",
        Level.MUST,
        BOTH,
        "A call sees what was written into the table since the call before.",
        "EMBEDDING-BUGS §4: output cached by data_ptr, by id() or by fingerprint",
        "embedding(ids, weight); weight.mul_(2)\nembedding(ids, weight) == weight[ids]",
    ),
    Clause(
        "lookup.sees-index-updates",
        Level.MUST,
        BOTH,
        "A call sees what was written into the indices since the call before, also where no "
        "version counter tells of it, as with the memory of a NumPy array.",
        "EMBEDDING-BUGS §4: output cached by data_ptr, by id() or by fingerprint",
        "embedding(ids, weight); ids.fill_(0)\nembedding(ids, weight) == weight[ids]",
    ),
)
