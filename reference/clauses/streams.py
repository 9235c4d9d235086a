"""Work that a CUDA device does in an order of its own: streams, and graphs captured from them."""

from embconform.reference.clause import BOTH, Clause, Level

_CUDA = frozenset({"cuda"})
_SEMANTICS = "PyTorch, CUDA semantics: operations run on the current stream, in its order"

CLAUSES = (
    Clause(
        "streams.current",
        Level.MUST,
        BOTH,
        "A lookup takes its place on the current stream: it sees what was put there before it, and "
        "what is put there after it sees the output; so does the backward pass.",
        f"{_SEMANTICS}; EMBEDDING-BUGS §4: work on a side stream",
        "with torch.cuda.stream(torch.cuda.Stream()):\n"
        "    ids.copy_(others); kept = embedding(ids, weight).clone(); ids.zero_()\n"
        "# kept is weight[others]",
        frozenset({"functional"}),
        devices=_CUDA,
    ),
    Clause(
        "streams.concurrent",
        Level.MUST,
        BOTH,
        "Calls on two streams whose work runs at the same time are each right, forward and "
        "backward.",
        f"{_SEMANTICS}; forced: calls share nothing",
        "with torch.cuda.stream(one): a = embedding(ids, weight)\n"
        "with torch.cuda.stream(two): b = embedding(others, table)",
        frozenset({"functional"}),
        devices=_CUDA,
    ),
    Clause(
        "streams.capture",
        Level.MAY,
        BOTH,
        "Captured in a CUDA graph, a lookup and its gradient are, at each replay, those of the "
        "data that its buffers hold then.",
        "torch.cuda.graph; pytorch/pytorch#82886: the gradient of more than 3,072 indices",
        "with torch.cuda.graph(graph): out = embedding(ids, weight)\n"
        "ids.copy_(others); graph.replay()  # out is weight[others]",
        frozenset({"functional"}),
        devices=_CUDA,
    ),
)
