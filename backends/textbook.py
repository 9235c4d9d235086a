"""The founding document's layer, judged by the textbook profile."""

from __future__ import annotations

from pathlib import Path

from embconform.backends.backend import Backend, Capabilities
from embconform.reference.clause import Profile
from embconform.reference.textbook import Embedding, embedding

BACKEND = Backend(
    name="textbook",
    functional=embedding,
    module=Embedding,
    profiles=(Profile.TEXTBOOK,),
    capabilities=Capabilities(
        options=frozenset({"padding_idx", "max_norm", "norm_type"}),
        # The gradient of weight[input] adds with atomics from 32,768 elements and two threads on.
        deterministic=False,
    ),
    deviations=Path(__file__).with_name("textbook.toml"),
    source="from embconform.reference.textbook import Embedding, embedding",
    summary="the founding document's formulas: lookup, mask, differentiable norm bound",
)
