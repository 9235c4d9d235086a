"""The lookup under torch's program transforms: differentiated, batched, cast, compiled, scripted.

All of it may be refused with an exception; what is answered must be right.
"""

from embconform.reference.clause import BOTH, TORCH, Clause, Level

_LINEAR = "forced: a lookup is linear in the table"
_BATCH = "torch.func.vmap: the function applied to each member in turn, stacked"
_GRADIENT = frozenset({"gradient"})
_PADDING = frozenset({"gradient", "padding_idx"})
_SCALE = frozenset({"gradient", "scale_grad_by_freq"})

_DERIVATIVES = (
    Clause(
        "transforms.forward-mode",
        Level.MAY,
        BOTH,
        "The forward-mode derivative is the same lookup in the table's tangent, to the bit, under "
        "no_grad too, and in the torch profile under max_norm. At padding_idx it is 0; in the "
        "torch profile it may be the tangent's row, which is the derivative of the copy, or 0, "
        "which reverse mode defines.",
        f"{_LINEAR}; torch 2.13, observed: forward mode gives the row, reverse mode 0; the bound "
        "is straight-through",
        "torch.func.jvp(lambda w: embedding(torch.tensor([2, 2]), w), (weight,), (tangent,))\n"
        "# the second result is tangent[[2, 2]]",
        _GRADIENT,
    ),
    Clause(
        "transforms.forward-over-reverse",
        Level.MAY,
        BOTH,
        "The forward-mode derivative of the gradient by the upstream gradient is the gradient of "
        "the upstream's tangent, with padding_idx and scale_grad_by_freq as without, within "
        "torch.func and on dual tensors.",
        "forced: the backward pass is linear in the upstream gradient",
        "pull = lambda u: torch.func.vjp(lambda w: embedding(ids, w), weight)[1](u)[0]\n"
        "torch.func.jvp(pull, (u,), (v,))  # the second result is pull(v)",
        _GRADIENT,
    ),
    Clause(
        "transforms.func-grad",
        Level.MAY,
        BOTH,
        "torch.func.grad and torch.func.vjp give the gradient that backward gives, with "
        "duplicates, padding_idx and scale_grad_by_freq, and leave .grad alone.",
        "torch.func.grad: the gradient; clauses gradient.sum, padding.gradient-is-zero",
        "torch.func.grad(lambda w: embedding(torch.tensor([1, 1]), w).sum())(weight)\n"
        "# twos in row 1",
        _GRADIENT,
    ),
    Clause(
        "transforms.batched-gradient",
        Level.MAY,
        BOTH,
        "torch.autograd.grad with is_grads_batched=True gives the gradient of each of the upstream "
        "gradients, with duplicates, padding_idx and scale_grad_by_freq.",
        "torch.autograd.grad, documentation of is_grads_batched: vmap over the gradients",
        "out = embedding(torch.tensor([1, 1]), weight)\n"
        "torch.autograd.grad(out, weight, torch.ones(3, 2, d), is_grads_batched=True)  # twos",
        _GRADIENT,
    ),
    Clause(
        "transforms.jacobian",
        Level.MAY,
        BOTH,
        "torch.func.jacrev, which batches the backward pass, gives ones where an output's row and "
        "column meet its index, and zeros elsewhere and at padding_idx.",
        f"{_LINEAR}; torch.func.jacrev",
        "torch.func.jacrev(lambda w: embedding(torch.tensor([1]), w))(weight)\n"
        "# [0, d, 1, d] is 1 for each column d, all else 0",
        _GRADIENT,
    ),
)

_VMAP = (
    Clause(
        "transforms.vmap-indices",
        Level.MAY,
        BOTH,
        "vmap over the indices alone looks every member up in the one table, whichever axis is "
        "the members', in one chunk or in several.",
        _BATCH,
        "torch.vmap(lambda i: embedding(i, weight))(torch.tensor([[0, 1], [2, 2]]))\n"
        "# weight[[[0, 1], [2, 2]]]",
    ),
    Clause(
        "transforms.vmap-tables",
        Level.MAY,
        BOTH,
        "vmap over the tables alone looks the same indices up in each, whichever axis is the "
        "members', in one chunk or in several.",
        _BATCH,
        "torch.vmap(lambda w: embedding(torch.tensor([1, 1]), w))(tables)\n# tables[:, [1, 1]]",
    ),
    Clause(
        "transforms.vmap-both",
        Level.MAY,
        BOTH,
        "vmap over indices and tables looks each member's indices up in its own table, also where "
        "one vmap is within another.",
        _BATCH,
        "torch.vmap(embedding)(torch.tensor([[0], [1]]), tables)\n# tables[0, [0]], tables[1, [1]]",
    ),
    Clause(
        "transforms.vmap-range-alone",
        Level.MAY,
        BOTH,
        "An index outside the table raises under vmap over the indices alone or the tables alone.",
        _BATCH,
        "torch.vmap(lambda i: embedding(i, weight))(torch.tensor([[0], [4]]))  # raises",
    ),
    Clause(
        "transforms.vmap-range",
        Level.MAY,
        BOTH,
        "An index outside its member's table raises under vmap over indices and tables: it reads "
        "no other member's rows.",
        f"{_BATCH}; torch 2.13, observed: it reads the next member's first row",
        "torch.vmap(embedding)(torch.tensor([[4], [0]]), torch.rand(2, 4, 3))  # raises",
    ),
    Clause(
        "transforms.vmap-gradient",
        Level.MAY,
        BOTH,
        "The gradient of a vmapped lookup, in one backward pass over all members, is each "
        "member's own gradient, summed over the members that share a table.",
        _BATCH,
        "torch.vmap(embedding)(torch.tensor([[0], [1]]), tables).sum().backward()\n"
        "# ones in tables.grad[0, 0] and tables.grad[1, 1]",
        _GRADIENT,
    ),
    Clause(
        "transforms.vmap-padding-alone",
        Level.MAY,
        BOTH,
        "One backward pass over a lookup that is vmapped over the tables alone, or over the "
        "indices alone, leaves row padding_idx of every table with gradient 0.",
        _BATCH,
        "f = lambda w: embedding(torch.tensor([1]), w, padding_idx=1)\n"
        "torch.vmap(f)(tables).sum().backward()  # zeros",
        _PADDING,
    ),
    Clause(
        "transforms.vmap-padding",
        Level.MAY,
        BOTH,
        "One backward pass over a lookup that is vmapped over indices and tables leaves row "
        "padding_idx of every member's table with gradient 0.",
        f"{_BATCH}; torch 2.13, observed: only the first member's is left out",
        "f = lambda i, w: embedding(i, w, padding_idx=1)\n"
        "torch.vmap(f)(torch.tensor([[1], [1]]), tables).sum().backward()  # zeros",
        _PADDING,
    ),
    Clause(
        "transforms.vmap-scaled-tables",
        Level.MAY,
        TORCH,
        "Under vmap over tables, with their own indices or with the same, scale_grad_by_freq "
        "divides by how often the index occurs in that member.",
        _BATCH,
        "f = lambda w: embedding(torch.tensor([1, 1]), w, scale_grad_by_freq=True)\n"
        "torch.vmap(f)(tables).sum().backward()  # 1 in row 1 of each",
        _SCALE,
    ),
    Clause(
        "transforms.vmap-scaled",
        Level.MAY,
        TORCH,
        "Under vmap over the indices alone scale_grad_by_freq divides by how often the index "
        "occurs in that member, the member being one call.",
        f"{_BATCH}; torch 2.13, observed: members that share a table are counted together",
        "f = lambda i: embedding(i, weight, scale_grad_by_freq=True)\n"
        "torch.vmap(f)(torch.tensor([[1], [1]])).sum().backward()  # 1 + 1 in row 1",
        _SCALE,
    ),
    Clause(
        "transforms.vmap-max-norm",
        Level.MAY,
        BOTH,
        "Under vmap over tables max_norm bounds each member's rows; in the torch profile it "
        "renorms them in place and leaves rows that no index of that member names.",
        f"{_BATCH}; clauses max-norm.value and max-norm.in-place",
        "f = lambda i, w: embedding(i, w, max_norm=1.0)\n"
        "torch.vmap(f)(torch.tensor([[0], [1]]), tables)  # rows of norm 1 at most",
        frozenset({"max_norm"}),
    ),
    Clause(
        "transforms.per-sample-gradient",
        Level.MAY,
        BOTH,
        "vmap over torch.func.grad gives each sample's gradient by itself, with padding_idx and "
        "scale_grad_by_freq as without.",
        f"{_BATCH}; PyTorch tutorial, per-sample gradients",
        "grad = torch.func.grad(lambda w, i: embedding(i, w).sum())\n"
        "torch.vmap(grad, (None, 0))(weight, torch.tensor([[0], [1]]))  # one row each",
        _GRADIENT,
    ),
)

_PROGRAMS = (
    Clause(
        "transforms.functional-call",
        Level.MAY,
        BOTH,
        "torch.func.functional_call with another weight looks that one up and differentiates it; "
        "the module's own stays as it is and gets no gradient.",
        "torch.func.functional_call: replaces the parameters for one call",
        'torch.func.functional_call(module, {"weight": other}, (ids,))  # other[ids]',
        frozenset({"module"}),
    ),
    Clause(
        "transforms.autocast",
        Level.MAY,
        BOTH,
        "Under torch.autocast the output has the table's dtype and bits, and so has the gradient, "
        "with padding_idx, scale_grad_by_freq and sparse as without; max_norm bounds rows as "
        "exactly as without.",
        "torch.amp, op reference: embedding is in no list of casts, nor embedding_renorm_",
        'with torch.autocast("cpu", torch.bfloat16):\n'
        "    embedding(ids, weight).dtype  # torch.float32",
    ),
    Clause(
        "transforms.meta",
        Level.MAY,
        BOTH,
        "For a table and indices on the meta device, which have no values, the output is on it, "
        "too, and has the shape and the dtype that it has elsewhere.",
        "PyTorch, meta device: an abstraction of a tensor that has everything but its data",
        'weight = torch.empty(5, 4, dtype=torch.bfloat16, device="meta")\n'
        'embedding(torch.empty(2, dtype=torch.long, device="meta"), weight).dtype  # bfloat16',
        frozenset({"functional"}),
    ),
    Clause(
        "transforms.trace",
        Level.SHOULD,
        BOTH,
        "A function from torch.jit.trace looks other indices up, of the example's shape, also in "
        "another table, bounds their rows by max_norm and leaves padding out: nothing of the "
        "example's values stays in it.",
        "torch.jit.trace: the operators of the example's call, values that Python read among them; "
        "torch warns of those",
        "traced = torch.jit.trace(embedding, (ids, weight))\n"
        "traced(other_ids, other)  # other[other_ids]",
        frozenset({"functional"}),
    ),
    Clause(
        "transforms.compile",
        Level.MAY,
        BOTH,
        "torch.compile without graph breaks keeps the output's bits, the gradient, max_norm, which "
        "bounds the table itself, and the errors of indices out of range.",
        "torch.compile: the same program, faster; pytorch/pytorch#151918, #95182",
        "compiled = torch.compile(embedding, fullgraph=True, dynamic=True)\n"
        "compiled(ids, weight)  # weight[ids]",
    ),
    Clause(
        "transforms.compile-once",
        Level.SHOULD,
        BOTH,
        "Compiled with dynamic=True, new numbers of indices, rows and columns compile nothing "
        "anew.",
        "torch.compile, dynamic shapes",
        "compiled(torch.tensor([1, 0, 1]), torch.rand(5, 4))\n"
        "compiled(torch.tensor([1, 2]), torch.rand(7, 6))  # no second compilation",
    ),
    Clause(
        "transforms.export",
        Level.MAY,
        BOTH,
        "A program from torch.export looks other indices up, in other numbers, as the module "
        "does: nothing of the example stays in it, and padding_idx and max_norm keep their "
        "effect on the output.",
        "torch.export: a sound graph of the forward pass; torch 2.13, observed: custom backward "
        "passes are not in it",
        "program = torch.export.export(module, (ids,), dynamic_shapes=({0: Dim.AUTO},))\n"
        "program.module()(other_ids)  # weight[other_ids]",
    ),
    Clause(
        "transforms.script",
        Level.MAY,
        BOTH,
        "torch.jit.script keeps the output's bits and the gradient, with padding_idx, "
        "scale_grad_by_freq and sparse as without.",
        "torch.jit.script: the same program",
        "torch.jit.script(embedding)(ids, weight)  # weight[ids]",
    ),
    Clause(
        "transforms.script-max-norm",
        Level.MAY,
        BOTH,
        "torch.jit.script keeps max_norm.",
        "torch.jit.script: the same program; torch 2.13, observed: the renorm is dropped",
        "scripted = torch.jit.script(Embedding(4, 3, max_norm=0.1))\n"
        "scripted(ids).norm(dim=-1)  # 0.1 at most",
        frozenset({"max_norm"}),
    ),
)

CLAUSES = (*_DERIVATIVES, *_VMAP, *_PROGRAMS)
