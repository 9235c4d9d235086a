"""A conformance suite and benchmark harness for the Embedding operator."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from embconform.backends.backend import Backend, Capabilities
    from embconform.conformance.api import (
        NonconformantError,
        check_backend,
        parametrize_with_clauses,
    )

__version__ = "0.1.0"
__all__ = [
    "Backend",
    "Capabilities",
    "NonconformantError",
    "check_backend",
    "parametrize_with_clauses",
]

_HOMES = {
    "Backend": "embconform.backends.backend",
    "Capabilities": "embconform.backends.backend",
    "NonconformantError": "embconform.conformance.api",
    "check_backend": "embconform.conformance.api",
    "parametrize_with_clauses": "embconform.conformance.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that importing embconform does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'embconform' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names before their first use too."""
    return sorted({*globals(), *__all__})
