"""The gradient of the table."""

from embconform.reference.clause import BOTH, TORCH, Clause, Level

_DOCUMENT = "founding document, §2: W is learnable"
_SUM = "forced: the derivative of a lookup is a sum over equal indices"
_MODULE = "torch.nn.Embedding, documentation of scale_grad_by_freq"
_GRADIENT = frozenset({"gradient"})
_SCALE = frozenset({"gradient", "scale_grad_by_freq"})
_DOUBLE = frozenset({"gradient", "double_backward"})

CLAUSES = (
    Clause(
        "gradient.sum",
        Level.MUST,
        BOTH,
        "The gradient of a row is the sum of the upstream gradient over all indices that name it, "
        "within the error of any summation order in the table's dtype.",
        f"{_SUM}; bound: Higham, Accuracy and Stability, 2nd ed., §4.2",
        "embedding(torch.tensor([1, 0, 1]), weight).sum().backward()\n"
        "weight.grad  # ones in row 0, twos in row 1",
        _GRADIENT,
    ),
    Clause(
        "gradient.upstream-unchanged",
        Level.MUST,
        BOTH,
        "A backward pass leaves its upstream gradient, and the memory around it, as they were.",
        "forced: autograd hands one tensor to every input of an addition, and the caller may use "
        "his again",
        "embedding(ids, weight, padding_idx=0).backward(upstream)\n"
        "upstream  # as it was, also in the rows of padding",
        _GRADIENT,
    ),
    Clause(
        "gradient.two-tables",
        Level.MUST,
        BOTH,
        "Two tables of one shape in one graph each get the gradient of their own lookup, with "
        "padding_idx and scale_grad_by_freq, also where they lie in one buffer or on one memory, "
        "or where the same indices are looked up in the other, without grad, in between.",
        "forced: the derivative by one table does not depend on the other",
        "(embedding(users, a).sum() + embedding(items, b).sum()).backward()",
        _GRADIENT,
    ),
    Clause(
        "gradient.table-hooks",
        Level.MUST,
        BOTH,
        "A hook of the table is given its gradient, once, and what it returns is what .grad gets; "
        "a post-accumulate-grad hook is run once, when .grad is complete.",
        "torch.Tensor.register_hook and register_post_accumulate_grad_hook: documentation",
        "weight.register_hook(lambda g: g * 2)\n"
        "embedding(ids, weight).sum().backward()  # weight.grad is doubled",
        _GRADIENT,
    ),
    Clause(
        "gradient.asked-for",
        Level.MUST,
        BOTH,
        "torch.autograd.grad returns the gradient, recorded too, and in a second pass that of what "
        "the upstream gradient is then, and leaves .grad alone; so does a pass that asks for "
        "another gradient only. An output that retains its gradient changes nothing; one that is "
        "sent None is sent zeros.",
        "torch.autograd.grad, torch.Tensor.backward(inputs=...) and retain_grad: documentation; "
        "Extending PyTorch: a Function may return None for a gradient",
        "out = embedding(ids, weight)\n"
        "torch.autograd.grad(out.sum(), out)  # a saliency map; weight.grad stays None",
        _GRADIENT,
    ),
    Clause(
        "gradient.own-memory",
        Level.MUST,
        BOTH,
        "The gradient that torch.autograd.grad returns, or .grad, may be written to in place, "
        "whatever the upstream gradient was expanded from, which keeps its values, as does the "
        "equal gradient of another table. A later pass, of a lookup made before it too, has "
        "nothing of it, and leaves it as it is.",
        "torch 2.13, observed; clipping and unscaling write to gradients in place",
        "out = embedding(ids, weight)\n"
        "(g,) = torch.autograd.grad(out.sum(-1).sum(), weight)\n"
        "g.mul_(0.5)  # its columns are equal, but are not stored once",
        _GRADIENT,
        policy=True,
    ),
    Clause(
        "gradient.upstream-views",
        Level.MUST,
        BOTH,
        "An upstream gradient counts as what it reads as also where it is negated only when it is "
        "read, interleaved with other numbers, laid out with its axes in any order, off the start "
        "of its memory, or expanded, infinities too, with padding_idx, scale_grad_by_freq and "
        "sparse as without.",
        "forced: a view is a tensor; torch.resolve_neg, documentation; complex models hand such to "
        "their embeddings",
        "z = torch.complex(torch.zeros(1, d), -torch.ones(1, d)).conj()\n"
        "embedding(torch.tensor([1]), weight).backward(z.imag)  # ones in row 1, not -1",
        _GRADIENT,
    ),
    Clause(
        "gradient.near-permutations",
        Level.MUST,
        BOTH,
        "The shares of a row that comes twice are added also where the indices look as if none "
        "did: as many as there are rows, with the sum, the ends or the order of a permutation, or "
        "each sentence of a batch without repeats.",
        _SUM,
        "embedding(torch.tensor([0, 3, 3, 0]), torch.zeros(4, d, requires_grad=True))\n"
        "# ids.sum() == 6 and ids.max() == 3, as of 0, 1, 2, 3: the gradients of 0 and 3 are twos",
        _GRADIENT,
    ),
    Clause(
        "gradient.saved-tensors",
        Level.MUST,
        BOTH,
        "Hooks on saved tensors that keep copies, as torch.autograd.graph.save_on_cpu does, or "
        "that shorten floating-point ones, leave the gradient of a lookup as it is: no indices are "
        "saved as floats. A scaled one may save what it multiplies by.",
        "torch.autograd.graph.saved_tensors_hooks; forced: the gradient depends on indices alone",
        "with torch.autograd.graph.saved_tensors_hooks(shorten_floats, restore):\n"
        "    out = embedding(torch.tensor([257]), weight)\n"
        "out.sum().backward()  # ones in row 257, not in row 256",
        _GRADIENT,
        policy=True,
    ),
    Clause(
        "gradient.anomaly-mode",
        Level.MUST,
        BOTH,
        "Under torch.autograd.detect_anomaly a finite upstream gradient gives the gradient that it "
        "gives outside, and nothing raises.",
        "torch.autograd.detect_anomaly: it looks for NaN, and there are none",
        "with torch.autograd.detect_anomaly():\n"
        "    embedding(torch.tensor([1]), weight).sum().backward()  # zeros but for row 1",
        _GRADIENT,
    ),
    Clause(
        "gradient.recomputed",
        Level.MUST,
        BOTH,
        "A lookup in an activation checkpoint, which is made again during the backward pass, gives "
        "the output and the gradient that it gives outside, with padding_idx and "
        "scale_grad_by_freq.",
        "torch.utils.checkpoint: the function is run again in the backward pass",
        "checkpoint(lambda x: embedding(ids, weight) * x, x, use_reentrant=True).sum().backward()\n"
        "weight.grad  # as without the checkpoint",
        _GRADIENT,
    ),
    Clause(
        "gradient.float64",
        Level.MUST,
        BOTH,
        "The gradient of a float64 table is summed in float64.",
        _SUM,
        "out = embedding(torch.tensor([0]), torch.zeros(1, 1, dtype=torch.float64))\n"
        "out.backward(torch.tensor([[1 / 3]], dtype=torch.float64))  # all 53 bits",
        _GRADIENT | {"float64"},
    ),
    Clause(
        "gradient.half-precision",
        Level.MUST,
        BOTH,
        "The gradient of a float16 or bfloat16 table is the sum, within the error of any summation "
        "order in the table's dtype.",
        _SUM,
        "weight = weight.to(torch.bfloat16)\n"
        "embedding(torch.tensor([1, 1]), weight).sum().backward()  # twos in row 1",
        _GRADIENT | {"half"},
    ),
    Clause(
        "gradient.float32-accumulation",
        Level.SHOULD,
        BOTH,
        "The gradient of a float16 or bfloat16 table is accumulated in float32 or better and "
        "rounded once.",
        "ATen's CUDA kernel does; its CPU kernel does not; MXNet#17703, FlagGems#309",
        "ids = torch.zeros(1000, dtype=torch.long)\n"
        "embedding(ids, weight.bfloat16()).sum().backward()  # 1000, not 256",
        _GRADIENT | {"half"},
    ),
    Clause(
        "gradient.zeros-elsewhere",
        Level.MUST,
        BOTH,
        "Rows that no index names have a gradient of exactly 0, also where the upstream gradient "
        "holds Inf or NaN.",
        _SUM,
        "embedding(torch.tensor([1]), weight).sum().backward()\nweight.grad[0]  # zeros",
        _GRADIENT,
    ),
    Clause(
        "gradient.nonfinite-upstream",
        Level.MUST,
        BOTH,
        "An infinity or a NaN in the upstream gradient reaches the gradient of its row as what the "
        "sum is: an infinity stays one, and a NaN or infinities of both signs give NaN.",
        "IEEE 754-2019, 6.1 and 6.2; gradient scalers look for them",
        "embedding(torch.tensor([1, 1]), weight).backward(torch.tensor([[torch.inf], [1.0]]))\n"
        "weight.grad[1]  # inf",
        _GRADIENT,
    ),
    Clause(
        "gradient.subnormal-upstream",
        Level.MUST,
        BOTH,
        "Subnormal numbers in the upstream gradient are summed, not flushed to 0: in float16 they "
        "begin at 6e-5.",
        "IEEE 754-2019, 7.5: underflow is gradual; torch.set_flush_denormal is off by default",
        "embedding(torch.tensor([0, 0]), weight).backward(torch.full((2, 1), 2.0**-149))\n"
        "weight.grad[0]  # 2**-148",
        _GRADIENT,
    ),
    Clause(
        "gradient.shape-and-dtype",
        Level.MUST,
        BOTH,
        "The gradient is a dense tensor of the shape and dtype of the table.",
        "torch.Tensor.grad",
        "embedding(ids, weight).sum().backward()\n"
        "weight.grad.shape == weight.shape and weight.grad.dtype == weight.dtype",
        _GRADIENT,
    ),
    Clause(
        "gradient.int32-indices",
        Level.MUST,
        BOTH,
        "int32 indices give the gradient that int64 indices give.",
        "torch.nn.functional.embedding: Input (LongTensor or IntTensor)",
        "embedding(torch.tensor([1, 1], dtype=torch.int32), weight).sum().backward()\n"
        "weight.grad[1]  # twos",
        _GRADIENT | {"int32"},
    ),
    Clause(
        "gradient.strided-weight",
        Level.MUST,
        BOTH,
        "A table that is a view has the gradient that a contiguous one has.",
        _SUM,
        "weight = base[:, :5].detach().requires_grad_()\n"
        "embedding(torch.tensor([1, 1]), weight).sum().backward()  # twos in row 1",
        _GRADIENT | {"strided"},
    ),
    Clause(
        "gradient.strided-indices",
        Level.MUST,
        BOTH,
        "Transposed, stepped, offset or expanded indices have the gradient of what they read as.",
        "pytorch/pytorch#63427",
        "ids = torch.tensor([[0, 1], [2, 2]]).t()\n"
        "embedding(ids, weight).sum().backward()  # twos in row 2",
        _GRADIENT | {"strided"},
    ),
    Clause(
        "gradient.strided-upstream",
        Level.MUST,
        BOTH,
        "A transposed, stepped or expanded upstream gradient counts as what it reads as.",
        "pytorch/pytorch#81528: gradient strides assumed",
        "out = embedding(torch.tensor([0, 1]), weight)\n"
        "out.backward(torch.tensor(2.0).expand_as(out))  # twos in rows 0 and 1",
        _GRADIENT,
    ),
    Clause(
        "gradient.many-indices",
        Level.MUST,
        BOTH,
        "The sum is right for every number of indices, on both sides of the sizes at which "
        "kernels switch, with unequal and non-adjacent repeats.",
        "pytorch/pytorch#26302 (769), #28959 (1001), #82886 (3073)",
        "ids = torch.arange(1025) % 3\nembedding(ids, weight).sum().backward()  # 342, 342, 341",
        _GRADIENT,
    ),
    Clause(
        "gradient.hot-rows",
        Level.MUST,
        BOTH,
        "Thousands of equal indices lose nothing.",
        "MXNet#17703, tt-metal#53386: accumulation saturates",
        "ids = torch.zeros(5000, dtype=torch.long)\n"
        "embedding(ids, weight).sum().backward()  # 5000 in row 0",
        _GRADIENT,
    ),
    Clause(
        "gradient.wide-rows",
        Level.MUST,
        BOTH,
        "Every column gets its gradient for every width, on both sides of 32, 64, 128, 256, 1024.",
        "EMBEDDING-BUGS §3: kernel switches",
        "weight = torch.zeros(2, 129, requires_grad=True)\n"
        "embedding(torch.tensor([1]), weight).sum().backward()  # 129 ones",
        _GRADIENT,
    ),
    Clause(
        "gradient.empty",
        Level.MUST,
        BOTH,
        "No indices give an all-zero gradient; a table of zero width gives an empty one.",
        "torch 2.13, observed",
        "embedding(torch.empty(0, dtype=torch.long), weight).sum().backward()\n"
        "weight.grad  # zeros",
        _GRADIENT,
    ),
    Clause(
        "gradient.requires-grad",
        Level.MUST,
        BOTH,
        "The output requires grad exactly when the table does and grad mode is on.",
        "PyTorch, autograd mechanics",
        "with torch.no_grad():\n    assert not embedding(ids, weight).requires_grad",
        _GRADIENT,
    ),
    Clause(
        "gradient.frozen",
        Level.MUST,
        BOTH,
        "The output of a frozen table, and of a call under no_grad or inference_mode, has the "
        "same bits as that of a trained one.",
        "PyTorch, autograd mechanics",
        "with torch.inference_mode():\n    embedding(ids, weight)  # the same rows",
    ),
    Clause(
        "gradient.accumulates",
        Level.MUST,
        BOTH,
        "A second pass adds to the gradient that is there.",
        "torch.Tensor.backward: accumulates into .grad",
        "for _ in range(2):\n    embedding(ids, weight).sum().backward()  # the gradient doubles",
        _GRADIENT,
    ),
    Clause(
        "gradient.accumulates-in-place",
        Level.MUST,
        BOTH,
        "A pass adds to a dense gradient that is there in its own memory, so that a buffer of "
        "which it is a view gets it, and its strides stay.",
        "torch.Tensor.backward, default gradient layouts: without create_graph it accumulates in "
        "place; DistributedDataParallel(gradient_as_bucket_view=True)",
        "weight.grad = bucket[:weight.numel()].view_as(weight)\n"
        "embedding(ids, weight).sum().backward()  # bucket holds the gradient",
        _GRADIENT,
    ),
    Clause(
        "gradient.backward-twice",
        Level.MUST,
        BOTH,
        "A second backward through the same retained graph gives the same gradient again, with "
        "padding_idx and scale_grad_by_freq as without.",
        "torch.Tensor.backward(retain_graph=True); pytorch/pytorch#17919",
        "loss = embedding(ids, weight).sum(); loss.backward(retain_graph=True)\n"
        "loss.backward()  # the gradient doubles",
        _GRADIENT,
    ),
    Clause(
        "gradient.two-uses",
        Level.MUST,
        BOTH,
        "Two lookups in one graph add their gradients.",
        _SUM,
        "loss = embedding(a, weight).sum() + embedding(b, weight).sum()\n"
        "loss.backward()  # the sum over a and b",
        _GRADIENT,
    ),
    Clause(
        "gradient.non-leaf-table",
        Level.MUST,
        BOTH,
        "A table that is computed, such as a product, a concatenation or the transpose of another "
        "tensor, has its own gradient and passes it on to what it was computed from, with every "
        "option; so does a cast.",
        f"{_SUM}; the chain rule; torch 2.13, observed: max_norm is straight-through here too",
        "embedding(torch.tensor([1, 1]), base * 2).sum().backward()\nbase.grad[1]  # fours",
        _GRADIENT,
    ),
    Clause(
        "gradient.tied-table",
        Level.MUST,
        BOTH,
        "A table that a linear layer uses in the same graph has the sum of both gradients; that of "
        "the layer stays whole, in the padding row too. Where max_norm scales rows after the layer "
        "has saved them, the layer's backward pass raises or is that of the rows as they were.",
        "forced: gradients of several uses add up; padding_idx is an argument of the lookup; "
        "Press and Wolf, Using the Output Embedding to Improve Language Models (2017); PyTorch, "
        "autograd mechanics: in-place correctness checks",
        "out = embedding(torch.tensor([0]), weight, padding_idx=0)\n"
        "(out.sum() + (hidden @ weight.t()).sum()).backward()  # row 0: what the layer gives",
        _GRADIENT,
    ),
    Clause(
        "gradient.output-written",
        Level.MUST,
        BOTH,
        "Where the output of a lookup without options may be changed in place before the backward "
        "pass, so may that with any option, and the gradient is that of the changed output; that "
        "of a frozen table, a Parameter too, may be changed and multiplied by what is trained.",
        "forced: the derivative of a lookup depends on indices alone, so its output need not be "
        "saved; PyTorch, autograd mechanics: in-place correctness checks; torch 2.13, observed",
        "out = embedding(torch.tensor([1]), weight)\nout.mul_(2).sum().backward()  # twos in row 1",
        _GRADIENT,
    ),
    Clause(
        "gradient.table-written",
        Level.MUST,
        BOTH,
        "Where the table of a lookup without options may be written to between forward and "
        "backward, as by an optimiser's step, or its memory be given up, so may that with any "
        "option, and the gradient is still that of the call, dense and sparse.",
        "forced: the derivative of a lookup depends on indices alone, so the table need not be "
        "saved; PyTorch, autograd mechanics: in-place correctness checks; torch 2.13, observed",
        "out = embedding(torch.tensor([1]), weight)\n"
        "with torch.no_grad(): weight.mul_(0.5)\n"
        "out.sum().backward()  # ones in row 1",
        _GRADIENT,
    ),
    Clause(
        "gradient.changed-indices",
        Level.MUST,
        BOTH,
        "If the indices are written to between forward and backward, the backward pass raises or "
        "uses the indices of the call, never the new ones.",
        "PyTorch, autograd mechanics: in-place correctness checks",
        "out = embedding(ids, weight); ids.fill_(0)\n"
        "out.sum().backward()  # raises, or the gradient for the old ids",
        _GRADIENT,
    ),
    Clause(
        "gradient.deterministic",
        Level.MUST,
        BOTH,
        "Under torch.use_deterministic_algorithms(True) the same pass gives the same bits.",
        "torch.use_deterministic_algorithms, documentation; pytorch/pytorch#195404",
        "torch.use_deterministic_algorithms(True)\n"
        "for _ in range(2): weight.grad = None; embedding(ids, weight).sum().backward()",
        _GRADIENT,
    ),
    Clause(
        "gradient.scale-by-freq",
        Level.MUST,
        TORCH,
        "With scale_grad_by_freq the gradient of a row is divided by how often its index occurs.",
        f"{_MODULE}; pytorch/pytorch#185119: ignored",
        "embedding(torch.tensor([1, 1]), weight, scale_grad_by_freq=True).sum().backward()\n"
        "weight.grad[1]  # ones",
        _SCALE,
    ),
    Clause(
        "gradient.scale-by-freq-nd",
        Level.MUST,
        TORCH,
        "The frequency is counted over the whole call, whatever the shape of the indices.",
        f"{_MODULE} (in the mini-batch); pytorch/pytorch#95182",
        "embedding(torch.tensor([[1], [1]]), weight, scale_grad_by_freq=True).sum().backward()\n"
        "weight.grad[1]  # ones",
        _SCALE,
    ),
    Clause(
        "gradient.scale-by-freq-padding",
        Level.MUST,
        TORCH,
        "With padding_idx too, the padding row has gradient 0 and the others their own count.",
        _MODULE,
        "ids = torch.tensor([0, 1, 1])\n"
        "embedding(ids, weight, padding_idx=0, scale_grad_by_freq=True).sum().backward()",
        frozenset({"gradient", "scale_grad_by_freq", "padding_idx"}),
    ),
    Clause(
        "gradient.scale-by-freq-many",
        Level.MUST,
        TORCH,
        "The division by the count holds for every number of indices.",
        f"{_MODULE}; pytorch/pytorch#190063: wrong count used",
        "ids = torch.arange(1025) % 3\n"
        "embedding(ids, weight, scale_grad_by_freq=True).sum().backward()  # ones",
        _SCALE,
    ),
    Clause(
        "gradient.double-backward",
        Level.MAY,
        BOTH,
        "The derivative of the gradient with respect to the upstream gradient is a lookup in the "
        "direction, 0 at padding_idx.",
        "forced: the backward pass is linear; pytorch/pytorch#6469",
        "(g,) = torch.autograd.grad(out, weight, upstream, create_graph=True)\n"
        "torch.autograd.grad((g * v).sum(), upstream)  # v[ids]",
        _DOUBLE,
    ),
    Clause(
        "gradient.third-derivative",
        Level.MAY,
        BOTH,
        "The gradient is recorded by create_graph=True and can be differentiated, and again, by "
        "the table and by the upstream gradient, with padding_idx as without, for indices of each "
        "dtype and layout.",
        "forced: the backward pass is linear, and its derivative a lookup; gradient penalties in "
        "meta-learning",
        "g = torch.func.grad(lambda w: embedding(ids, w).pow(3).sum())\n"
        "h = torch.func.grad(lambda w: g(w).square().sum())\n"
        "torch.func.grad(lambda w: h(w).sum())(weight)",
        _DOUBLE,
    ),
    Clause(
        "gradient.double-backward-scaled",
        Level.MAY,
        TORCH,
        "With scale_grad_by_freq the second derivative is divided by the count as well.",
        "forced: the backward pass is linear; torch 2.13, observed: the division is dropped",
        "out = embedding(torch.tensor([1, 1]), weight, scale_grad_by_freq=True)\n"
        "# d (g * v).sum() / d upstream is v[1] / 2 for both",
        frozenset({"gradient", "double_backward", "scale_grad_by_freq"}),
    ),
)
