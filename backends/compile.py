"""torch.compile with Inductor: no graph break allowed, sizes dynamic."""

from pathlib import Path

from embconform.backends.backend import Backend
from embconform.backends.dynamo import compiled, inductor_unavailable, prepare
from embconform.backends.through import EmbeddingThrough
from embconform.reference.clause import Profile

embedding = compiled(dynamic=True)
unavailable = inductor_unavailable


class Embedding(EmbeddingThrough):
    """A torch.nn.Embedding whose lookup is compiled.

    Not ``torch.nn.Embedding(...).compile(fullgraph=True)``: docs/findings.md.
    """

    lookup = staticmethod(embedding)


BACKEND = Backend(
    name="compile",
    functional=embedding,
    module=Embedding,
    profiles=(Profile.TORCH,),
    deviations=Path(__file__).with_name("compile.toml"),
    compiled=True,
    prepare=prepare,
    threads=1,  # on more, a bad index aborts the process: docs/findings.md
    source="from embconform.backends.compile import Embedding, embedding",
    summary="torch.compile of both (fullgraph, dynamic shapes)",
)
