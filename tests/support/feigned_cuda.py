"""A CUDA device that is feigned on the CPU, to see that the suite puts everything where it belongs.

A tensor on it is one of the CPU's that is marked. As on a real device, it does not mix with tensors
that are not, and NumPy can't have it before ``cpu()``. Under torch.func's transforms, whose
wrappers carry no mark, nothing is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

CUDA = torch.device("cuda", 0)
APART = "Expected all tensors to be on the same device, but found at least two devices"
_COPIES = {torch.Tensor.copy_, torch.Tensor.__setitem__, torch.nn.Module.load_state_dict}
_TO_NUMPY = {torch.Tensor.numpy, torch.Tensor.__array__}
_DEVICE = torch.Tensor.device.__get__  # type: ignore[attr-defined]
_GRAD = torch.Tensor.grad.__get__  # type: ignore[attr-defined]
_IS_CUDA = torch.Tensor.is_cuda.__get__  # type: ignore[attr-defined]


class OnCuda(torch.Tensor):
    """A tensor that is marked as being on the device."""

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _TO_NUMPY:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if func == _DEVICE:
            return CUDA
        if func == _IS_CUDA:
            return True
        if func is torch.Tensor.cpu:
            return _plain(args[0])
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        if any(map(torch._C._functorch.is_functorch_wrapped_tensor, tensors)):
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func is torch._has_compatible_shallow_copy_type:
            return len({isinstance(each, OnCuda) for each in tensors}) == 1
        if func not in _COPIES:
            refuse_apart(tensors, scalars=func is not torch.nn.functional.embedding)
        made = super().__torch_function__(func, types, args, kwargs)
        return _marked(made) if func == _GRAD and made is not None else made


def refuse_apart(tensors: Iterable[Any], *, scalars: bool = False) -> None:
    """Raise where some are on the device and some are not; CPU scalars may mix in arithmetic."""
    with torch._C.DisableTorchFunction():  # modes as well
        on = {
            isinstance(each, OnCuda)
            for each in tensors
            if isinstance(each, OnCuda) or not (each.is_sparse or (scalars and not each.dim()))
        }
    if len(on) > 1:
        raise RuntimeError(APART)


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.as_subclass(torch.Tensor).clone()


def _is_cuda(value: object) -> bool:
    return str(value).startswith("cuda") if isinstance(value, str | torch.device) else False


class Moves(TorchFunctionMode):
    """Lets ``device="cuda"`` and ``to("cuda")`` mark what they make."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.to:
            return _moved(args[0], (*args[1:], *kwargs.values()))
        if not _is_cuda(kwargs.get("device")):
            return func(*args, **kwargs)
        return _marked(func(*args, **kwargs | {"device": "cpu"}))


def _moved(tensor: torch.Tensor, arguments: tuple[Any, ...]) -> torch.Tensor:
    """Do what ``Tensor.to`` does with a dtype, a device or both."""
    if any(isinstance(each, str | torch.device) and str(each) == "cpu" for each in arguments):
        tensor = _plain(tensor)
    for each in arguments:
        if isinstance(each, torch.dtype):
            tensor = tensor.type(each)
    if any(map(_is_cuda, arguments)) and not isinstance(tensor, OnCuda):
        return _marked(tensor.clone())
    return tensor


def _marked(tensor: Any) -> Any:
    """Mark a tensor; a sparse one can't be, and mixes with both kinds."""
    return tensor if tensor.is_sparse else tensor.as_subclass(OnCuda)


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let an entry of the autograd engine, which no override sees, check what it is given."""

    def call(*args: Any, **kwargs: Any) -> Any:
        leaves = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        if not any(map(torch._C._functorch.is_functorch_wrapped_tensor, leaves)):
            refuse_apart(leaves)
        found = function(*args, **kwargs)
        if isinstance(found, tuple) and any(isinstance(each, OnCuda) for each in leaves):
            return tuple(
                _marked(each) if isinstance(each, torch.Tensor) else each for each in found
            )
        return found

    return call


@contextmanager
def feigned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Feign a device."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "synchronize", lambda *_: None)
        patch.setattr(torch.cuda, "empty_cache", lambda: None)
        patch.setattr(torch.cuda, "mem_get_info", lambda *_: (0, 0))
        patch.setattr(torch.cuda, "get_device_name", lambda *_: "feigned")
        patch.setattr(torch.autograd, "backward", _checked(torch.autograd.backward))
        patch.setattr(torch.autograd, "grad", _checked(torch.autograd.grad))
        with Moves():
            yield
