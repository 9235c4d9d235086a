"""Make a backend of a function or a Module class, from its signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any, Final

from embconform.backends.backend import OPTIONS, Backend, Capabilities, TargetError
from embconform.reference.clause import Profile

_POSITIONAL: Final = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)
_BY_NAME: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_TABLES: Final = frozenset({"weight", "weights", "table"})
_INDICES: Final = frozenset({"input", "indices", "index", "ids", "idx"})


def as_backend(target: str, found: Any) -> Backend:
    """Wrap what a target names.

    Parameters
    ----------
    target : str
        As the user named it.
    found : object
        A Backend, a function or other callable, or a subclass of torch.nn.Module.

    Returns
    -------
    Backend

    Raises
    ------
    TargetError
        If it is none of these or can't be called as an embedding is.
    """
    import torch

    if isinstance(found, Backend):
        return _checked(target, found)
    if isinstance(found, type):
        if issubclass(found, torch.nn.Module):
            return _from_class(target, found)
        raise TargetError(f"{target} is {_kind_of_class(target, found)}")
    if isinstance(found, torch.nn.Module) or not callable(found):
        raise TargetError(f"{target} is {_kind_of_object(target, found)}")
    return _from_function(target, found)


def _from_function(target: str, function: Callable[..., Any]) -> Backend:
    """Wrap a callable with the signature of torch.nn.functional.embedding."""
    signature = _signature(function)
    if signature is None:
        _try_call(target, function)
        return Backend(target, functional=function)
    _check_function(target, signature)
    options = _options(signature, skip=2)
    return Backend(target, functional=function, capabilities=Capabilities(options=options))


def _check_function(target: str, signature: inspect.Signature) -> None:
    """Refuse a signature that f(input, weight) doesn't fit."""
    parameters = list(signature.parameters.values())
    names = [parameter.name for parameter in parameters if parameter.kind in _POSITIONAL]
    if len(names) >= 2 and names[0] in _TABLES and names[1] in _INDICES:
        raise TargetError(
            f"{target} takes ({names[0]}, {names[1]}); an embedding is called as "
            "f(input, weight, **options): swap the two"
        )
    if not _binds(signature, None, None):
        raise TargetError(
            f"{target} can't be called as f(input, weight, **options): "
            f"{_why(signature, 2, 'input and weight')}"
        )


def _from_class(target: str, cls: type[Any]) -> Backend:
    """Wrap a Module class with the constructor of torch.nn.Embedding."""
    import torch

    if cls.forward is torch.nn.Module.forward:
        raise TargetError(f"{target} has no forward(self, input)")
    forward = _signature(cls.forward)
    if forward and not _binds(forward, None, None):
        raise TargetError(
            f"{target}: forward can't be called as forward(input): {_why(forward, 2, 'input')}"
        )
    signature = _signature(cls)
    if signature is None:
        return Backend(target, module=cls)
    if not _binds(signature, 4, 3):
        raise TargetError(
            f"{target} can't be made as {cls.__name__}(num_embeddings, embedding_dim): "
            f"{_why(signature, 2, 'num_embeddings and embedding_dim')}"
        )
    options = _options(signature, skip=2)
    module = cls if _takes(signature, "dtype") else _without_dtype(cls)
    return Backend(target, module=module, capabilities=Capabilities(options=options))


def _without_dtype(cls: type[Any]) -> Callable[..., Any]:
    """Make a class usable whose constructor has no dtype."""

    def make(*sizes: int, dtype: Any = None, **options: Any) -> Any:
        module = cls(*sizes, **options)
        return module if dtype is None else module.to(dtype)

    return make


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """Read a signature, where the object has one."""
    try:
        return inspect.signature(function)
    except Exception:
        return None


def _binds(signature: inspect.Signature, *arguments: Any) -> bool:
    """Tell whether a call with these arguments can be made."""
    try:
        signature.bind(*arguments)
    except TypeError:
        return False
    return True


def _why(signature: inspect.Signature, given: int, wanted: str) -> str:
    """Say why a signature doesn't fit."""
    parameters = list(signature.parameters.values())
    positional = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
    if len(positional) < given:
        return f"its signature is {_short(signature)}"
    extra = [
        parameter.name
        for parameter in (*positional[given:], *parameters)
        if parameter not in positional[:given]
        and parameter.default is parameter.empty
        and parameter.kind in (*_POSITIONAL, parameter.KEYWORD_ONLY)
    ]
    return f"{extra[0]!r} has no default, and only {wanted} are sure to be given"


def _short(signature: inspect.Signature) -> str:
    """Write a signature in one line."""
    names = [str(p.replace(annotation=p.empty)) for p in signature.parameters.values()]
    return f"({', '.join(names)})"[:200]


def _takes(signature: inspect.Signature, name: str) -> bool:
    """Tell whether a keyword can be passed."""
    if any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
        return True
    parameter = signature.parameters.get(name)
    return parameter is not None and parameter.kind in _BY_NAME


def _options(signature: inspect.Signature, skip: int) -> frozenset[str]:
    """List the options that a signature has, the first positional ones being taken."""
    taken = list(signature.parameters)[:skip]
    return frozenset(
        option for option in OPTIONS if option not in taken and _takes(signature, option)
    )


def _try_call(target: str, function: Callable[..., Any]) -> None:
    """Make the simplest call of something that has no signature to read."""
    import torch

    try:
        function(torch.tensor([0]), torch.zeros(2, 3))
    except TypeError as error:
        if error.__traceback__ is None or error.__traceback__.tb_next is None:
            said = " ".join(str(error).split())[:200]
            raise TargetError(
                f"{target} can't be called as f(input, weight, **options): {said}"
            ) from error
    except Exception:
        pass


def _kind_of_class(target: str, cls: type[Any]) -> str:
    """Word a class that isn't a Module."""
    import torch

    if issubclass(cls, torch.autograd.Function):
        return f"an autograd.Function; name its apply: {target}.apply"
    if issubclass(cls, Backend):
        return "the Backend class; name an object made with it"
    return (
        "a class that is not a torch.nn.Module; name a Module class, a function "
        "f(input, weight, **options) or a Backend"
    )


def _kind_of_object(target: str, found: Any) -> str:
    """Word an object that isn't a function."""
    import torch

    name = type(found).__name__
    if isinstance(found, torch.nn.Module):
        return (
            f"a {name} object with a table of its own; the suite makes its own tables: "
            f"name the class, as in {target.rpartition(':')[0]}:{name}"
        )
    if isinstance(found, ModuleType):
        return "a module; name a function or a class in it"
    return (
        f"of type {name}, which can't be called; name a function f(input, weight, **options), "
        "an nn.Module class or a Backend"
    )


def _checked(target: str, backend: Backend) -> Backend:
    """Refuse a Backend whose fields can't be used."""
    for field in ("functional", "module", "synchronize", "prepare"):
        value = getattr(backend, field)
        if value is not None and not callable(value):
            raise TargetError(
                f"{target}: the backend's {field} is no function but of type {type(value).__name__}"
            )
    try:
        profiles = tuple(Profile(profile) for profile in backend.profiles)
    except (TypeError, ValueError):
        profiles = ()
    if not profiles:
        known = ", ".join(Profile)
        raise TargetError(f"{target}: the backend's profiles must be some of {known}")
    unknown = sorted(set(backend.capabilities.options) - set(OPTIONS))
    if unknown:
        raise TargetError(
            f"{target}: the backend's capabilities name the option {unknown[0]!r}; "
            f"there are {', '.join(OPTIONS)}"
        )
    if not backend.capabilities.devices:
        raise TargetError(f"{target}: the backend's capabilities name no device")
    return replace(backend, profiles=profiles)
