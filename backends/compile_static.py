"""torch.compile with Inductor and static sizes: each new size is compiled anew."""

from pathlib import Path

from embconform.backends.backend import Backend, Capabilities
from embconform.backends.dynamo import compiled, inductor_unavailable, prepare
from embconform.reference.clause import Profile

embedding = compiled(dynamic=False)
unavailable = inductor_unavailable

BACKEND = Backend(
    name="compile-static",
    functional=embedding,
    profiles=(Profile.TORCH,),
    # sparse=True fails as in `compile`, and each failure costs seconds
    capabilities=Capabilities(
        options=frozenset({"padding_idx", "max_norm", "norm_type", "scale_grad_by_freq"})
    ),
    deviations=Path(__file__).with_name("compile_static.toml"),
    compiled=True,
    sizes_compiled=True,
    prepare=prepare,
    threads=1,  # on more, a bad index aborts the process: docs/findings.md
    source="from embconform.backends.compile_static import embedding",
    summary="torch.compile of the function (fullgraph, static shapes)",
)
