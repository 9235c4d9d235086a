"""torch.compile's tracing and its decomposed backward pass, run by eager kernels."""

from pathlib import Path

from embconform.backends.backend import Backend
from embconform.backends.dynamo import compiled, prepare
from embconform.backends.through import EmbeddingThrough
from embconform.reference.clause import Profile

embedding = compiled(dynamic=True, backend="aot_eager")


class Embedding(EmbeddingThrough):
    """A torch.nn.Embedding whose lookup is traced by AOTAutograd."""

    lookup = staticmethod(embedding)


BACKEND = Backend(
    name="aot-eager",
    functional=embedding,
    module=Embedding,
    profiles=(Profile.TORCH,),
    deviations=Path(__file__).with_name("aot_eager.toml"),
    compiled=True,
    prepare=prepare,
    source="from embconform.backends.aot_eager import Embedding, embedding",
    summary='torch.compile(backend="aot_eager") of both (fullgraph, dynamic shapes)',
)
