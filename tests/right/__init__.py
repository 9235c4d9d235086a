"""Right embeddings, each written in another way: none may be found wrong."""

from embconform.right.by_bytes import by_bytes
from embconform.right.by_chunks import by_chunks
from embconform.right.by_elements import by_elements
from embconform.right.by_gather import by_gather
from embconform.right.by_incidence import by_incidence
from embconform.right.by_native_autograd import by_native_autograd
from embconform.right.by_numpy import by_numpy
from embconform.right.by_segments import by_segments
from embconform.right.by_shards import by_shards
from embconform.right.module import Table

RIGHT = (
    by_segments,
    by_chunks,
    by_gather,
    by_elements,
    by_incidence,
    by_native_autograd,
    by_bytes,
    by_numpy,
    by_shards,
    Table,
)
