"""torch.jit.script of torch.nn.functional.embedding, while torch ships it."""

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch

from embconform.backends.backend import Backend
from embconform.backends.through import EmbeddingThrough
from embconform.reference.clause import Profile


@cache
def _scripted() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit.script is deprecated
        return torch.jit.script(torch.nn.functional.embedding)


def embedding(
    input: torch.Tensor,  # noqa: A002
    weight: torch.Tensor,
    **options: Any,
) -> torch.Tensor:
    """Call the scripted torch.nn.functional.embedding, which see."""
    return _scripted()(input, weight, **options)  # type: ignore[no-any-return]


class Embedding(EmbeddingThrough):
    """A torch.nn.Embedding whose lookup is scripted."""

    lookup = staticmethod(embedding)


def unavailable() -> str | None:
    """Say why it can't run here, or None."""
    return None if hasattr(torch.jit, "script") else "this torch has no torch.jit.script"


BACKEND = Backend(
    name="script",
    functional=embedding,
    module=Embedding,
    profiles=(Profile.TORCH,),
    deviations=Path(__file__).with_name("script.toml"),
    source="from embconform.backends.script import Embedding, embedding",
    summary="torch.jit.script of torch.nn.functional.embedding",
)
