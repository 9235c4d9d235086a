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
        "Calls from several threads at once are each right, forward and backward, with options "
        "too, max_norm included, and so are a backward pass in another thread than its forward "
        "pass, and an output that is held while another thread calls, or the next one, its own "
        "having ended.",
        "PyTorch, autograd mechanics: concurrent training on CPU",
        "with ThreadPoolExecutor(4) as pool:\n"
        "    list(pool.map(lambda ids: embedding(ids, weight), batches))",
        frozenset({"functional"}),
    ),
    Clause(
        "state.forked",
        Level.SHOULD,
        BOTH,
        "Calls in a process that was forked after calls are right, and so are those of its parent "
        "afterwards: nothing waits for threads that only the parent has.",
        "torch.utils.data.DataLoader, documentation: on Unix its workers are forked; torch 2.13, "
        "observed",
        "embedding(ids, weight)\nif os.fork() == 0:\n    embedding(ids, weight)  # the same rows",
        frozenset({"functional"}),
        policy=True,
        devices=frozenset({"cpu"}),
    ),
    Clause(
        "state.thread-count",
        Level.MUST,
        BOTH,
        "The result does not depend on the number of threads that torch may use inside an "
        "operator.",
        "forced: a call is a function of its arguments; torch.set_num_threads is about speed",
        "for threads in (1, 2, 3):\n"
        "    torch.set_num_threads(threads); embedding(ids, weight)  # 1,025 indices, equal bits",
        frozenset({"functional"}),
        devices=frozenset({"cpu"}),
    ),
    Clause(
        "state.default-dtype",
        Level.MUST,
        BOTH,
        "What torch's default dtype is changes neither the lookups in a table of another one, nor "
        "their gradients and counts, nor norms.",
        "forced: a call is a function of its arguments; torch.set_default_dtype, documentation: "
        "the dtype of tensors made without one",
        "torch.set_default_dtype(torch.bfloat16)\nids = torch.full((300,), 2)\n"
        "embedding(ids, weight, scale_grad_by_freq=True).sum().backward()  # divided by 300",
        frozenset({"functional"}),
    ),
    Clause(
        "state.default-device",
        Level.MAY,
        BOTH,
        "Where torch's default device is another than the table's, the output and the gradient are "
        "on the table's device, in its dtype and of the right shape, or the call is refused.",
        "torch.set_default_device, documentation: the device of tensors made without one; a call "
        "is a function of its arguments",
        'with torch.device("meta"):\n    embedding(ids, weight).device  # weight.device',
        frozenset({"functional"}),
    ),
    Clause(
        "state.options-apart",
        Level.MUST,
        BOTH,
        "Calls with other options on the same table and the same indices, one after the other, are "
        "each right by their own options, whatever came between: a refused call, a pass that "
        "raised, a checkpoint that stopped early, or a call under vmap, torch.func or "
        "inference_mode, or on meta.",
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
    Clause(
        "state.views-of-outputs",
        Level.MUST,
        BOTH,
        "What is kept of an output in another form (detach(), .data, a view, a NumPy array) keeps "
        "its values when the output itself is gone and the embedding is called again.",
        "EMBEDDING-BUGS §4: an output buffer that is reused",
        "a = embedding(torch.tensor([0]), weight).detach()\n"
        "embedding(torch.tensor([1]), weight)  # a still holds row 0",
    ),
    Clause(
        "state.torch-as-it-was",
        Level.MUST,
        BOTH,
        "Neither a call, refused or not, nor a backward pass changes the random state of torch, "
        "NumPy or random, or torch's settings: number of threads, default dtype and device, "
        "autocast, what is recorded, anomalies detected, algorithms deterministic or warned of, "
        "and subnormal numbers flushed to zero.",
        "forced: a lookup draws nothing; what else a program does would depend on its embedding",
        "state = torch.get_rng_state()\nembedding(ids, weight).sum().backward()\n"
        "torch.equal(state, torch.get_rng_state())  # True",
        frozenset({"functional"}),
        policy=True,
    ),
    Clause(
        "state.many-calls",
        Level.MUST,
        BOTH,
        "However often a table is looked up in, in whichever order the same indices come, a call "
        "is right, and each output keeps its values, as do gradients "
        "that are held and the table, rows that nobody looks up included; one backward pass "
        "through all of the calls adds them up.",
        "forced: a call is a function of its arguments; EMBEDDING-BUGS §4: caches, warm-up, pools",
        "outs = [embedding(ids, weight) for ids in batches]  # 130 of one shape\n"
        "# outs[k] holds the rows of batches[k], for each k",
        frozenset({"functional"}),
    ),
)
