"""The backends that can be named: the built-in ones, and those that packages register."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType
from typing import Final

GROUP: Final = "embconform.backends"


@dataclass(frozen=True, slots=True)
class Named:
    """A backend that can be named.

    Attributes
    ----------
    name : str
        What the user types.
    path : str
        Where it is: ``module:attr``.
    summary : str
        One line; empty where only the backend itself can tell.
    registered_by : str
        The distribution that registers it; empty for a built-in one.
    """

    name: str
    path: str
    summary: str = ""
    registered_by: str = ""


_HOME: Final = "embconform.backends"
_BUILT_IN: Final = tuple(
    Named(name, f"{_HOME}.{path}", summary)
    for name, path, summary in (
        (
            "eager",
            "eager:BACKEND",
            "eager PyTorch: torch.nn.functional.embedding and torch.nn.Embedding",
        ),
        ("module", "module:BACKEND", "torch.nn.Embedding alone"),
        ("compile", "compile:BACKEND", "torch.compile of both, as one graph with dynamic shapes"),
        (
            "compile-static",
            "compile_static:BACKEND",
            "torch.compile of the function, each size anew",
        ),
        ("cuda", "cuda:BACKEND", "eager PyTorch on a CUDA device: both of its forms"),
        ("cuda-compile", "cuda_compile:BACKEND", "torch.compile of both on a CUDA device: Triton"),
        (
            "cuda-graph",
            "cuda_graph:BACKEND",
            "the function in a CUDA graph, captured once a signature and replayed",
        ),
        ("triton", "triton:BACKEND", "kernels in Triton; interpreted where no CUDA device is"),
        ("cuda-cpp", "cuda_cpp:BACKEND", "kernels in CUDA C++, compiled at first use"),
        ("aot-eager", "aot_eager:BACKEND", "torch.compile's tracing of both, run by eager kernels"),
        ("export", "export:BACKEND", "torch.export of the function with dynamic shapes"),
        ("aoti", "aoti:BACKEND", "AOTInductor: a compiled package of torch.export; no gradient"),
        ("script", "script:BACKEND", "torch.jit.script of the function"),
        ("trace", "trace:BACKEND", "torch.jit.trace of the function, one graph a rank and dtype"),
        ("func", "functorch:FUNC", "torch.func.functional_call, gradient by torch.func.vjp"),
        ("vmap", "functorch:VMAP", "one of three stacked tables under torch.func.vmap"),
        ("index-select", "by_hand:INDEX_SELECT", "torch.index_select, as people write it by hand"),
        (
            "advanced-indexing",
            "by_hand:ADVANCED_INDEXING",
            "weight[input], as people write it by hand",
        ),
        ("one-hot", "by_hand:ONE_HOT", "one_hot(input) @ weight, as people write it by hand"),
        (
            "dtensor-row",
            "dtensor:ROW",
            "RowwiseParallel: the rows of the table over two gloo processes",
        ),
        ("dtensor-row-3", "dtensor:ROW_3", "the same over three processes"),
        ("dtensor-col", "dtensor:COLUMN", "ColwiseParallel: its columns over two gloo processes"),
        ("dtensor-col-3", "dtensor:COLUMN_3", "the same over three processes"),
        ("jax", "jax:BACKEND", "JAX: jnp.take"),
        ("flax", "flax:BACKEND", "Flax: nnx.Embed"),
        ("keras-torch", "keras_torch:BACKEND", "Keras 3 on torch: layers.Embedding"),
        ("keras-jax", "keras_jax:BACKEND", "Keras 3 on JAX: layers.Embedding"),
        (
            "onnxruntime",
            "onnxruntime:BACKEND",
            "ONNX Runtime: Gather, exported by torch; no gradient",
        ),
        ("openvino", "openvino:BACKEND", "OpenVINO: the same ONNX model; no gradient"),
        ("numba", "numba:BACKEND", "Numba: weight[indices] in a compiled function"),
        ("mlx", "mlx:BACKEND", "MLX on the CPU: mx.take"),
        ("tinygrad", "tinygrad:BACKEND", "tinygrad: nn.Embedding"),
        ("torchao", "torchao:BACKEND", "torchao: a table of int8 rows; no gradient"),
        ("fbgemm", "fbgemm:BACKEND", "FBGEMM on the CPU: table-batched embeddings"),
        (
            "textbook",
            "textbook:BACKEND",
            "the founding document's layer: lookup, mask, differentiable norm bound",
        ),
    )
)


def catalogue() -> dict[str, Named]:
    """List the backends that can be named, without importing any.

    Returns
    -------
    dict of str to Named
        By name, the built-in ones first; a registered one can't take a built-in one's name.
    """
    found = {named.name: named for named in _BUILT_IN}
    for named in _registered():
        found.setdefault(named.name, named)
    return found


def reason_not_to_run(path: str) -> str | None:
    """Say why a backend can't run here.

    Parameters
    ----------
    path : str
        ``module:attr`` of the backend.

    Returns
    -------
    str or None
        One line; None where it is ready.
    """
    try:
        home, _, attr = path.partition(":")
        module = import_module(home)
        return _unavailable(module) or _missing(module, attr)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return describe(error)


def describe(error: BaseException) -> str:
    """Put an exception of foreign code in one short line.

    Parameters
    ----------
    error : BaseException

    Returns
    -------
    str
    """
    try:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
        message = " ".join(text.split())
    except Exception:
        message = ""
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"no module named {error.name!r}"
    if isinstance(error, SystemExit):
        message = f"the code calls exit({message})"
    shown = "".join(char if char.isprintable() else "?" for char in message)
    if len(shown) > 300:
        shown = f"{shown[:300]}..."
    return f"{type(error).__name__}: {shown}" if shown else type(error).__name__


def _unavailable(module: ModuleType) -> str | None:
    """Ask a module's ``unavailable()``, where it has one."""
    ask = getattr(module, "unavailable", None)
    reason = ask() if callable(ask) else None
    return " ".join(str(reason).split()) if reason else None


def _missing(module: ModuleType, attr: str) -> str | None:
    """Look whether a module has what it is said to have."""
    found: object = module
    for name in attr.split("."):
        if not hasattr(found, name):
            return f"{module.__name__} has no {attr!r}"
        found = getattr(found, name)
    return None


def _registered() -> Iterator[Named]:
    """List the entry points in our group."""
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        owner = point.dist.name if point.dist else ""
        home, _, attr = point.value.partition("[")[0].strip().partition(":")
        path = f"{home.strip()}:{attr.strip() or 'BACKEND'}"
        yield Named(point.name, path, registered_by=owner or "an installed package")
