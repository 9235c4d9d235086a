"""max_norm and norm_type."""

from embconform.reference.clause import BOTH, TEXTBOOK, TORCH, Clause, Level

_DOCUMENT = "founding document, §1 (3)"
_FUNCTIONAL = "torch.nn.functional.embedding, documentation of max_norm"
_RENORM = "aten/src/ATen/native/Embedding.cpp::embedding_renorm_cpu_"
_MAX_NORM = frozenset({"max_norm"})
_MAX_NORM_GRADIENT = frozenset({"max_norm", "gradient"})

CLAUSES = (
    Clause(
        "max-norm.value",
        Level.MUST,
        BOTH,
        "A looked-up row w whose norm exceeds max_norm comes out as w * max_norm / (norm + 1e-7) "
        "(torch) or w * max_norm / norm (textbook).",
        f"{_FUNCTIONAL}; {_RENORM}; {_DOCUMENT}",
        "weight = torch.tensor([[3.0, 4.0]])\n"
        "embedding(torch.tensor([0]), weight, max_norm=1.0)  # [[.6, .8]]",
        _MAX_NORM,
    ),
    Clause(
        "max-norm.epsilon",
        Level.MUST,
        TORCH,
        "The scale is max_norm / (norm + 1e-7): the 1e-7 shows where norms are small.",
        f"{_RENORM}; the XPU kernel takes the machine epsilon instead",
        "weight = torch.tensor([[3e-4, 4e-4]])\n"
        "embedding(torch.tensor([0]), weight, max_norm=1e-4)  # 6e-5 * (1 - 2e-4), ...",
        _MAX_NORM,
        policy=True,
    ),
    Clause(
        "max-norm.norm-type",
        Level.MUST,
        BOTH,
        "norm_type is the p of the p-norm, over absolute values: 1, 0.5, 3 and inf besides 2.",
        "torch.nn.Embedding, documentation of norm_type; pytorch/pytorch#6817; "
        "the CUDA kernel takes pow(x, p) without abs",
        "weight = torch.tensor([[3.0, -4.0]])\n"
        "embedding(torch.tensor([0]), weight, max_norm=1.0, norm_type=1.0)  # [[3/7, -4/7]]",
        frozenset({"max_norm", "norm_type"}),
    ),
    Clause(
        "max-norm.every-column",
        Level.MUST,
        BOTH,
        "Every column counts for the norm, wherever in the row the large component stands.",
        "forced by the definition of a norm",
        "weight = torch.tensor([[0.0, 0.0, 9.0]])\n"
        "embedding(torch.tensor([0]), weight, max_norm=1.0)  # [[0., 0., 1.]]",
        _MAX_NORM,
    ),
    Clause(
        "max-norm.wide-rows",
        Level.MUST,
        BOTH,
        "The norm is right for every width, on both sides of 32, 64, 128, 256 and 1024.",
        "EMBEDDING-BUGS §3: kernel switches",
        "weight = torch.ones(1, 257)\n"
        "embedding(torch.tensor([0]), weight, max_norm=1.0)  # 1 / sqrt(257) everywhere",
        _MAX_NORM,
    ),
    Clause(
        "max-norm.once",
        Level.MUST,
        BOTH,
        "A row is scaled once per call, however often its index occurs.",
        "pytorch/pytorch#44792: rows re-scaled",
        "weight = torch.tensor([[3.0, 4.0]])\n"
        "embedding(torch.tensor([0, 0]), weight, max_norm=1.0)  # [[.6, .8], [.6, .8]]",
        _MAX_NORM,
    ),
    Clause(
        "max-norm.many-indices",
        Level.MUST,
        BOTH,
        "The rows are bounded for every number of indices, on both sides of the sizes at which "
        "kernels switch.",
        "pytorch/pytorch#28959, #44792",
        "ids = torch.arange(2).repeat(2000)\n"
        "embedding(ids, weight, max_norm=1.0).norm(dim=-1).max()  # at most 1",
        _MAX_NORM,
    ),
    Clause(
        "max-norm.under-bound-keeps-bits",
        Level.MUST,
        BOTH,
        "A row whose norm does not exceed max_norm keeps its bits.",
        f"{_FUNCTIONAL}: vectors with a norm larger than max_norm are renormalised",
        "weight = torch.tensor([[3.0, 4.0]], dtype=torch.float64)\n"
        "embedding(torch.tensor([0]), weight, max_norm=5.0)  # [[3., 4.]] to the last bit",
        _MAX_NORM,
    ),
    Clause(
        "max-norm.zero-bound",
        Level.MUST,
        BOTH,
        "max_norm=0 bounds every non-zero row to 0; it is not the absence of a bound.",
        f"{_RENORM}, observed; {_DOCUMENT}",
        "weight = torch.tensor([[3.0, 4.0]])\n"
        "embedding(torch.tensor([0]), weight, max_norm=0.0)  # [[0., 0.]]",
        _MAX_NORM,
        policy=True,
    ),
    Clause(
        "max-norm.in-place",
        Level.MUST,
        TORCH,
        "The table is renormed in place before the lookup: after the call the row holds exactly "
        "the bits that were returned.",
        f"{_FUNCTIONAL}: modifies weight in-place",
        "out = embedding(torch.tensor([0]), weight, max_norm=1.0)\nweight[0] == out[0]",
        _MAX_NORM,
    ),
    Clause(
        "max-norm.only-looked-up-rows",
        Level.MUST,
        TORCH,
        "Rows that are not looked up keep their bits, and so does the memory around a table that "
        "is a view.",
        f"{_FUNCTIONAL}; {_RENORM}",
        "weight = torch.tensor([[3.0, 4.0], [30.0, 40.0]])\n"
        "embedding(torch.tensor([0]), weight, max_norm=1.0)  # weight[1] is [30., 40.]",
        _MAX_NORM,
    ),
    Clause(
        "max-norm.table-untouched",
        Level.MUST,
        TEXTBOOK,
        "max_norm scales the output and leaves the table as it was.",
        f"{_DOCUMENT}: output * clamp(max_norm / norms, max=1.0)",
        "before = weight.clone()\nembedding(ids, weight, max_norm=1.0)  # weight equals before",
        _MAX_NORM,
    ),
    Clause(
        "max-norm.padding-row",
        Level.MUST,
        TORCH,
        "The padding row is renormed like any other row that is looked up.",
        f"{_RENORM}, observed: padding_idx is not passed to it",
        "weight = torch.tensor([[3.0, 4.0]])\n"
        "embedding(torch.tensor([0]), weight, padding_idx=0, max_norm=1.0)  # [[.6, .8]]",
        frozenset({"max_norm", "padding_idx"}),
        policy=True,
    ),
    Clause(
        "max-norm.without-grad",
        Level.MUST,
        TORCH,
        "The table is renormed also under no_grad, under inference_mode and when it is frozen.",
        "torch/nn/functional.py::embedding, observed",
        "with torch.no_grad():\n    embedding(torch.tensor([0]), weight, max_norm=1.0)",
        _MAX_NORM,
    ),
    Clause(
        "max-norm.strided-weight",
        Level.MUST,
        BOTH,
        "A table that is a view is renormed by its own elements, and its base sees it (torch).",
        f"{_RENORM}, observed on column slices and transposed tables",
        "base = torch.full((2, 6), 9.0)\n"
        "embedding(torch.tensor([0]), base[:, :3], max_norm=1.0)  # base[0, 3:] stays 9",
        _MAX_NORM | {"strided"},
    ),
    Clause(
        "max-norm.later-calls",
        Level.MUST,
        BOTH,
        "A second call obeys the bound again, for the table and the indices as they are then.",
        f"{_FUNCTIONAL}",
        "embedding(ids, weight, max_norm=1.0); weight.mul_(9)\n"
        "embedding(ids, weight, max_norm=1.0).norm(dim=-1).max()  # at most 1",
        _MAX_NORM,
    ),
    Clause(
        "max-norm.straight-through",
        Level.MUST,
        TORCH,
        "The gradient passes by the renorm: it is the plain sum of the upstream gradient.",
        "torch/nn/functional.py::embedding renorms under no_grad",
        "embedding(torch.tensor([0]), weight, max_norm=0.1).sum().backward()\n"
        "weight.grad[0]  # ones",
        _MAX_NORM_GRADIENT,
    ),
    Clause(
        "max-norm.gradient-through-scale",
        Level.MUST,
        TEXTBOOK,
        "The gradient flows through the scale max_norm / norm of a row over the bound, and passes "
        "unchanged at a row under it.",
        f"{_DOCUMENT}: the scale is part of the differentiated formula",
        "embedding(torch.tensor([0]), torch.tensor([[3.0, 4.0]]), max_norm=1.0).sum().backward()\n"
        "# gradient: (1 - w * sum(w) / 25) / 5 = [.032, -.024]",
        _MAX_NORM_GRADIENT,
    ),
    Clause(
        "max-norm.zero-row-gradient",
        Level.MUST,
        TEXTBOOK,
        "A zero row under a positive bound gives 0 and passes the gradient unchanged, never NaN.",
        "the scale is constant near a zero row (DESIGN: an ordinary point); TF#22048",
        "embedding(torch.tensor([0]), torch.zeros(1, 2), max_norm=1.0).sum().backward()\n"
        "# gradient: ones, not NaN",
        _MAX_NORM_GRADIENT,
    ),
    Clause(
        "max-norm.float32-accumulation",
        Level.SHOULD,
        BOTH,
        "The norm of a float16 or bfloat16 row is accumulated in float32 or better.",
        "aten/src/ATen/native/cpu/ReduceOpsKernel.cpp: norms of half types accumulate in float32",
        "weight = torch.ones(1, 1025, dtype=torch.bfloat16)\n"
        "embedding(torch.tensor([0]), weight, max_norm=1.0)  # 1 / sqrt(1025), not 1 / 16",
        _MAX_NORM | {"half"},
    ),
    Clause(
        "max-norm.half-range",
        Level.MUST,
        BOTH,
        "A float16 row whose norm the dtype holds is scaled to the bound, or keeps its bits under "
        "it, also where its squares are beyond the dtype's range: it is not zeroed.",
        "aten/src/ATen/native/cpu/ReduceOpsKernel.cpp: norms of half types accumulate in float32",
        "weight = torch.full((1, 9), 100.0, dtype=torch.float16)  # 9 * 100**2 > 65504\n"
        "embedding(torch.tensor([0]), weight, max_norm=1.0)  # 1 / 3",
        _MAX_NORM | {"half"},
    ),
    Clause(
        "max-norm.whole-number",
        Level.MAY,
        BOTH,
        "max_norm and norm_type given as int, or as a number of NumPy, mean what they mean as "
        "float, or are refused.",
        "torch.nn.Embedding: max_norm (float, optional); an int is taken, torch 2.13, observed",
        "embedding(ids, weight, max_norm=1)  # as max_norm=1.0",
        _MAX_NORM | {"functional"},
    ),
    Clause(
        "max-norm.zero-norm-type",
        Level.MAY,
        TORCH,
        "norm_type=0 counts the components that are not 0, or is refused.",
        f"{_RENORM}: Tensor.norm; torch.linalg.vector_norm: sum(x != 0); observed",
        "embedding(ids, weight, max_norm=2.0, norm_type=0.0)  # a row of 3 numbers is 2 / 3 of it",
        _MAX_NORM | {"norm_type"},
    ),
    Clause(
        "max-norm.nan-rows",
        Level.MUST,
        TORCH,
        "A row that holds a NaN keeps its bits: its norm does not exceed the bound.",
        f"{_RENORM}: NaN > max_norm is false, observed",
        "weight = torch.tensor([[torch.nan, 9.0]])\n"
        "embedding(torch.tensor([0]), weight, max_norm=1.0)  # [[nan, 9.]]",
        _MAX_NORM,
        policy=True,
    ),
    Clause(
        "max-norm.finite",
        Level.SHOULD,
        BOTH,
        "A finite row whose norm overflows the dtype stays finite and bounded, and is not zeroed.",
        "torch 2.13, observed: float32 rows of 1e30 become 0; TF#47020",
        "weight = torch.full((1, 4), 1e30)\n"
        "embedding(torch.tensor([0]), weight, max_norm=1.0)  # [[.5, .5, .5, .5]]",
        _MAX_NORM,
    ),
)
