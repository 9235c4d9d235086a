"""AOTInductor: torch.nn.functional.embedding exported, compiled to a package and loaded from it."""

import tempfile
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from embconform.backends.backend import TABLE_DTYPES, Backend, Capabilities
from embconform.backends.dynamo import inductor_unavailable
from embconform.backends.foreign import AS_IT_IS, bridge
from embconform.reference.clause import Profile

_one_at_a_time = threading.Lock()  # torch.export is not made for several threads
unavailable = inductor_unavailable


class _Lookup(torch.nn.Module):
    def forward(self, indices: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding(indices, weight)


@cache
def packaged(dtype: torch.dtype, index_dtype: torch.dtype) -> Callable[..., torch.Tensor]:
    """Compile a lookup to a package, and load it.

    Parameters
    ----------
    dtype, index_dtype : torch.dtype

    Returns
    -------
    callable
        ``f(indices, weight)`` for one-dimensional indices. One package serves all sizes; those of 0
        and 1 too, although torch.export says that they begin at 2.
    """
    arguments = torch.zeros(5, dtype=index_dtype), torch.ones(13, 17, dtype=dtype)
    dynamic = tuple(dict.fromkeys(range(n), torch.export.Dim.DYNAMIC) for n in (1, 2))
    with _one_at_a_time, torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        program = torch.export.export(_Lookup(), arguments, dynamic_shapes=dynamic)
        path = str(Path(folder) / "lookup.pt2")
        torch._inductor.aoti_compile_and_package(program, package_path=path)
        loaded: Callable[..., torch.Tensor] = torch._inductor.aoti_load_package(path)
    return loaded


def _look_up(indices: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, None]:
    if str(weight.dtype).removeprefix("torch.") not in TABLE_DTYPES:
        raise NotImplementedError(f"no package is made for {weight.dtype}")
    rows = packaged(weight.dtype, indices.dtype)(indices.reshape(-1), weight)
    return rows.reshape(*indices.shape, weight.shape[1]), None


embedding = bridge(_look_up, AS_IT_IS)

BACKEND = Backend(
    name="aoti",
    functional=embedding,
    profiles=(Profile.TORCH,),
    # a package is inference alone, made for one value of each option, and for contiguous memory
    capabilities=Capabilities(
        options=frozenset(),
        gradient=False,
        double_backward=False,
        strided=False,
        devices=("cpu",),
    ),
    deviations=Path(__file__).with_name("aoti.toml"),
    compiled=True,
    threads=1,  # on more, a bad index aborts the process: docs/findings.md
    source="from embconform.backends.aoti import embedding",
    summary="AOTInductor: a package made with torch.export; no gradient",
)
