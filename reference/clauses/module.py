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
        "parameter, whatever the options and the size, before and after calls.",
        f"{_MODULE}; {_DOCUMENT}",
        "module = Embedding(4, 3)\n[(n, p.shape) for n, p in module.named_parameters()]",
        _NEEDS,
    ),
    Clause(
        "module.init-normal",
        Level.MUST,
        TORCH,
        "A new table is drawn from N(0, 1), each value by itself: no row comes twice.",
        f"{_MODULE}: initialized from N(0, 1)",
        "module = Embedding(1000, 100)\nmodule.weight.std()  # about 1",
        _NEEDS,
    ),
    Clause(
        "module.init-scaled-normal",
        Level.MUST,
        TEXTBOOK,
        "A new table is drawn from N(0, 1), each value by itself, and multiplied by "
        "1/sqrt(embedding_dim).",
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
        "torch.manual_seed reproduces the new table, small or large; another seed gives another, "
        "and tables drawn in turn differ, none beginning as another does.",
        "torch.manual_seed, documentation",
        "torch.manual_seed(0); a = Embedding(4, 3)\n"
        "torch.manual_seed(0); b = Embedding(4, 3)  # equal bits",
        _NEEDS,
    ),
    Clause(
        "module.reset-parameters",
        Level.MUST,
        BOTH,
        "reset_parameters, where there is one, draws the table anew as the constructor does, each "
        "time another, the padding row included, also one that to_empty made; weight stays the "
        "same Parameter, as large, in its memory and dtype.",
        "torch.nn.Embedding.reset_parameters, undocumented; torch 2.13, observed",
        "module.weight.data.fill_(7)\nmodule.reset_parameters()\nmodule.weight.std()  # about 1",
        _NEEDS,
        policy=True,
    ),
    Clause(
        "module.dtype",
        Level.MUST,
        BOTH,
        "The table and the output have the dtype that the constructor is given.",
        f"{_MODULE}: dtype",
        "module = Embedding(4, 3, dtype=torch.float64)\n"
        "module.weight.dtype, module(ids).dtype  # float64 twice",
        _NEEDS,
    ),
    Clause(
        "module.default-dtype",
        Level.MUST,
        BOTH,
        "Where the constructor is given no dtype, the table has torch's default dtype; that of a "
        "table with another one changes neither its lookups nor their gradients and counts.",
        "torch.set_default_dtype, documentation; torch 2.13, observed",
        "torch.set_default_dtype(torch.float64)\nEmbedding(4, 3).weight.dtype  # float64\n"
        "Embedding(4, 3, dtype=torch.float32)(ids).dtype  # float32",
        _NEEDS,
        policy=True,
    ),
    Clause(
        "module.device-context",
        Level.MUST,
        BOTH,
        "Where the constructor is given no device, the table is on that of torch.device as a "
        "context; a device that it is given comes first.",
        "torch.device as a context and torch.set_default_device, documentation; torch 2.13, "
        "observed",
        'with torch.device("meta"): module = Embedding(4, 3)\nmodule.weight.device  # meta',
        _NEEDS,
        policy=True,
    ),
    Clause(
        "module.meta",
        Level.SHOULD,
        BOTH,
        "A module can be made on the meta device, by torch.device as a context or by the argument "
        "device, and is brought to memory by to_empty and load_state_dict.",
        "torch.device and torch.nn.utils.skip_init, documentation: how large models are loaded",
        'with torch.device("meta"): module = Embedding(4, 3)\n'
        'module.to_empty(device="cpu").load_state_dict({"weight": table})\n'
        "module(ids)  # table[ids]",
        _NEEDS,
    ),
    Clause(
        "module.given-memory",
        Level.MUST,
        BOTH,
        "A module that could be made without memory is like any other once it was given a table, "
        "by to_empty and load_state_dict, by assign=True or as another Parameter: its options "
        "hold, and it refuses the same indices.",
        "torch.nn.utils.skip_init, documentation; torch.nn.Module.load_state_dict, documentation",
        'with torch.device("meta"): module = Embedding(4, 3, padding_idx=0)\n'
        'module.load_state_dict({"weight": table}, assign=True)\n'
        "module(torch.tensor([4]))  # IndexError",
        _NEEDS,
    ),
    Clause(
        "module.padding-out-of-range",
        Level.MUST,
        TORCH,
        "The constructor raises for a padding_idx outside -num_embeddings .. num_embeddings - 1, "
        "and for none inside.",
        f"{_MODULE}; pytorch/pytorch#3233",
        "Embedding(4, 3, padding_idx=4)  # raises\nEmbedding(4, 3, padding_idx=-4)  # row 0",
        frozenset({"module", "padding_idx"}),
    ),
    Clause(
        "module.weight-argument",
        Level.MUST,
        TORCH,
        "The constructor's _weight, where it has this argument, becomes the table, and raises if "
        "its shape is not (num_embeddings, embedding_dim), with whatever options.",
        "torch.nn.Embedding, undocumented argument; torch 2.13, observed",
        "Embedding(2, 3, _weight=torch.ones(2, 3))  # rows of ones\n"
        "Embedding(3, 2, _weight=torch.ones(2, 3))  # raises",
        _NEEDS,
        policy=True,
    ),
    Clause(
        "module.argument-names",
        Level.SHOULD,
        TORCH,
        "The constructor takes num_embeddings and embedding_dim by name, a call takes input, and "
        "from_pretrained, where there is one, embeddings; options that can be given by position "
        "come in torch's order.",
        f"{_MODULE}: signatures; torch 2.13, observed: forward(input)",
        "module = Embedding(num_embeddings=4, embedding_dim=3)\nmodule(input=ids)  # module(ids)",
        _NEEDS,
        policy=True,
    ),
    Clause(
        "module.attributes",
        Level.SHOULD,
        BOTH,
        "num_embeddings, embedding_dim and the options are attributes that hold what the "
        "constructor was given.",
        "torch.nn.Embedding.__constants__; torch 2.13, observed",
        "module = Embedding(4, 3, max_norm=1.5)\n"
        "module.num_embeddings, module.embedding_dim, module.max_norm  # 4, 3, 1.5",
        _NEEDS,
        policy=True,
    ),
    Clause(
        "module.padding-normalised",
        Level.SHOULD,
        TORCH,
        "The attribute padding_idx counts from the start of the table, also where the constructor "
        "was given a negative one.",
        "pytorch/pytorch#3233: negative padding_idx not normalised",
        "Embedding(4, 3, padding_idx=-1).padding_idx  # 3",
        frozenset({"module", "padding_idx"}),
        policy=True,
    ),
    Clause(
        "module.padding-fixed",
        Level.MUST,
        TORCH,
        "padding_idx, also a negative one, means a row of the table that the constructor makes: "
        "when a table of more rows takes its place, the padding row is where it was, and the new "
        "rows are looked up like the others.",
        "torch 2.13, observed; how vocabularies are extended",
        "module = Embedding(4, 3, padding_idx=-1)\nmodule.weight = nn.Parameter(torch.ones(9, 3))\n"
        "# row 3 gets no gradient, and row 8 does",
        frozenset({"module", "padding_idx", "gradient"}),
        policy=True,
    ),
    Clause(
        "module.options-later",
        Level.SHOULD,
        BOTH,
        "An option that is set as an attribute rules the next call, and not the gradient of one "
        "before; a module may have no such attribute, or one that can't be set.",
        "torch 2.13, observed; how bounds are annealed",
        "module = Embedding(4, 3, max_norm=9.0)\nmodule.max_norm = 0.5\nmodule(ids)  # within 0.5",
        _NEEDS,
        policy=True,
    ),
    Clause(
        "module.repr",
        Level.SHOULD,
        BOTH,
        "repr names both sizes of the table.",
        "torch.nn.Module.extra_repr, documentation",
        "repr(Embedding(4, 3))  # Embedding(4, 3)",
        _NEEDS,
    ),
    Clause(
        "module.from-pretrained",
        Level.MUST,
        TORCH,
        "A module of from_pretrained looks up the rows of the given tensor bit for bit, in its "
        "dtype, row padding_idx included.",
        "torch.nn.Embedding.from_pretrained, documentation; fairseq#4076: the table was wiped",
        "module = Embedding.from_pretrained(table, padding_idx=0)\nmodule(ids)  # table[ids]",
        _NEEDS,
    ),
    Clause(
        "module.from-pretrained-shares",
        Level.MUST,
        TORCH,
        "from_pretrained copies nothing, whatever the options: weight and the given tensor are one "
        "memory.",
        "torch 2.13, observed",
        "module = Embedding.from_pretrained(table)\ntable[0] = 5\nmodule.weight[0]  # fives",
        _NEEDS,
        policy=True,
    ),
    Clause(
        "module.from-pretrained-freezes",
        Level.MUST,
        TORCH,
        "weight of from_pretrained requires grad with freeze=False, and not by default; whether "
        "what it is given requires grad, another module's weight or a tensor, stays as it is.",
        "torch.nn.Embedding.from_pretrained, documentation of freeze",
        "Embedding.from_pretrained(table).weight.requires_grad  # False\n"
        "Embedding.from_pretrained(table, freeze=False).weight.requires_grad  # True",
        _NEEDS,
    ),
    Clause(
        "module.from-pretrained-options",
        Level.MUST,
        TORCH,
        "Options given to from_pretrained mean what they mean to the constructor.",
        "torch.nn.Embedding.from_pretrained, documentation: see module initialization",
        "module = Embedding.from_pretrained(table, freeze=False, padding_idx=0)\n"
        "module(torch.tensor([0, 1])).sum().backward()\nmodule.weight.grad[0]  # zeros",
        _NEEDS,
    ),
    Clause(
        "module.from-pretrained-rank",
        Level.MUST,
        TORCH,
        "from_pretrained raises for a tensor that does not have two dimensions.",
        "torch.nn.Embedding.from_pretrained, documentation: 2-dimensional FloatTensor",
        "Embedding.from_pretrained(torch.ones(4))  # raises",
        _NEEDS,
    ),
    Clause(
        "module.from-pretrained-subclass",
        Level.MUST,
        TORCH,
        "from_pretrained of a subclass makes one of it by its own constructor, and its forward is "
        "called.",
        "torch.nn.Embedding.from_pretrained, a classmethod; torch 2.13, observed",
        "class Scaled(Embedding): forward = lambda self, ids: 2 * super().forward(ids)\n"
        "type(Scaled.from_pretrained(table))  # Scaled",
        _NEEDS,
    ),
    Clause(
        "module.from-pretrained-draws-nothing",
        Level.SHOULD,
        TORCH,
        "from_pretrained leaves torch's random state alone: what is made after it is as without.",
        "torch.nn.Embedding.from_pretrained; torch 2.13, observed",
        "torch.manual_seed(0)\nEmbedding.from_pretrained(table)\ntorch.rand(1)  # 0.4963",
        _NEEDS,
        policy=True,
    ),
    Clause(
        "module.state-dict",
        Level.MUST,
        BOTH,
        "state_dict holds weight alone, under the name that a model gives it, with whatever "
        "options: the table itself and no copy, however it lies in memory; loading it makes "
        "another module look up the same rows. Hooks on saving and loading run.",
        "torch.nn.Module.state_dict, documentation: references to the parameters; torch 2.13, "
        "observed",
        "b.load_state_dict(a.state_dict())\nb(ids) == a(ids)",
        _NEEDS,
    ),
    Clause(
        "module.load-copies",
        Level.MUST,
        BOTH,
        "load_state_dict writes the values, rounded to the table's dtype, into the table as it "
        "stands, frozen or not and however it lies in memory: the same Parameter, the same memory, "
        "which does not follow the checkpoint later. The checkpoint stays as it was.",
        "torch.nn.Module.load_state_dict, documentation: copies; an optimiser holds the Parameter",
        "before = module.weight\nmodule.load_state_dict(state)\nmodule.weight is before  # True",
        _NEEDS,
    ),
    Clause(
        "module.load-strict",
        Level.MUST,
        BOTH,
        "load_state_dict raises for a missing key, an unexpected one and a table of another shape; "
        "with strict=False the wrong keys are forgiven and named, whatever they hold, and the "
        "table is left alone. A frozen table is missed like any other.",
        "torch.nn.Module.load_state_dict, documentation of strict",
        "module.load_state_dict({})  # raises\nmodule.load_state_dict({}, strict=False)",
        _NEEDS,
    ),
    Clause(
        "module.load-assign",
        Level.MUST,
        BOTH,
        "load_state_dict with assign=True puts the loaded tensor in the table's place, its memory "
        "and dtype included; requires_grad stays as it was.",
        "torch.nn.Module.load_state_dict, documentation of assign",
        'module.load_state_dict({"weight": table}, assign=True)\n'
        "module.weight.data_ptr() == table.data_ptr()  # True",
        _NEEDS,
    ),
    Clause(
        "module.cast",
        Level.MUST,
        BOTH,
        "to(dtype) rounds every row to nearest in the same Parameter, frozen or not, and a "
        "gradient that is there; from then on the module looks up the new table and its gradients "
        "have the new dtype; a cast back starts from what is there. So it is by torch.__future__'s "
        "new Parameters and by swapped ones.",
        "torch.nn.Module.to, documentation: casts in place; torch.__future__, documentation of "
        "set_overwrite_module_params_on_conversion; IEEE 754",
        "module.to(torch.float64)\nmodule(ids).dtype  # float64",
        _NEEDS,
    ),
    Clause(
        "module.deepcopy",
        Level.MUST,
        BOTH,
        "A deepcopy does what the original does, with its options, dtype, mode and requires_grad, "
        "and neither sees a later change of the other.",
        "copy.deepcopy, documentation; torch.nn.TransformerEncoder makes its layers by it",
        "other = copy.deepcopy(module)\nother.weight.data.zero_()\nmodule(ids)  # as before",
        _NEEDS,
    ),
    Clause(
        "module.pickle",
        Level.MUST,
        BOTH,
        "So does a copy that went through pickle or torch.save; classes that pickle can't import "
        "by name are exempt.",
        "torch.save and pickle, documentation",
        "torch.save(module, file)\nother = torch.load(file, weights_only=False)\n"
        "other(ids)  # as module(ids)",
        _NEEDS,
    ),
    Clause(
        "module.shallow-copy",
        Level.MUST,
        BOTH,
        "copy.copy gives another module on the same Parameter: an option set on either, or another "
        "table given to it, as to a replica of torch.nn.DataParallel, is no matter of the other.",
        "copy.copy, documentation: references to what the original holds",
        "other = copy.copy(module)\nother.weight is module.weight  # True",
        _NEEDS,
    ),
    Clause(
        "module.tied",
        Level.MUST,
        BOTH,
        "A weight that another module holds too stays one Parameter of both: in a copy of both, "
        "and in casts, load_state_dict and share_memory, which leave it the one that it was.",
        "copy.deepcopy, documentation of memo; torch.__future__, documentation of "
        "set_overwrite_module_params_on_conversion: by default changed in place",
        "head.weight = module.weight\na, b = copy.deepcopy(nn.ModuleList([module, head]))\n"
        "a.weight is b.weight  # True",
        _NEEDS,
    ),
    Clause(
        "module.table-kept",
        Level.MUST,
        BOTH,
        "What only asks leaves the table as it is, rows over max_norm too: state_dict, repr, "
        "copies, parameters, apply, eval, train, requires_grad_, zero_grad, a cast to its dtype. "
        "weight stays the same Parameter.",
        "torch.nn.Embedding, documentation of max_norm: modified in-place by a forward call",
        "module = Embedding(4, 3, max_norm=0.1)\nbefore = module.weight.clone()\n"
        "module.state_dict()  # module.weight is as before",
        _NEEDS,
    ),
    Clause(
        "module.eval-mode",
        Level.MUST,
        BOTH,
        "eval() changes nothing: lookups, gradients and max_norm are as in training, and see the "
        "table as it is, also one of another height; what no_grad leaves unrecorded can be written "
        "to and multiplied by what is trained.",
        "torch.nn.Module.eval, documentation: only certain modules differ; torch 2.13, observed",
        "module.eval()\nmodule(ids).sum().backward()  # as before",
        _NEEDS,
    ),
    Clause(
        "module.zero-grad",
        Level.MUST,
        BOTH,
        "After zero_grad the gradient is None, or zeros with set_to_none=False, whatever it held "
        "and though the table is frozen since; the next pass gives its own gradient alone.",
        "torch.nn.Module.zero_grad, documentation",
        "module(ids).sum().backward()\nmodule.zero_grad()\nmodule.weight.grad is None  # True",
        frozenset({"module", "gradient"}),
    ),
    Clause(
        "module.freezing",
        Level.MUST,
        BOTH,
        "After requires_grad_(False), of the module, its weight or a model, it looks up its table "
        "and nothing requires grad, but can be written to and multiplied by what is trained; after "
        "requires_grad_(True) it learns again. Nothing else thaws or freezes it: train, eval, "
        "casts, copies, loading.",
        "torch.nn.Module.requires_grad_, documentation: for freezing",
        "module.requires_grad_(False)\nmodule(ids).requires_grad  # False",
        frozenset({"module", "gradient"}),
    ),
    Clause(
        "module.hooks",
        Level.MUST,
        BOTH,
        "Forward and full backward hooks, and what runs before either, of the module and of all, "
        "run once a call, in either mode and by functional_call, and what they return takes the "
        "place of indices, output and upstream gradient; always_call runs them at errors; removed, "
        "they go. A deepcopy has them too.",
        "torch.nn.Module.register_forward_hook and register_full_backward_hook, documentation",
        "module.eval().register_forward_hook(lambda module, args, out: out * 2)\n"
        "module(ids)  # twice the rows",
        _NEEDS,
    ),
    Clause(
        "module.parametrized",
        Level.MUST,
        BOTH,
        "A parametrization of weight is looked up as it is at each call and differentiated "
        "through, and removed without a trace.",
        "torch.nn.utils.parametrize.register_parametrization, documentation",
        'parametrize.register_parametrization(module, "weight", Doubled())\n'
        "module(ids)  # twice the rows of module.parametrizations.weight.original",
        _NEEDS,
    ),
    Clause(
        "module.pruned",
        Level.MUST,
        BOTH,
        "A weight that torch.nn.utils.prune masks, and keeps as weight_orig, is looked up masked, "
        "in either mode and by the mask of the moment, and differentiated through it.",
        "torch.nn.utils.prune.custom_from_mask, documentation",
        'prune.custom_from_mask(module, "weight", mask)\nmodule(ids)  # (weight_orig * mask)[ids]',
        _NEEDS,
    ),
)
